"""Runs one check and writes its rows, each as soon as it is there: a crash loses none. A program of its own."""

import argparse
import importlib
import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.gpu.rows import ITS_END, Row, failed
from bench.gpu.setting import Setting
from server.errors import first_line

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
        for row in rows_of(getattr(importlib.import_module(module), name), setting):
            file.write(json.dumps(row.as_json()) + "\n")


def rows_of(check: CheckFunction, setting: Setting) -> Iterator[Row]:
    """Yield a check's rows; what it raises is a row, too."""
    try:
        yield from check(setting)
    except Exception as error:  # whatever it is, the others go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}, line {where.lineno}"
        yield failed(ITS_END, f"{type(error).__name__}: {first_line(error)} ({place})")


if __name__ == "__main__":
    main()
