"""What a server survives, with figures: `python -m bench.faults connections`, `python -m bench.faults overload`.

Faults of the network need root and a network of their own: bench/network.py.
"""

import argparse
import json
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

from bench.programs import run
from bench.servers import Serving, only, serving_regard
from server.address import split_address

_MODEL = "minilm"
_PEAK_CALLERS, _PEAK_SECONDS = 64, 10.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def main() -> None:
    """Run one of them and print what happened."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("fault", choices=("connections", "overload"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--count", type=int, default=10_000, help="connections")
    parser.add_argument("--minutes", type=float, default=10.0, help="of overload")
    parser.add_argument("--times", type=float, default=3.0, help="the capacity")
    args = parser.parse_args()
    with only(args.models, _MODEL) as folder, serving_regard(folder, "--max-queue-seconds", "0.5") as serving:
        if args.fault == "connections":
            open_and_drop(serving, args.count)
        else:
            overload(serving, args.times, args.minutes * 60)


def open_and_drop(serving: Serving, count: int) -> None:
    """Open connections and drop them, every other one with a greeting; then ask."""
    place = split_address(serving.address)
    run("bench.load", serving.address, {"callers": 8, "seconds": 2})
    memory_mb, descriptors = serving.memory_mb[0], open_descriptors(serving)
    began = time.perf_counter()
    for number in range(count):
        with socket.create_connection(place) as one:
            if number % 2:
                one.sendall(_PREFACE)
    seconds = time.perf_counter() - began
    after = json.loads(run("bench.load", serving.address, {"callers": 8, "seconds": 2}))
    print(f"{count} connections opened and dropped in {seconds:.1f} s")
    print(f"memory (proportional set): {memory_mb:.0f} MB before, {serving.memory_mb[0]:.0f} MB after")
    print(f"descriptors: {descriptors} before, {open_descriptors(serving)} after; errors afterwards: {after['errors']}")


def overload(serving: Serving, times: float, seconds: float) -> None:
    """Offer several times what the server can do."""
    peak = json.loads(run("bench.load", serving.address, {"callers": _PEAK_CALLERS, "seconds": _PEAK_SECONDS}))
    capacity, memory_mb = peak["per_second"], serving.memory_mb[0]
    figure = json.loads(run("bench.load", serving.address, {"rate": times * capacity, "seconds": seconds}))
    answered, refused = figure["per_second"], figure["refused"] / seconds
    print(f"capacity, {_PEAK_CALLERS} callers in a closed loop: {capacity:.0f} requests a second")
    print(f"offered for {seconds / 60:g} min: {(answered + refused) / capacity:.1f} times that")
    print(f"answered: {answered / capacity:.2f} of the capacity, {_percentiles(figure, '')}")
    print(f"refused: {figure['refused']}, {_percentiles(figure, 'refused_')}; other errors: {figure['errors']}")
    print(f"memory (proportional set): {memory_mb:.0f} MB before, {serving.memory_mb[0]:.0f} MB after")
    after = json.loads(run("bench.load", serving.address, {"callers": _PEAK_CALLERS, "seconds": _PEAK_SECONDS}))
    print(f"afterwards: {after['per_second'] / capacity:.2f} of the capacity, {after['errors']} errors")


def _percentiles(figure: dict[str, Any], which: str) -> str:
    return ", ".join(f"p{share} {figure[f'{which}p{share}_ms'] or 0:.0f} ms" for share in (50, 99))


def open_descriptors(serving: Serving) -> int:
    """Files and sockets that the server has open, by its own metrics."""
    with urllib.request.urlopen(serving.metrics, timeout=10) as page:  # noqa: S310 -- http, and our own
        text = page.read().decode()
    return int(float(next(line for line in text.splitlines() if line.startswith("process_open_fds")).split()[-1]))


if __name__ == "__main__":
    main()
