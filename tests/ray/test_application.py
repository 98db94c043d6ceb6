"""What an application on Ray is told, before there is a cluster."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from server.errors import InvalidInput, StartError


@pytest.fixture
def on_ray() -> Any:
    """The module, which needs Ray."""
    return import_module("server.on_ray")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "allow_insecure: False"),
        ({"allow_insecure": True, "listen": "127.0.0.1:1"}, "listen: '127.0.0.1:1'; expected none"),
        ({"allow_insecure": True, "manage": "on"}, "manage: 'on'"),
        ({"allow_insecure": True, "modls": "x"}, "--modls"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(on_ray: Any, arguments: dict[str, Any], expected: str) -> None:
    """With what was expected; the application is not deployed."""
    with pytest.raises(StartError, match=expected):
        on_ray.config_of(arguments)


def test_settings_are_the_servers(on_ray: Any) -> None:
    """Of metrics several on a machine, each on a port of its own, and nobody loads a model on one replica."""
    config = on_ray.config_of({"allow_insecure": "true", "max_queue_size": "7"})
    assert (config.max_queue_size, config.metrics) == (7, "127.0.0.1:0")


@pytest.mark.parametrize("user_config", [{"model": ["a"]}, {"models": "a"}, {"models": []}, {"models": [1]}])
def test_a_user_config_that_says_something_else_is_refused(on_ray: Any, user_config: dict[str, Any]) -> None:
    """With the field and what was expected."""
    with pytest.raises(InvalidInput, match=r"expected (models or revision|a list of names of models)"):
        on_ray._models_of(user_config)


def test_as_many_replicas_are_wanted_as_are_busy_for_seven_tenths() -> None:
    """Those that have not yet reported are taken for as busy; without any report nothing changes."""
    wanted = import_module("regard.ray").replicas_for_utilization
    context = SimpleNamespace(aggregated_metrics={"utilization": {"a": 2.0, "b": 1.5}}, current_num_replicas=4)
    assert wanted(context)[0] == pytest.approx(10)
    assert wanted(SimpleNamespace(aggregated_metrics=None, target_num_replicas=3)) == (3, {})
