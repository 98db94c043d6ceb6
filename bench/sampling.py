"""What sampled attention costs callers: `python -m bench.sampling` asks servers that sample, and one that does not.

Plain requests come at half of what a server answers at most, as a Poisson process, whatever happens: the same to each
server, by turns, in short rounds of one run. What counts are the ratios of latencies within a round. A second server
that does not sample is the control: what its ratios differ from 1 by is the machine's doing. A request that fails ends
the run.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.__main__ import newest_graph
from bench.cancelling import read
from bench.load import Request, Tally, arrivals, ask_at_a_rate, ask_in_turn
from bench.relevance.plain import in_turn
from bench.relevance.ratios import Compared, compare, table
from bench.senders import Send, sending
from bench.servers import Serving, serving_regard
from bench.workloads import make_requests

OFF = "off"
SHARES = {OFF: 0.0, "off, another": 0.0, "0.01": 0.01, "0.1": 0.1}
SIZES = {"minilm": "64", "fashion": "1x28px"}  # as bench.workloads takes them
_LOAD, _CALLERS = 0.5, 32  # of the peak, which so many callers find
_PERCENTILES = ("p50", "p99")


class SamplingError(Exception):
    """A request failed."""


@dataclass
class Found:
    """What was measured.

    Attributes:
        rate: Requests a second.
        latencies: For each start, of each percentile and kind of server: milliseconds, round by round.
        samples: Inputs that each kind sampled, in rounds that count and those that warm up.
        late: 99th percentile of how late requests were sent, in milliseconds, of each round.
    """

    rate: float = 0.0
    latencies: list[dict[tuple[str, str], list[float]]] = field(default_factory=list)
    samples: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SHARES, 0.0))
    late: list[float] = field(default_factory=list)

    def compared(self, model: str) -> list[Compared]:
        """Return each kind beside the server that does not sample."""
        return [
            compare(
                model,
                f"{percentile}, sample_attention {kind}",
                [(start[percentile, kind], start[percentile, OFF]) for start in self.latencies],
                "ms",
            )
            for percentile in _PERCENTILES
            for kind in SHARES
            if kind != OFF
        ]


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.sampling", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where make demo exported them to")
    parser.add_argument("--model", choices=SIZES, default="minilm", help="minilm by default")
    parser.add_argument("--starts", type=int, default=3, help="of the servers; 3 by default")
    parser.add_argument("--rounds", type=int, default=4, help="of each start; 4 by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each server's turn in a round; 3 by default")
    args = parser.parse_args()
    for name in ("starts", "rounds", "seconds"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name}: {getattr(args, name)}; expected above 0")
    if (graph := newest_graph(args.models, args.model)) is None:
        parser.exit(1, f"{args.models}/{args.model} is not there: make demo exports it\n")
    try:
        found = measure(graph.parent, args.starts, args.rounds, args.seconds)
        figures = table(found.compared(args.model))
    except (SamplingError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    late = max(found.late)
    print(f"{found.rate:.0f} requests/s; in the worst round 1 % were sent more than {late:.1f} ms late", flush=True)
    print(", ".join(f"{kind}: {count:.0f} inputs sampled" for kind, count in found.samples.items()))
    print("\n".join(["", *figures]), flush=True)


def measure(artifact: Path, starts: int, rounds: int, seconds: float) -> Found:
    """Start the servers several times, each time in another order, and ask them in turn.

    Raises:
        SamplingError: A request failed.
    """
    found, model = Found(), artifact.parent.name
    bodies = [one.SerializeToString() for one in make_requests(model, SIZES[model], "none")]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {kind: publish(artifact, Path(scratch) / kind, share) for kind, share in SHARES.items()}
        for start in range(starts):
            with ExitStack() as stack:
                kinds = in_turn(start, tuple(SHARES))
                servers = {kind: stack.enter_context(serving_regard(folders[kind])) for kind in kinds}
                uvloop.run(_ask_all(servers, bodies, found, start, rounds, seconds))
                for kind, server in servers.items():
                    found.samples[kind] += read(server.metrics, "regard_attention_samples_total", model=model)
    return found


def publish(artifact: Path, folder: Path, share: float) -> Path:
    """Make a models folder of one version, of whose inputs so many are sampled."""
    model = folder / artifact.parent.name
    model.mkdir(parents=True)
    (model / artifact.name).symlink_to(artifact.resolve())
    (model / "config.toml").write_text(f"sample_attention = {share}\n")
    return folder


async def _ask_all(
    servers: Mapping[str, Serving], bodies: Sequence[bytes], found: Found, start: int, rounds: int, seconds: float
) -> None:
    requests = itertools.cycle([(body, False) for body in bodies])
    figures: dict[tuple[str, str], list[float]] = {(name, kind): [] for name in _PERCENTILES for kind in SHARES}
    async with AsyncExitStack() as stack:
        sends = {kind: await stack.enter_async_context(sending(one.target.url)) for kind, one in servers.items()}
        if not found.rate:
            found.rate = _LOAD * await _peak(sends[OFF], requests, seconds)
        for number in range(-1, rounds):
            for kind in in_turn(start + number, tuple(SHARES)):
                tally, dues = Tally(), arrivals(found.rate, seconds, seed=rounds * start + number + 1)
                await ask_at_a_rate(sends[kind], requests, tally, dues)
                report = checked(tally, seconds, f"sample_attention {kind}")
                if number >= 0:  # the first round warms up
                    found.late.append(report["late_p99_ms"])
                    for name in _PERCENTILES:
                        figures[name, kind].append(report[f"{name}_ms"])
    found.latencies.append(figures)


async def _peak(send: Send, requests: "itertools.cycle[Request]", seconds: float) -> float:
    """Requests a second of callers that ask again when they are answered, after as long that does not count."""
    for _ in range(2):
        tally = Tally()
        await ask_in_turn(send, requests, tally, _CALLERS, time.perf_counter() + seconds)
    return checked(tally, seconds, "peak")["per_second"]


def checked(tally: Tally, seconds: float, what: str) -> dict[str, float]:
    """Sum up requests of which none failed: a refusal is quicker than an answer.

    Raises:
        SamplingError: One did, or none was sent.
    """
    failed, all_sent = tally.errors + len(tally.refused), len(tally.late)
    if failed or not all_sent:
        raise SamplingError(f"{what}: {failed} of {all_sent} requests failed; expected none, of one or more")
    return tally.report(seconds)


if __name__ == "__main__":
    main()
