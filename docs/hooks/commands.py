"""The reference of the command lines, made from what the programs themselves parse."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_INTRODUCTION = """# Command lines

Made from what the programs parse; `--help` says the same.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/commands.md", content=render()))
    return files


def render() -> str:
    """Return the page: the server's flags, then the commands of `regard` and of the exporter."""
    sys.path[:0] = [str(ROOT), str(ROOT / "client")]
    import typer

    import export.__main__
    import regard.commands

    commands = typer.main.get_command(regard.commands.app)
    exporter = typer.main.get_command(export.__main__.app)
    lines = [*_server(), *_command(commands, "regard"), *_command(exporter, "python -m export")]
    return "\n".join([_INTRODUCTION, *lines])


def _server() -> Iterator[str]:
    from server.config import Config

    yield "## python -m server\n"
    yield f"{(Config.__doc__ or '').strip()}\n"
    yield "| flag | variable | default | |\n|---|---|---|---|"
    for name, field in Config.model_fields.items():
        flag = f"`--{name.replace('_', '-')}`"
        yield f"| {flag} | `REGARD_{name.upper()}` | {_default(field.default)} | {_cell(field.description)} |"
    yield ""


def _command(command: Any, name: str, level: int = 2) -> Iterator[str]:
    """Describe a click command, and those below it."""
    yield f"{'#' * level} {name}\n"
    yield f"{' '.join((command.help or '').split())}\n"
    parameters = [each for each in command.params if each.name != "help"]
    if parameters:
        yield "| argument | default | |\n|---|---|---|"
    for each in parameters:
        spelt = each.metavar or each.name.upper() if each.param_type_name == "argument" else ", ".join(each.opts)
        yield f"| `{_cell(spelt)}` | {_default(each.default)} | {_cell(getattr(each, 'help', ''))}{_variable(each)} |"
    yield ""
    for child, below in getattr(command, "commands", {}).items():
        yield from _command(below, f"{name} {child}", level + 1)


def _variable(parameter: Any) -> str:
    return f" (`{parameter.envvar}`)" if isinstance(parameter.envvar, str) else ""


def _default(value: object) -> str:
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(ROOT)
    nothing = value is None or value is False or value == "" or type(value).__name__ == "Sentinel"
    return "" if nothing else f"`{value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
