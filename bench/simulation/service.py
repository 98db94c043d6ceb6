"""Replicas under one load in simulated time: who gets a request, and how many replicas there are."""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from artifact.contract import Contract
from bench.simulation.autoscaler import Autoscaler
from bench.simulation.machine import Machine
from bench.simulation.replica import Clock, Replica

REQUESTS = 4000  # of a simulation
_WARM_UP_SHARE = 0.2  # of the requests, which are not counted

Choice = Callable[[Sequence[Replica], int, np.random.Generator], Replica]


def round_robin(replicas: Sequence[Replica], number: int, _random: np.random.Generator) -> Replica:
    """One after the other."""
    return replicas[number % len(replicas)]


def least_requests(replicas: Sequence[Replica], _number: int, random: np.random.Generator) -> Replica:
    """Of two at random the one with fewer requests, as Envoy's LEAST_REQUEST has it (Mitzenmacher 2001)."""
    one, other = (replicas[int(number)] for number in random.integers(len(replicas), size=2))
    return one if one.waiting <= other.waiting else other


class Figures(NamedTuple):
    """What callers saw."""

    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    rows: float  # of a batch
    all_threads: float  # share of the rows that ran on all threads
    refused: float  # share of the requests


class Moment(NamedTuple):
    """What the autoscaler saw."""

    at: float  # seconds from the start
    replicas: int  # that answer
    queue_seconds: float  # of work that waits before each, the mean


class Simulation:
    """Equal replicas, for one load.

    Attributes:
        moments: What the autoscaler saw, where there is one.
    """

    def __init__(
        self,
        machine: Machine,
        lengths: Sequence[int],
        contract: Contract,
        seed: int = 1,
        offered_seconds: float = math.inf,
        *,
        replicas: int = 1,
        choose: Choice = round_robin,
        autoscaler: Autoscaler | None = None,
    ) -> None:
        """Make a simulation that has not begun; each is for one load.

        Args:
            machine: What each replica runs on.
            lengths: Of requests, in turn.
            contract: The model's.
            seed: Of everything that is drawn.
            offered_seconds: See Admission.seconds.
            replicas: At the beginning.
            choose: Whose a request is.
            autoscaler: Adds replicas; None for as many as there are.
        """
        self._machine, self._contract, self._lengths = machine, contract, lengths
        self._random = np.random.default_rng(seed)
        self._offered_seconds, self._choose, self._autoscaler = offered_seconds, choose, autoscaler
        self._clock = Clock()
        self._replicas = [self._make_replica() for _ in range(replicas)]
        self._starting: list[float] = []  # when each answers
        self._looks_at = autoscaler.sync_seconds if autoscaler else math.inf
        self._coming: list[tuple[float, int]] = []
        self._asked: dict[int, float] = {}
        self._answered: list[tuple[int, float]] = []
        self._refused = 0
        self._asks_again = False
        self.moments: list[Moment] = []

    def closed_loop(self, callers: int, requests: int = REQUESTS) -> Figures:
        """Let callers ask again at once."""
        for _ in range(callers):
            self._ask()
        self._asks_again = True
        return self._go(requests, _WARM_UP_SHARE)

    def open_loop(self, rate: float, requests: int = REQUESTS) -> Figures:
        """Let requests come at so many a second, whatever happens."""
        times = np.cumsum(self._random.exponential(1 / rate, requests)).tolist()
        return self.open_loop_at(times, _WARM_UP_SHARE)

    def open_loop_at(self, times: Sequence[float], warm_up_share: float = 0.0) -> Figures:
        """Let requests come when they are due, in seconds and in order; the first share of them is not counted."""
        self._asked = dict(enumerate(times))
        self._coming = [(at, number) for number, at in enumerate(times)]
        return self._go(len(times), warm_up_share)

    @property
    def latencies(self) -> list[tuple[float, float]]:
        """When each request came that was answered, and how long its answer took, in seconds."""
        way = self._machine.way_seconds
        return [(self._asked[number], at - self._asked[number] + way) for number, at in self._answered]

    def _make_replica(self) -> Replica:
        return Replica(self._machine, self._contract, self._clock, self._random, self._answer, self._offered_seconds)

    def _ask(self) -> None:
        number = len(self._asked)
        self._asked[number] = self._clock.now
        heapq.heappush(self._coming, (self._clock.now, number))

    def _answer(self, number: int, is_answer: bool) -> None:
        if is_answer:
            self._answered.append((number, self._clock.now))
        else:
            self._refused += 1
        if self._asks_again:
            self._ask()

    def _go(self, requests: int, warm_up_share: float) -> Figures:
        with self._clock.told():
            while len(self._answered) + self._refused < requests:
                self._step()
        return self._sum_up(int(len(self._answered) * warm_up_share))

    def _step(self) -> None:
        """Let the time go on until something happens, and do that."""
        busiest = min(self._replicas, key=lambda replica: replica.next_at)
        comes_at = self._coming[0][0] if self._coming else math.inf
        self._clock.now = max(self._clock.now, min(busiest.next_at, comes_at, self._looks_at))
        if comes_at <= self._clock.now:
            _, number = heapq.heappop(self._coming)
            replica = self._choose(self._replicas, number, self._random)
            replica.send(number, self._lengths[number % len(self._lengths)])
        elif busiest.next_at <= self._clock.now:
            busiest.go_on()
        elif self._autoscaler:
            self._look(self._autoscaler)

    def _look(self, autoscaler: Autoscaler) -> None:
        """What the autoscaler does; replicas that are ready answer from its next look on."""
        now = self._clock.now
        queues = [replica.queue_seconds for replica in self._replicas]
        self.moments.append(Moment(now, len(queues), float(np.mean(queues))))
        wanted = autoscaler.wanted(now, queues, len(self._starting))
        more = wanted - len(queues) - len(self._starting)
        self._starting += [now + autoscaler.start_seconds] * more
        ready = [at for at in self._starting if at <= now]
        self._replicas += [self._make_replica() for _ in ready]
        self._starting = self._starting[len(ready) :]
        self._looks_at = now + autoscaler.sync_seconds

    def _sum_up(self, skipped: int) -> Figures:
        counted, way = self._answered[skipped:], self._machine.way_seconds
        seconds = [at - self._asked[number] + way for number, at in counted]
        p50, p95, p99 = (np.percentile(seconds, (50, 95, 99)) * 1e3).tolist()
        per_second = (len(counted) - 1) / (counted[-1][1] - counted[0][1])
        batches = list(itertools.chain.from_iterable(replica.batches for replica in self._replicas))
        rows = sum(rows for rows, _ in batches)
        together = sum(rows for rows, instances in batches if instances > 1)
        refused = self._refused / (self._refused + len(self._answered))
        return Figures(per_second, p50, p95, p99, rows / len(batches), together / rows, refused)
