"""Callers in Python: in a closed loop, or as requests that come at a rate whatever happens. A program of its own.

They ask regard, or with --body any other server. In the open loop a latency counts from when its request was due, not
from when these callers came to send it: else a stall would hide how long requests waited for it ("coordinated
omission"). What they cost, a few tenths of a millisecond of a CPU a request, is taken from the server where both share
the cores; the report says how much it was, and how late requests were sent.
"""

import argparse
import asyncio
import gc
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.peers import PREDICT
from bench.senders import Outcome, Send, sending
from bench.workloads import TEXT, make_requests

SEED = 1
Request = tuple[bytes, bool]  # what is sent, and whether it asks for attention
Clock = Callable[[], float]


class Tally:
    """What came of requests: latencies in milliseconds of plain answers, those with attention, refusals; errors.

    Attributes:
        late: Milliseconds between when a request was due and when it was sent.
    """

    def __init__(self, now: Clock = time.perf_counter) -> None:
        self.plain: list[float] = []
        self.attentive: list[float] = []
        self.refused: list[float] = []
        self.late: list[float] = []
        self.errors = 0
        self._now = now

    async def ask(self, send: Send, request: Request, due: float) -> None:
        """Send one request and note what becomes of it, from when it was due."""
        body, attentive = request
        self.late.append((self._now() - due) * 1e3)
        outcome = await send(body)
        latency_ms = (self._now() - due) * 1e3
        if outcome == "failed":
            self.errors += 1
        elif outcome == "refused":
            self.refused.append(latency_ms)
        else:
            (self.attentive if attentive else self.plain).append(latency_ms)

    def report(self, seconds: float) -> dict[str, Any]:
        """Sum up what happened in so many seconds."""
        report: dict[str, Any] = {"per_second": (len(self.plain) + len(self.attentive)) / seconds}
        report |= {"errors": self.errors, "refused": len(self.refused)}
        groups = (("", self.plain), ("refused_", self.refused), ("attentive_", self.attentive), ("late_", self.late))
        for name, values in groups:
            for share in (50, 95, 99):
                report[f"{name}p{share}_ms"] = float(np.percentile(values, share)) if values else None
        return report


async def main() -> None:
    """Print throughput, latencies, refusals and errors as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="regard's addresses, with commas between, asked in turn; or with --body a URL")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--callers", type=int, default=0, help="in a closed loop")
    parser.add_argument("--rate", type=float, default=0, help="requests a second, Poisson")
    parser.add_argument("--attention", type=float, default=0, help="share of requests that ask for all of it")
    parser.add_argument("--size", default=TEXT.size, help="as bench.workloads takes it")
    parser.add_argument("--body", type=Path, help="a file to send instead of requests to regard")
    parser.add_argument("--content-type", default="", help="of --body, to be sent over HTTP/1.1; none: over gRPC")
    args = parser.parse_args()
    urls = [args.target] if args.body else [f"http://{address}{PREDICT}" for address in args.target.split(",")]
    requests = itertools.repeat((args.body.read_bytes(), False)) if args.body else pick(args.size, args.attention)
    tally = Tally()
    async with AsyncExitStack() as stack:
        sends = [await stack.enter_async_context(sending(url, args.content_type)) for url in urls]
        for send in sends:
            await send(next(requests)[0])
        send = in_turn(sends)
        gc.freeze()  # the collector's pauses would count as the server's
        gc.set_threshold(10_000)
        started, used = time.perf_counter(), time.process_time()
        if args.callers:
            await ask_in_turn(send, requests, tally, args.callers, started + args.seconds)
        else:
            await ask_at_a_rate(send, requests, tally, arrivals(args.rate, args.seconds))
        seconds = time.perf_counter() - started
        print(json.dumps(tally.report(seconds) | {"generator_cpus": (time.process_time() - used) / seconds}))


def in_turn(sends: Sequence[Send]) -> Send:
    """Send to one after the other."""
    turn = itertools.cycle(sends)

    async def send(body: bytes) -> Outcome:
        return await next(turn)(body)

    return send if len(sends) > 1 else sends[0]


def pick(size: str, attention_share: float) -> Iterator[Request]:
    """Yield requests to regard without end, some of them asking for all attention."""
    random = np.random.default_rng(SEED)
    plain, attentive = (
        itertools.cycle([(one.SerializeToString(), asked == "all") for one in make_requests(TEXT.model, size, asked)])
        for asked in ("none", "all")
    )
    return (next(attentive if random.random() < attention_share else plain) for _ in itertools.count())


def arrivals(rate: float, seconds: float, seed: int = SEED) -> Iterator[float]:
    """Yield when requests are due, in seconds from the start: a Poisson process, the same for the same seed."""
    random, due = np.random.default_rng(seed), 0.0
    while (due := due + random.exponential(1 / rate)) < seconds:
        yield due


async def ask_in_turn(send: Send, requests: Iterator[Request], tally: Tally, callers: int, ends: float) -> None:
    """Let so many callers ask again as soon as they are answered."""

    async def call() -> None:
        while (now := time.perf_counter()) < ends:
            await tally.ask(send, next(requests), now)

    await asyncio.gather(*(call() for _ in range(callers)))


async def ask_at_a_rate(
    send: Send,
    requests: Iterator[Request],
    tally: Tally,
    due_seconds: Iterable[float],
    now: Clock = time.perf_counter,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Ask whenever a request is due, answered or not; what is overdue at once."""
    started = now()
    async with asyncio.TaskGroup() as group:
        for seconds in due_seconds:
            due = started + seconds
            if (pause := due - now()) > 0:
                await sleep(pause)
            group.create_task(tally.ask(send, next(requests), due))


if __name__ == "__main__":
    uvloop.run(main())
