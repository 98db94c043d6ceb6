"""Starts the server: `python -m server --models DIR --listen HOST:PORT --metrics HOST:PORT`."""

import logging
import os
import sys

from server.config import Config, misspelt_variables, wanted_log_format
from server.errors import EngineFault, StartError
from server.telemetry.logs import LogFormat, set_up
from server.transport.envoy.launcher import run_inside_envoy

_log = logging.getLogger(__name__)
_ENGINE_FAULT = 70  # EX_SOFTWARE of sysexits.h


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit code: 0, 1 where it cannot start, 70 where the engine failed."""
    how = wanted_log_format(sys.argv[1:], os.environ)
    set_up("info", how)
    try:
        config = Config.from_command_line(sys.argv[1:], program_name())
        set_up(config.log_level, how := config.log_format)
        for name, meant in misspelt_variables(os.environ):
            _log.warning("%s is set and is no setting; %s is", name, meant)
        if config.transport == "envoy":
            return run_inside_envoy(config, sys.argv[1:], program_name())
        from server.process import run  # a second, and the engine: the launcher of Envoy needs neither

        run(config)
    except (StartError, EngineFault) as error:
        return explain(error, how)
    return 0


def explain(error: StartError | EngineFault, how: LogFormat) -> int:
    """Say why the server ends; returns the exit code, but where the engine failed."""
    if isinstance(error, StartError):
        _tell_end(how, f"error: {error}")
        return 1
    _tell_end(how, f"fault: {error}; ending with code {_ENGINE_FAULT}")
    os._exit(_ENGINE_FAULT)  # a thread that hangs would keep an ordinary exit waiting


def _tell_end(how: LogFormat, why: str) -> None:
    """Say why it ends: a line for people, or one more record of the log, which a machine reads."""
    if how == "json":
        _log.critical("%s", why)
    else:
        print(f"regard: {why}", file=sys.stderr, flush=True)


def program_name() -> str:
    """How it was started: `regard serve`, or this module."""
    return sys.argv[0] if sys.argv[0].startswith("regard ") else "python -m server"


if __name__ == "__main__":
    sys.exit(main())
