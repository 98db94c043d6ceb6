"""The limit: ONNX Runtime alone in a loop, no server; run by bench in a process of its own."""

import argparse
import time
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> None:
    """Print rows a second of session.run on random tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--spin", choices=("0", "1"), required=True, help="whether idle threads spin")
    args = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", args.spin)
    session = onnxruntime.InferenceSession(args.graph, options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(1000, 20000, (args.batch, args.tokens))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    session.run(["embedding"], feed)
    started, rows = time.perf_counter(), 0
    while time.perf_counter() - started < args.seconds:
        session.run(["embedding"], feed)
        rows += args.batch
    print(rows / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
