"""What Ray Serve costs: `python -m bench.on_ray`, where the extra `ray` is installed.

One replica that computes on one core, beside a server without Ray on the same core, 32 callers of 16 tokens; and two
replicas of one core each beside one process of two, 8 callers of images. Ray's own processes and the callers have the
cores that are left, which on two cores is one in the first and none in the second. Rounds are interleaved.
"""

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.generator import GRPC_HEADERS, Measured, Target, frame, generate
from bench.peers import PREDICT
from bench.programs import ROOT
from bench.servers import only, serving_regard
from bench.workloads import IMAGES, TEXT, Workload, make_requests
from tests.ray.cluster import Cluster, running_cluster

_MIN_ANSWER_BYTES = 20


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.on_ray", description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="made by make demo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement")
    args = parser.parse_args()
    for workload, replicas, callers in ((TEXT, 1, 32), (IMAGES, 2, 8)):
        with only(args.models, workload.model) as models:
            compare(workload, models, replicas, callers, args.rounds, args.seconds)


def compare(workload: Workload, models: Path, replicas: int, callers: int, rounds: int, seconds: float) -> None:
    """Print answers a second on Ray and without, and the median of the rounds' ratios."""
    bodies = [frame(request.SerializeToString()) for request in make_requests(workload.model, workload.size, "none")]
    found: dict[str, list[Measured]] = {"alone": [], "on Ray": []}
    with ExitStack() as stack:
        alone = stack.enter_context(serving_regard(models, "--threads", str(replicas)))
        bind(alone.pid, range(replicas))
        targets = {"alone": alone.target, "on Ray": stack.enter_context(_on_ray(models, replicas))}
        for turn in range(rounds):
            for name in sorted(targets, reverse=bool(turn % 2)):
                found[name].append(generate(targets[name], bodies, callers, seconds, _MIN_ANSWER_BYTES))
    rates = {name: [one.per_second for one in measured] for name, measured in found.items()}
    ratios = [ray / without for ray, without in zip(rates["on Ray"], rates["alone"], strict=True)]
    errors = sum(one.errors for measured in found.values() for one in measured)
    print(
        f"{workload.title}, {callers} callers, {replicas} replicas: "
        f"{statistics.median(rates['on Ray']):.0f} a second on Ray, {statistics.median(rates['alone']):.0f} alone; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {errors} errors",
        flush=True,
    )


@contextmanager
def _on_ray(models: Path, replicas: int) -> Iterator[Target]:
    with running_cluster(replicas) as cluster:
        cluster.deploy(arguments={"models": str(models)}, num_replicas=replicas)
        cluster.until(replicas=replicas)
        for core, pid in enumerate(_replicas_of(cluster)):
            bind(pid, [core])
        yield Target(f"http://{cluster.address}{PREDICT}", GRPC_HEADERS, is_grpc=True)


def bind(pid: int, cores: Sequence[int]) -> None:
    """Let a process that has started run on some of the cores that we have, by their place."""
    ours = sorted(os.sched_getaffinity(0))
    for task in Path("/proc", str(pid), "task").iterdir():
        os.sched_setaffinity(int(task.name), {ours[core] for core in cores})


def _replicas_of(cluster: Cluster) -> list[int]:
    """Processes that Ray has named as replicas, of the cluster alone."""
    return [pid for pid in cluster.processes() if b"ServeReplica" in Path("/proc", str(pid), "cmdline").read_bytes()]


if __name__ == "__main__":
    main()
