"""Starts the server: `python -m server --models DIR --listen HOST:PORT --metrics HOST:PORT`."""

import asyncio
import gc
import logging
import os
import signal
import sys
from functools import partial

from artifact.installed import installed_version

if sys.platform == "win32":
    from asyncio import run
else:
    from uvloop import run

from server.app import Started, serve
from server.config import Config, misspelt_variables, wanted_log_format
from server.engine.device import names_of
from server.errors import EngineFault, StartError
from server.telemetry.logs import LogFormat, set_up
from server.transport.envoy.launcher import run_inside_envoy

_log = logging.getLogger(__name__)
_COLLECT_AFTER_OBJECTS = 10_000
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
        run(_run(config))
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


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, _log.info, "%s changes nothing: files are read when they change", number.name)
    await serve(config, stop, partial(announce, config.log_format))


def announce(how: LogFormat, started: Started) -> None:
    """Tell what is served where, and spare the garbage collector what stays for good: it takes 20 ms to look at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
    (_log_started if how == "json" else _print_started)(started)


def _log_started(started: Started) -> None:
    fields = {
        "version": installed_version(),
        "device": names_of(started.devices),
        "models": [f"{contract.name}/{contract.version}" for contract in started.contracts],
        "address": started.address,
        "metrics_address": started.metrics_address,
    }
    _log.info("ready after %.1f s", started.start_seconds, extra={"fields": fields})


def _print_started(started: Started) -> None:
    lines = [f"regard {installed_version()} on {names_of(started.devices)} ({started.devices[0].reason})"]
    for contract in started.contracts:
        named = [
            name
            for name, how in (("text", contract.text), ("images", contract.image), ("audio", contract.audio))
            if how
        ]
        takes = " or ".join(named) or "tensors"
        layers = contract.attention
        shown = f"attention of {len(layers)} layers x {layers[0].num_heads} heads" if layers else "no attention"
        shown = "two towers" if len(named) > 1 else shown
        lines.append(f"  {contract.name} {contract.version}: {contract.family}, takes {takes}, {shown}")
    lines.append(f"gRPC on {started.address}, metrics on http://{started.metrics_address}/metrics")
    lines.append(f"ready after {started.start_seconds:.1f} s")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main())
