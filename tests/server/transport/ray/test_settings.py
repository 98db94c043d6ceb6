"""What an application on Ray is told, before there is a cluster."""

from typing import Any

import pytest

from server.errors import InvalidInput, StartError
from server.transport.ray.settings import config_of, models_of


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "allow_insecure: False"),
        ({"allow_insecure": True, "listen": "127.0.0.1:1"}, "listen: '127.0.0.1:1'; expected none"),
        ({"allow_insecure": True, "manage": "on"}, "manage: 'on'"),
        ({"allow_insecure": True, "modls": "x"}, "--modls"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments: dict[str, Any], expected: str) -> None:
    """With what was expected; the application is not deployed."""
    with pytest.raises(StartError, match=expected):
        config_of(arguments)


def test_settings_are_the_servers() -> None:
    """Of metrics several on a machine, each on a port of its own, and nobody loads a model on one replica."""
    config = config_of({"allow_insecure": "true", "max_queue_size": "7"})
    assert (config.max_queue_size, config.metrics) == (7, "127.0.0.1:0")


@pytest.mark.parametrize("user_config", [{"model": ["a"]}, {"models": "a"}, {"models": []}, {"models": [1]}])
def test_a_user_config_that_says_something_else_is_refused(user_config: dict[str, Any]) -> None:
    """With the field and what was expected."""
    with pytest.raises(InvalidInput, match=r"expected (models or revision|a list of names of models)"):
        models_of(user_config, watches=False)


def test_models_are_named_or_their_folder_is_watched() -> None:
    """What is watched would be served again when it changes."""
    assert models_of({"models": ["a"], "revision": 3}, watches=False) == ["a"]
    assert models_of({"revision": 3}, watches=True) is None
    with pytest.raises(InvalidInput, match=r"user_config\.models: \['a'\]; expected none with watch"):
        models_of({"models": ["a"]}, watches=True)
