"""Runs an attack on a server and measures it: memory, the event loop, and a small honest caller beside it."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pytest
from _pytest.mark.structures import ParameterSet
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.hostile.honest import Seen
from tests.hostile.memory import limited
from tests.processes import ROOT, TRANSPORTS, ServerProcess, environment, serving

IS_FULL = os.environ.get("REGARD_HOSTILE") == "full"
# In full one transport is attacked, in small each.
_TRANSPORT = os.environ.get("REGARD_HOSTILE_TRANSPORT", "grpcio" if IS_FULL else "")
ATTACKED = [_TRANSPORT] if _TRANSPORT else TRANSPORTS
LIMIT_BYTES = int(os.environ.get("REGARD_HOSTILE_LIMIT_MB", "0")) * 2**20 or None
MB = 1e6
RECORDED = "hostile"  # the property of a test's report that holds its row
TOKENS = {"attacker": "the-attackers-own-token", "honest": "the-honest-callers-token"}
_CLIENTS = "".join(
    f'[clients.{name}]\ntokens = ["{token}"]\nallow = ["infer", "attention", "manage"]\n'
    for name, token in TOKENS.items()
)
_BACK_SECONDS = 10.0 if IS_FULL else 30.0  # within which memory must be back
_BACK_MB = 32.0  # what may be left of it before the time is up, in full
_QUIET_SECONDS = 3.0 if IS_FULL else 0.4
_MAX_LEFT_MB = 128.0
_MAX_HOLD_MS, _MAX_WAIT_MS = 5e3, 10e3  # safety limits; the table says what was measured


@dataclass(frozen=True)
class Target:
    """A server that is attacked."""

    address: str
    token: str  # the attacker's

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What an authenticated call carries."""
        return (("authorization", f"Bearer {self.token}"),)


Attack = Callable[[Target], "Counter[str]"]


@dataclass(frozen=True)
class Record:
    """What an attack did.

    Attributes:
        attack: Its name.
        growth_mb: The most resident memory above that before it.
        left_mb: What of it was still there some seconds afterwards.
        health_ms: The longest that health took to answer.
        lag_ms: The longest that the event loop was held; the bucket of its heartbeat's histogram.
        quiet_ms: The honest caller's p50 and p99 before.
        beside_ms: And beside the attack.
        honest: How the honest caller's calls ended.
        codes: How the attacker's calls ended.
    """

    attack: str
    growth_mb: float
    left_mb: float
    health_ms: float
    lag_ms: float
    quiet_ms: tuple[float, float]
    beside_ms: tuple[float, float]
    honest: dict[str, int]
    codes: dict[str, int]

    def row(self) -> str:
        """Write a row of the table."""
        quiet, beside = (" / ".join(f"{value:.0f}" for value in pair) for pair in (self.quiet_ms, self.beside_ms))
        honest, codes = (
            ", ".join(f"{code} {count}" for code, count in sorted(of.items())) for of in (self.honest, self.codes)
        )
        cells = (
            self.attack,
            f"{self.growth_mb:.0f}",
            f"{self.left_mb:.0f}",
            f"{self.health_ms:.0f}",
            f"{self.lag_ms:g}",
            quiet,
            beside,
            honest,
            codes,
        )
        return f"| {' | '.join(cells)} |"


_COLUMNS = (
    "attack", "memory growth, MB", "left after, MB", "health waited at most, ms", "loop held at most, ms",
    "honest p50 / p99 quiet, ms", "beside the attack, ms", "honest caller's codes", "attacker's codes",
)  # fmt: skip
HEADER = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"


class Observing:
    """The honest caller's process."""

    def __init__(self, server: ServerProcess) -> None:
        """Begin."""
        arguments = (server.address, str(server.process.pid), TOKENS["honest"])
        command = [sys.executable, "-m", "tests.hostile.honest", *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def report(self) -> Seen:
        """Say what was seen since the last report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Seen(**json.loads(self._process.stdout.readline()))


class Hostile:
    """Measures attacks on one server."""

    def __init__(self, server: ServerProcess, observing: Observing) -> None:
        self._server, self._observing = server, observing
        self.is_spoilt = False  # by an attack that ended it or left much behind
        self.target = Target(server.address, TOKENS["attacker"])

    def measure(self, attack: Attack, back_mb: float) -> Record:
        """Run an attack; the server is still there afterwards, and answers the honest caller.

        Args:
            attack: What is done to the server.
            back_mb: Memory is back where no more than that is left.

        Raises:
            AssertionError: It is not.
        """
        pause = threading.Event()
        self._observing.report()
        pause.wait(_QUIET_SECONDS)
        quiet, self.is_spoilt = self._observing.report(), True
        lags = self._lags()
        codes = attack(self.target)
        beside = self._observing.report()
        lag_seconds = max((bound for bound, count in self._lags().items() if count > lags[bound]), default=0.0)
        left = self._settle(quiet.end_bytes, back_mb)
        assert self._server.process.poll() is None, f"the server ended with {self._server.process.poll()}"
        self.is_spoilt = left > _MAX_LEFT_MB * MB
        return Record(
            attack.__name__.replace("_", " "),
            (beside.peak_bytes - quiet.end_bytes) / MB,
            left / MB,
            beside.hold_ms,
            lag_seconds * 1e3,
            (quiet.p50_ms, quiet.p99_ms),
            (beside.p50_ms, beside.p99_ms),
            beside.codes,
            dict(codes),
        )

    def stop(self) -> int:
        """Let the server end; returns its exit code."""
        self.is_spoilt = True
        return self._server.stop()

    def metric(self, name: str) -> float:
        """Read a metric that has no labels."""
        (sample,) = self._family(name).samples
        return float(sample.value)

    def _family(self, name: str) -> Metric:
        with urllib.request.urlopen(f"http://{self._server.metrics_address}/metrics", timeout=60) as page:
            families = text_string_to_metric_families(page.read().decode())
            (family,) = (family for family in families if family.name == name)
        return family

    def _lags(self) -> dict[float, float]:
        """Count the heartbeats by how late they were, in seconds: that much, and more than the bucket below."""
        family = self._family("regard_event_loop_lag_seconds")
        buckets = {float(one.labels["le"]): one.value for one in family.samples if one.name.endswith("_bucket")}
        below = dict(zip(buckets, (0.0, *buckets.values()), strict=False))
        return {bound: count - below[bound] for bound, count in buckets.items()}

    def _settle(self, before: int, back_mb: float) -> int:
        """Wait until the honest caller is answered again and memory is back, or no longer; returns what is left."""
        ends, pause = time.monotonic() + _BACK_SECONDS, threading.Event()
        while True:
            pause.wait(0.1)
            seen = self._observing.report()
            left = seen.end_bytes - before
            if (seen.codes.get("OK") and left < back_mb * MB) or time.monotonic() > ends:
                return left


def check(record: Record, codes: Sequence[str], max_growth_mb: float, *, max_left_mb: float = _MAX_LEFT_MB) -> None:
    """Hold a record against what is promised; times have generous limits, for the machine may be shared.

    Raises:
        AssertionError: Says the record.
    """
    said = f"{HEADER}\n{record.row()}"
    assert set(record.codes) <= set(codes), said
    assert set(record.honest) <= {"OK"}, said
    assert record.growth_mb < max_growth_mb, said
    assert record.left_mb < max_left_mb, said
    assert record.health_ms < _MAX_HOLD_MS, said
    assert record.lag_ms <= _MAX_HOLD_MS, said  # a bucket's upper bound
    assert record.beside_ms[1] < _MAX_WAIT_MS, said


class Withstand(Protocol):
    """Runs an attack, keeps its row of the table, and holds it against what is promised; see check."""

    def __call__(
        self, attack: Attack, codes: Sequence[str], max_growth_mb: float, *, max_left_mb: float = _MAX_LEFT_MB
    ) -> None:
        """Raises AssertionError where the server does not withstand it."""


def withstanding(hostile: Hostile, record_property: Callable[[str, object], None]) -> Withstand:
    """Make one for a server."""

    def withstand(
        attack: Attack, codes: Sequence[str], max_growth_mb: float, *, max_left_mb: float = _MAX_LEFT_MB
    ) -> None:
        record = hostile.measure(attack, _BACK_MB if IS_FULL else max_left_mb)
        record_property(RECORDED, record.row())
        check(record, codes, max_growth_mb, max_left_mb=max_left_mb)

    return withstand


def cases(attacks: Sequence[Attack]) -> list[ParameterSet]:
    """Make a test's cases."""
    return [pytest.param(attack, id=attack.__name__) for attack in attacks]


@contextmanager
def attacked(transport: str, models: Path, clients: Path, *arguments: str) -> Iterator[Hostile]:
    """Start a server that knows an attacker and an honest caller, and somebody who watches it."""
    clients.write_text(_CLIENTS)
    given = ("--models", str(models), "--clients", str(clients), "--log-level", "error", "--transport", transport)
    with (
        limited(LIMIT_BYTES) as program,
        serving(*given, *arguments, program=program) as server,
        Observing(server) as observing,
    ):
        yield Hostile(server, observing)
