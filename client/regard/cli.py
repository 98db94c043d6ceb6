"""The entry point `regard`: runs the commands and turns whatever goes wrong into one line and an exit code.

0 all is well; 1 the server, an input or a file is at fault; 2 the command line is; 130 Ctrl-C.
"""

import os
import sys
import warnings

import regard
from regard.application import PARTS, CannotStart, OutputClosed, start
from regard.extras import how_to_install

_EXTRA = {"typer", "rich", "matplotlib", "PIL", "starlette", "uvicorn"}


def main() -> None:
    """Run the command line of sys.argv and exit."""
    _open_closed_streams()
    code = _run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _reader_gone()
    sys.exit(code)


def _open_closed_streams() -> None:
    """Let what is printed vanish where whoever started this closed stdout or stderr, which Python then sets to None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 -- open until the process ends


def _run() -> int:
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in PARTS or first == "--version":  # these need neither typer nor what is set for a client
        return _run_without_typer(first, sys.argv[2:])
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what gRPC would log of a lost server is said in one line here
    try:
        return _run_commands()
    except ModuleNotFoundError as error:
        return _explain_missing(error)
    except UnicodeEncodeError as error:
        return _fail(f"this terminal's encoding, {error.encoding}, cannot show the answer: set PYTHONIOENCODING=utf-8")
    except (CannotStart, OSError, ValueError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    from regard.errors import RegardError, Unavailable  # gRPC, which is there by now

    if not isinstance(error, RegardError):
        raise error
    hint = " (is a server running there? see --server, and --ca where it has TLS)"
    return _fail(f"{error}{hint if isinstance(error, Unavailable) else ''}")


def _run_without_typer(first: str, others: list[str]) -> int:
    if first == "--version":
        sys.stdout.write(f"regard {regard.__version__}\n")
        return 0
    try:
        return start(first, others)
    except CannotStart as error:
        return _fail(str(error))


def _run_commands() -> int:
    from regard.start import run  # here, since typer may be missing

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = run()
    except OutputClosed:
        return _reader_gone()
    return _fail("interrupted", 130) if code == 130 else code  # typer has caught the KeyboardInterrupt


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"regard: {message}\n")


def _explain_missing(error: ModuleNotFoundError) -> int:
    if (error.name or "").partition(".")[0] not in _EXTRA:
        raise error
    return _fail(f"the command line needs {error.name}: {how_to_install('explore')}")


def _fail(message: str, code: int = 1) -> int:
    sys.stderr.write(f"regard: {' '.join(message.split())}\n")
    return code


def _reader_gone() -> int:
    """Leave nothing in stdout's buffer that Python would try to write again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _fail("nobody reads the output any more")
