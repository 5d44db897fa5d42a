"""What dose a plan prescribes, as far as the facts of a case tell."""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_varian.simulator.clinic.case import Plan

_IN_LABEL: Final = re.compile(r"(\d{1,3}(?:\.\d)?)\s?Gy", re.ASCII | re.IGNORECASE)
_USUAL_FRACTION_GY: Final = 2.0
_STEREOTACTIC_FRACTION_GY: Final = 8.0
_MOST_STEREOTACTIC_FRACTIONS: Final = 5


def prescribed_gy(plan: Plan) -> float:
    """Return the dose to the target of a whole plan, Gy.

    The label tells it when it names one, as ``PROST_78Gy``; else few fractions are large ones. A verification plan
    gives its phantom a usual fraction, whatever its label.
    """
    if plan.verifies is not None:
        return plan.fractions * _USUAL_FRACTION_GY
    if named := _IN_LABEL.search(plan.label):
        return float(named.group(1))
    stereotactic = plan.fractions <= _MOST_STEREOTACTIC_FRACTIONS
    return plan.fractions * (_STEREOTACTIC_FRACTION_GY if stereotactic else _USUAL_FRACTION_GY)
