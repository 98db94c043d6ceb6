"""Lets a command take a dataclass as one argument: each of its fields becomes an option of the command line."""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

Command = Callable[..., None]


def takes(parameter: str, kind: type[Any], options: Mapping[str, OptionInfo]) -> Callable[[Command], Command]:
    """Give a command one parameter that is made of options; typer itself knows flat parameters alone.

    Args:
        parameter: Of the command; the options stand in its place in the help.
        kind: A dataclass, which gives types and defaults. A tuple is an option that may be repeated.
        options: The option of each field.
    """
    fields = [_option(field, get_type_hints(kind)[field.name], options) for field in dataclasses.fields(kind)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {field.name: given.pop(field.name) for field in fields}
            command(**{parameter: kind(**{name: _frozen(value) for name, value in values.items()})}, **given)

        _describe(run, parameter, fields)
        return run

    return decorate


def _option(field: "dataclasses.Field[Any]", hint: Any, options: Mapping[str, OptionInfo]) -> inspect.Parameter:
    repeated, annotated = get_origin(hint) is tuple, cast("Any", Annotated)
    kind = types.GenericAlias(list, get_args(hint)[:1]) if repeated else hint
    default = [] if repeated else field.default
    annotation = annotated[kind, options[field.name]]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _describe(run: Command, parameter: str, fields: list[inspect.Parameter]) -> None:
    """Let a function look as if it had the options in place of the parameter."""
    parameters: list[inspect.Parameter] = []
    for each in inspect.signature(run, eval_str=True).parameters.values():
        parameters += fields if each.name == parameter else [each.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 -- mypy does not know it
