"""What these tests share; what their helpers assert is told as what tests assert."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("robustness.account", "robustness.trial")

from robustness.forking import Forker  # noqa: E402 - what it imports is rewritten first


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    running = Forker()
    yield running
    running.stop()
