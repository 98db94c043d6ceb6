"""Processes that an export starts, forked from one that has imported what they need.

Each is a process of its own all the same, which may end as it likes. What they import takes longer than what they do
with a small network.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_MODULES = ("export.served", "server.repository.trial")
_CONTEXT = multiprocessing.get_context("forkserver")
_POPEN = subprocess.Popen


def start() -> None:
    """Start the process that is forked, in the folder from which modules are imported."""
    _CONTEXT.set_forkserver_preload(list(_MODULES))
    forkserver.ensure_running()


def forking() -> Any:
    """What stands for the module subprocess where processes of these modules are started."""
    return SimpleNamespace(
        Popen=_open, run=_run, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT, TimeoutExpired=subprocess.TimeoutExpired
    )


def _open(command: Sequence[str], **options: Any) -> Any:
    """Fork, unless a test has put something else in the place of what starts processes."""
    if subprocess.Popen is not _POPEN:
        return subprocess.Popen(command, **options)
    _, _, _, module, *arguments = command
    return Forked(module, arguments)


def _run(command: Sequence[str], timeout: float, **options: Any) -> "subprocess.CompletedProcess[str]":
    if subprocess.Popen is not _POPEN:
        return subprocess.run(command, timeout=timeout, **options)
    process = Forked(command[3], command[4:])
    try:
        output, _ = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(list(command), process.returncode or 0, output, "")


class Forked:
    """As much of subprocess.Popen as an export asks for."""

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="regard-fork-")
        self._output = Path(self._folder.name, "output")
        self._process = _CONTEXT.Process(target=_main, args=(module, list(arguments), str(self._output)))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """None while it runs; a signal is negative."""
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; returns what it printed."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._output.read_text(encoding="utf-8") if self._output.exists() else "", ""

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()
        self._folder.cleanup()


def _main(module: str, arguments: list[str], output: str) -> None:
    """Do what `python -m MODULE ARGUMENTS` does; runs in the other process."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(file, standard)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(file), "w", buffering=1) for _ in range(2))
    if module == "export.served":
        from export.served import run_as_served

        run_as_served(Path(arguments[0]), Path(arguments[1]), arguments[2:])
    else:
        from server.repository import trial

        sys.exit(trial.main(arguments))
