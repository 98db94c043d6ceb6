"""How many replicas are wanted."""

from importlib import import_module
from types import SimpleNamespace

import pytest


@pytest.mark.filterwarnings("ignore")  # Ray's own, when it is imported
def test_as_many_replicas_are_wanted_as_are_busy_for_seven_tenths() -> None:
    """Those that have not yet reported are taken for as busy; without any report nothing changes."""
    wanted = import_module("regard.ray").replicas_for_utilization
    context = SimpleNamespace(aggregated_metrics={"utilization": {"a": 2.0, "b": 1.5}}, current_num_replicas=4)
    assert wanted(context)[0] == pytest.approx(10)
    assert wanted(SimpleNamespace(aggregated_metrics=None, target_num_replicas=3)) == (3, {})
