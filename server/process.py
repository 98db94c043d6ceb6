"""This process as the server: its event loop, its signals, and what it says when it has started."""

import asyncio
import gc
import logging
import sys
from functools import partial

from artifact.installed import installed_version

if sys.platform == "win32":
    from asyncio import run as run_loop
else:
    from uvloop import run as run_loop

from server.app import Started, serve
from server.config import Config
from server.engine.device import names_of
from server.signals import IGNORED, STOPPING, tell_ignored
from server.telemetry.logs import LogFormat

_log = logging.getLogger(__name__)
_COLLECT_AFTER_OBJECTS = 10_000


def run(config: Config) -> None:
    """Serve with gRPC's own server until SIGTERM or SIGINT.

    Raises:
        StartError: See app.serve.
        EngineFault: Likewise.
    """
    run_loop(_serve(config))


async def _serve(config: Config) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop.set)
    for number in IGNORED:
        loop.add_signal_handler(number, tell_ignored, number)
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
        **({"http_address": started.http_address} if started.http_address else {}),
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
    if started.http_address:
        lines.append(f"HTTP on {started.http_address}")
    lines.append(f"gRPC on {started.address}, metrics on http://{started.metrics_address}/metrics")
    lines.append(f"ready after {started.start_seconds:.1f} s")
    print("\n".join(lines), flush=True)
