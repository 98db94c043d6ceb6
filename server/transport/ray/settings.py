"""What an application on Ray Serve is told: settings as its arguments, and models by its user_config."""

from collections.abc import Mapping
from typing import Any

from server.config import Config
from server.errors import InvalidInput, StartError

_OTHERS = (
    "listen",
    "transport",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "http",
    "http_cors",
)  # which Ray Serve's own options say
_ANY_ADDRESS = "[::]:0"  # that Ray listens on
_METRICS = "127.0.0.1:0"  # several replicas may be on one machine


def config_of(arguments: Mapping[str, Any]) -> Config:
    """Read the settings: an application's arguments, then environment, then defaults.

    Args:
        arguments: By the names of settings: max_queue_size is --max-queue-size.

    Raises:
        StartError: Names the setting, its value and what was expected.
    """
    for name in _OTHERS:
        if name in arguments:
            raise StartError(
                f"{name}: {arguments[name]!r}; expected none: grpc_options of Ray Serve say where it listens"
            )
    config = Config.from_values({"metrics": _METRICS} | dict(arguments) | {"listen": _ANY_ADDRESS})
    if not config.allow_insecure:
        raise StartError(
            "allow_insecure: False: Ray Serve's gRPC port has no TLS, and other machines reach it; expected true, and "
            "clients with it unless everybody may call"
        )
    if config.manage == "on":
        raise StartError("manage: 'on': reaches one replica of several; expected off, and user_config for models")
    return config.model_copy(update=dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca")))


def models_of(user_config: Mapping[str, Any], *, watches: bool) -> list[str] | None:
    """Read which models a user_config names; None for all.

    Args:
        user_config: The deployment's.
        watches: Whether the server follows its models folder, and so serves whatever is changed there.

    Raises:
        InvalidInput: It says something else.
    """
    for field, value in user_config.items():
        if field not in {"models", "revision"}:
            raise InvalidInput(f"user_config.{field}", value, "models or revision")
    names = user_config.get("models")
    if names is not None and not (isinstance(names, list) and names and all(isinstance(one, str) for one in names)):
        raise InvalidInput("user_config.models", names, "a list of names of models")
    if names and watches:
        raise InvalidInput("user_config.models", names, "none with watch, which serves whatever its folder has")
    return names
