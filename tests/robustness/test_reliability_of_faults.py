"""Each fault at each step of a retrieval, and what becomes of it: the second part of docs/reliability.md.

What is the same by both methods is tried with one of them here, and with the other in ``make test-slow``.
"""

from __future__ import annotations

import pytest
from robustness.table import FAULT_ROWS
from robustness.trial import try_row

CASES = [
    pytest.param(row, method, id=f"{row.name}-{method}", marks=[pytest.mark.slow] if method in row.seldom else [])
    for row in FAULT_ROWS
    for method in row.runs
]


@pytest.mark.parametrize(("row", "method"), CASES)
def test_a_fault_loses_nothing_and_claims_nothing(row, method, tmp_path):
    try_row(row, method, tmp_path)
