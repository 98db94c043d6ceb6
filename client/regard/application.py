"""Starts the application, the server or the exporter, that the wheel carries or the checkout has."""

import os
import sys
from importlib import import_module
from pathlib import Path

from regard.extras import how_to_install

_BUNDLE = Path(__file__).parent / "_app"
_CHECKOUT = Path(__file__).parents[2]
DEFAULT_TIMEOUT_SECONDS = 30.0
PARTS = {"serve": ("server", "server"), "export": ("export", "export")}


class CannotStart(Exception):
    """What the application needs is not installed."""


class OutputClosed(Exception):
    """Whoever read the output went away."""


def start(command: str, arguments: list[str]) -> int:
    """Run `regard serve` or `regard export` in this process, and return its exit code.

    Raises:
        CannotStart: Its extra is not installed, or there is no application beside this package.
        SystemExit: For --help and for flags that do not exist.
    """
    package, extra = PARTS[command]
    folder = find_application()
    _put_on_path(folder)
    sys.argv = [f"regard {command}", *arguments]
    try:
        return int(import_module(f"{package}.__main__").main() or 0)
    except ModuleNotFoundError as error:
        if (folder / (error.name or "").partition(".")[0]).is_dir():
            raise  # a part of the application itself
        raise CannotStart(f"regard {command} needs {error.name}: {how_to_install(extra)}") from error


def find_application() -> Path:
    """The folder that holds the packages server and export.

    Raises:
        CannotStart: There is none.
    """
    folder = next((one for one in (_BUNDLE, _CHECKOUT) if (one / "server" / "__main__.py").is_file()), None)
    if folder is None:
        raise CannotStart(f"neither {_BUNDLE} nor {_CHECKOUT} holds the server: this is no wheel or checkout of regard")
    return folder


def _put_on_path(folder: Path) -> None:
    """Let this process and those that it starts find the application, before anything in the current folder."""
    sys.path.insert(0, str(folder))
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([inherited] if inherited else [])])
    os.environ["PYTHONSAFEPATH"] = "1"
