"""Each habit of the daemon that touches a retrieval, and what becomes of it: the first part of docs/reliability.md."""

from __future__ import annotations

import pytest
from robustness.table import QUIRK_ROWS
from robustness.trial import try_row

CASES = [pytest.param(row, method, id=f"{row.name}-{method}") for row in QUIRK_ROWS for method in row.runs]


@pytest.mark.parametrize(("row", "method"), CASES)
def test_a_quirk_loses_nothing_and_claims_nothing(row, method, tmp_path):
    try_row(row, method, tmp_path)
