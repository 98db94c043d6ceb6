"""Runs one check and writes its rows, each as soon as it is there: a crash loses none. A program of its own."""

import argparse
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.gpu.rows import ITS_END, Row, guarded
from bench.gpu.setting import Setting

CheckFunction = Callable[[Setting], Iterator[Row]]


def main() -> None:
    """Run the check that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function", help="MODULE:NAME")
    parser.add_argument("device")
    parser.add_argument("models", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("rows", type=Path, help="file that is written, a row a line, as JSON")
    args = parser.parse_args()
    module, _, name = args.function.partition(":")
    setting = Setting(args.device, args.models, args.seconds)
    with args.rows.open("a", buffering=1) as file:
        check: CheckFunction = getattr(importlib.import_module(module), name)
        for row in guarded(ITS_END, check(setting)):
            file.write(json.dumps(row.as_json()) + "\n")


if __name__ == "__main__":
    main()
