"""Bounds are positive, and their defaults have room for what honest peers send."""

from __future__ import annotations

from dataclasses import fields

import pytest

from airflow_provider_varian.dimse.bounds import Bounds


@pytest.mark.parametrize("name", [each.name for each in fields(Bounds)])
@pytest.mark.parametrize("value", [0, -1])
def test_a_bound_of_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Bounds(**{name: value})
