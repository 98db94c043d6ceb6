"""The limit: ONNX Runtime alone in a loop, no server. A program of its own."""

import argparse
import itertools
import json
import statistics
import threading
import time
from pathlib import Path

import onnxruntime

from bench.workloads import make_inputs


def main() -> None:
    """Print as JSON rows a second of session.run on random inputs, in one thread or several, and a run's median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", required=True, help="as bench.workloads takes it")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True, help="of one run")
    parser.add_argument("--instances", type=int, required=True, help="runs at a time")
    parser.add_argument("--spin", choices=("0", "1"), required=True, help="whether idle threads spin")
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", args.spin)
    session = onnxruntime.InferenceSession(args.graph, options, providers=["CPUExecutionProvider"])
    feeds = make_inputs(args.size, args.batch)
    took_ms: list[list[float]] = [[] for _ in range(args.instances)]
    session.run(["embedding"], feeds[0])
    started = time.perf_counter()

    def loop(instance: int) -> None:
        for feed in itertools.cycle(feeds[instance:] + feeds[:instance]):
            began = time.perf_counter()
            session.run(["embedding"], feed)
            ended = time.perf_counter()
            took_ms[instance].append((ended - began) * 1e3)
            if ended - started >= args.seconds:
                return

    threads = [threading.Thread(target=loop, args=(instance,)) for instance in range(args.instances)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    per_second = sum(map(len, took_ms)) * args.batch / (time.perf_counter() - started)
    print(json.dumps({"per_second": per_second, "run_p50_ms": statistics.median(itertools.chain(*took_ms))}))


if __name__ == "__main__":
    main()
