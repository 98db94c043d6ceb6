"""Runs the tests of a package against every mutant of it, each in a process of its own; see CONTRIBUTING.

python -m tests.mutants [PACKAGE ...]: prints what survived, and fails where that is more than 5 %.
"""

import difflib
import os
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from tests.mutants.operators import mutants

# Imported once here instead of once for every mutant; none of them starts threads when it is imported.
_HEAVY = ("hypothesis", "numpy", "grpc.aio", "onnxruntime", "pydantic_settings", "PIL.Image", "tokenizers",
          "prometheus_client", "google.rpc.status_pb2")  # fmt: skip
_MAX_SECONDS = 60  # a mutant that hangs is found out
_MAX_SURVIVORS = 0.05
_JOBS = 2


@dataclass(frozen=True)
class _Mutant:
    module: str
    file: Path
    operator: str
    source: str

    @property
    def change(self) -> str:
        """The lines that differ."""
        before, after = self.file.read_text().splitlines(), self.source.splitlines()
        lines = list(difflib.unified_diff(before, after, str(self.file), n=0, lineterm=""))[2:]
        return "\n    ".join([f"{self.file} {self.operator}", *lines])


class _Finder(MetaPathFinder, Loader):
    """Imports the mutant in place of the module."""

    def __init__(self, mutant: _Mutant) -> None:
        self._mutant = mutant
        self._code: CodeType = compile(mutant.source, str(mutant.file.resolve()), "exec")

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        return spec_from_loader(fullname, self) if fullname == self._mutant.module else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)  # noqa: S102 -- that is the point


def _find(folder: str) -> Iterator[_Mutant]:
    for file in sorted(Path(folder).glob("*.py")):
        if not file.stem.endswith(("_pb2", "_pb2_grpc")):
            module = ".".join(file.with_suffix("").parts)
            for operator, source in mutants(file.read_text()):
                yield _Mutant(module, file, operator, source)


def _run(tests: Sequence[str], mutant: _Mutant | None) -> str:
    """Say what became of a mutant: killed, timed out or survived."""
    child = os.fork()
    if not child:
        _test(tests, mutant)
    ends = time.monotonic() + _MAX_SECONDS
    while time.monotonic() < ends:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return "killed" if status else "survived"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def _test(tests: Sequence[str], mutant: _Mutant | None) -> None:
    """Run the tests in this process, and end it."""
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        if mutant:
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            sys.meta_path.insert(0, _Finder(mutant))
        there = [test for test in tests if Path(test).exists()]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = int(pytest.main([*options, *there]))
    finally:
        os._exit(code)


def _measure(name: str, modules: str, tests: Sequence[str]) -> bool:
    """Run a package; returns whether few enough survive."""
    if _run(tests, None) != "survived":
        sys.exit(f"{name}: the tests fail without any change")
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(_JOBS) as pool:
        found = list(_find(modules))
        for mutant, outcome in zip(found, pool.map(lambda one: _run(tests, one), found), strict=True):
            counts[outcome] += 1
            if outcome != "killed":
                print(f"{outcome}: {mutant.change}", flush=True)
    share = counts["survived"] / max(counts.total(), 1)
    print(f"{name}: {counts.total()} mutants, {dict(counts)}, {share:.1%} survived", flush=True)
    return share <= _MAX_SURVIVORS


def main() -> None:
    """Run the packages named, or all."""
    for name in _HEAVY:
        __import__(name)
    targets = tomllib.loads((Path(__file__).parent / "targets.toml").read_text())
    wanted = sys.argv[1:] or list(targets)
    good = [_measure(name, **targets[name]) for name in wanted]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
