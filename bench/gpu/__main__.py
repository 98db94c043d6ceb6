"""Checks on a GPU what regard does there: `python -m bench.gpu`; what must be right, then what it costs.

Ends within the time that it is given, whatever happens, with code 1 where a check failed. `--device cpu` puts the CPU
in the device's place: all of the code but the device itself.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.page import line, make_page, on_gpu, summary
from bench.gpu.plan import CHECKS
from bench.gpu.rows import Row
from bench.gpu.running import Check, run_checks
from bench.gpu.samples import DEFAULT_MODELS, make_models
from server.errors import StartError

_DOCS, _OTHERWISE = Path("docs/gpu.md"), Path("build/gpu.md")
_DEVICE = re.compile(r"auto|(cpu|cuda|tensorrt)(:[0-9]{1,4})?")


def main(arguments: Sequence[str] | None = None, checks: Sequence[Check] = CHECKS) -> int:
    """Run the checks, write page and JSON; returns the exit code."""
    args = read_arguments(arguments, checks)
    began, rows = time.monotonic(), list[Row]()
    with tempfile.TemporaryDirectory() as name:
        try:
            models, told = make_models(args.models, Path(name), random=args.random_models, seconds=args.seconds / 6)
        except StartError as error:
            sys.exit(str(error))
        print(f"models: {told}", flush=True)
        chosen = [check for check in checks if not args.only or check.name in args.only]
        for row in run_checks(chosen, args.device, models, args.seconds - (time.monotonic() - began)):
            rows.append(row)
            print(line(row), flush=True)
            write(args.json, json.dumps({"device": args.device, "rows": [one.as_json() for one in rows]}, indent=1))
    page = page_of(args, rows)
    before = page.read_text() if page.exists() else ""
    write(page, make_page(rows, args.device, time.monotonic() - began, before))
    print(f"{summary(rows)}; written to {page} and {args.json}")
    return int(any(row.status == "failed" for row in rows))


def read_arguments(arguments: Sequence[str] | None, checks: Sequence[Check]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--device", type=device, default="cuda", help="as the server takes it; cpu for the stand-in")
    parser.add_argument("--models", type=Path, default=DEFAULT_MODELS, help="folder of artifacts; embedded without")
    parser.add_argument("--random-models", action="store_true", help="beside them random weights of standard sizes")
    parser.add_argument("--seconds", type=float, default=480, help="within which it ends")
    parser.add_argument(
        "--only", action="append", choices=[check.name for check in checks], help="one check; repeatable"
    )
    parser.add_argument("--json", type=Path, default=Path("build/gpu.json"))
    parser.add_argument("--page", type=Path, default=_DOCS, help=f"without a GPU and with --only {_OTHERWISE} for it")
    return parser.parse_args(arguments)


def device(value: str) -> str:
    """Read --device.

    Raises:
        ArgumentTypeError: It is none, or several, which are not checked.
    """
    if "," in value or value.endswith(":all"):
        raise argparse.ArgumentTypeError(f"{value}: several devices are not checked; expected one, such as cuda:0")
    if not _DEVICE.fullmatch(value):
        raise argparse.ArgumentTypeError(f"{value!r}; expected auto, cpu, cuda or tensorrt, also with :N")
    return value


def page_of(args: argparse.Namespace, rows: Sequence[Row]) -> Path:
    """Which page is written: that of the documentation is of all checks on a GPU alone."""
    if args.page.resolve() == _DOCS.resolve() and (args.only or not on_gpu(rows)):
        return _OTHERWISE
    return Path(args.page)


def write(path: Path, text: str) -> None:
    """Write a file, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
