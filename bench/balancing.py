"""What balancing by load reports gains, and what the end of a replica costs: `python -m bench.balancing`.

Two replicas behind Envoy as deploy/envoy/envoy.yaml has it; runs of one take three times as long (bench/slowed.py).
Latencies by weights, and each replica in its turn, interleaved: of callers who ask again as soon as they are answered,
and of calls that come at a rate whatever happens, nine tenths of the answers a second that those callers get in turn.
Then three alike, one of which is killed: calls that failed, the longest time without an answer, and how long until
there are 90 % of the answers again. Replicas, Envoy and callers share the CPUs; a replica computes on one.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.envoy import ROUND_ROBIN, Envoy, envoy_before
from bench.programs import run
from bench.senders import Outcome, sending
from bench.servers import Serving, serving_regard
from bench.workloads import make_inputs
from regard import encoding
from server.config import EMBEDDED_MODELS

_CALLERS, _ROWS = 16, 8
_FLAGS = ("--load-reports", "--threads", "1")
_PREDICT = "regard.v1.RegardService/Predict"
_POLICIES: dict[str, dict[str, Any]] = {"by weights": {}, "in turn": ROUND_ROBIN}
_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_LOAD = 0.9  # of what is answered in turn, as a rate
_SETTLE_SECONDS = 5.0  # reports count after one, and are means over two
_BACK, _WINDOW_SECONDS = 0.9, 0.5


def main() -> None:
    """Print both as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.balancing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        (inputs,) = make_inputs("1x28px", _ROWS)
        request = encoding.predict_request(inputs, "fashion", "", ("logits",), None, 0)
        body.write_bytes(request.SerializeToString())
        compare(body, args.rounds, args.seconds)
        for _ in range(args.rounds):
            lose_one(body.read_bytes(), args.seconds)


@contextmanager
def balanced(modules: Sequence[str], **cluster: Any) -> Iterator[tuple[Envoy, list[Serving]]]:
    """Start replicas by these modules, and Envoy before them."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(serving_regard(EMBEDDED_MODELS, *_FLAGS, program=[name])) for name in modules]
        envoy = stack.enter_context(envoy_before([replica.address for replica in replicas], **cluster))
        while envoy.healthy < len(replicas):
            time.sleep(0.05)
        yield envoy, replicas


def compare(body: Path, rounds: int, seconds: float) -> None:
    """Print a table of callers in a closed loop, and one of calls at a rate."""
    closed = _measure(body, rounds, seconds, {"callers": _CALLERS})
    rate = _LOAD * statistics.median(one["per_second"] for one in closed["in turn"])
    _tell(f"{_CALLERS} callers", closed)
    _tell(f"{rate:.0f} calls a second", _measure(body, rounds, seconds, {"rate": rate}))


def _measure(body: Path, rounds: int, seconds: float, how: dict[str, float]) -> dict[str, list[dict[str, float]]]:
    """Measure each policy in each round; see bench.load for what figures have."""
    figures: dict[str, list[dict[str, float]]] = {policy: [] for policy in _POLICIES}
    for _ in range(rounds):
        for policy, cluster in _POLICIES.items():
            with balanced(["server", "bench.slowed"], **cluster) as (envoy, _):
                figures[policy].append(_ask(envoy, body, seconds, how))
    return figures


def _ask(envoy: Envoy, body: Path, seconds: float, how: dict[str, float]) -> dict[str, float]:
    url = f"http://{envoy.address}/{_PREDICT}"
    run("bench.load", url, how | {"body": body, "seconds": _SETTLE_SECONDS})
    figure: dict[str, float] = json.loads(run("bench.load", url, how | {"body": body, "seconds": seconds}))
    return figure


def _tell(asked: str, figures: dict[str, list[dict[str, float]]]) -> None:
    """Print medians over the rounds, and of the ratio of 99th percentiles within a round."""
    print(f"| one of two slowed to a third, {asked} | calls a second | p50, ms | p95, ms | p99, ms | errors |")
    print("|---|---|---|---|---|---|")
    for policy, found in figures.items():
        medians = [statistics.median(one[name] for one in found) for name in ("per_second", *_PERCENTILES)]
        errors = sum(one["errors"] + one["refused"] for one in found)
        print(f"| {policy} | {' | '.join(f'{median:.1f}' for median in medians)} | {errors:.0f} |")
    ratios = [weighted["p99_ms"] / turns["p99_ms"] for weighted, turns in zip(*figures.values(), strict=True)]
    print(
        f"\np99 by weights against in turn: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})\n"
    )


def lose_one(body: bytes, seconds: float) -> None:
    """Kill one of three under load, and print what callers saw."""
    with balanced(["server"] * 3) as (envoy, replicas):
        killed, ends = asyncio.run(_kill(f"http://{envoy.address}/{_PREDICT}", body, replicas[0].pid, seconds))
    answered = [when for when, outcome in ends if outcome == "answered"]
    before = sum(killed - seconds <= when < killed for when in answered) / seconds
    gap = max(np.diff([killed, *(when for when in answered if when >= killed)]), default=float("inf"))
    back = seconds_until_back(answered, killed, before)
    failed = f"{len(ends) - len(answered)} of {len(ends)} calls failed"
    times = (
        f"longest without an answer {gap:.2f} s, {_BACK:.0%} of {before:.0f} answers a second again after {back:.1f} s"
    )
    print(f"one of three killed: {failed}, {times}")


async def _kill(url: str, body: bytes, pid: int, seconds: float) -> tuple[float, list[tuple[float, Outcome]]]:
    """Let callers ask; returns when the process was killed, and when and how calls ended."""
    ends = list[tuple[float, Outcome]]()
    async with sending(url) as send, asyncio.TaskGroup() as group:
        ended = asyncio.Event()

        async def call() -> None:
            while not ended.is_set():
                outcome = await send(body)
                ends.append((time.perf_counter(), outcome))

        for _ in range(_CALLERS):
            group.create_task(call())
        await asyncio.sleep(_SETTLE_SECONDS + seconds)
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(seconds)
        ended.set()
    return killed, ends


def seconds_until_back(answered: Sequence[float], killed: float, before: float) -> float:
    """When there is as much as 90 % of the answers again, over half a second.

    Args:
        answered: When each answer came, in seconds, ascending.
        killed: When the replica was.
        before: Answers a second, until then.

    Returns:
        Seconds from then to where that half second begins; infinity where there is none.
    """
    times = np.asarray(answered)
    begins = [killed, *(when for when in answered if killed < when <= times[-1] - _WINDOW_SECONDS)]
    enough = _BACK * before * _WINDOW_SECONDS
    counts = np.searchsorted(times, np.add(begins, _WINDOW_SECONDS)) - np.searchsorted(times, begins)
    return next((begin - killed for begin, count in zip(begins, counts, strict=True) if count >= enough), float("inf"))


if __name__ == "__main__":
    main()
