"""What these tests share; what their helpers assert is told as what tests assert."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

_ATTACKS = ("receivers", "stage", "cuts", "disk", "garbage", "lies", "names", "order", "silence", "size")
pytest.register_assert_rewrite("robustness.account", "robustness.trial", "support.attacker")
pytest.register_assert_rewrite(*(f"robustness.attack_{name}" for name in _ATTACKS))

from robustness.forking import Forker  # noqa: E402 - what it imports is rewritten first


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    running = Forker()
    yield running
    running.stop()
