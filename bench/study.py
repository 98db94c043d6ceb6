"""A study over many images: `python -m bench.study` tells what memory it takes as it grows, and its bytes on the wire.

`regard study` runs in a process of its own, through a relay that counts what passes, so with HTTP/2's frames; resident
sizes of that process and of the server's are read each time it has sent another 250 images. The first fifth warms up.
Then the maps of a few images are fetched whole through the same relay.
"""

import argparse
import io
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from bench.programs import ROOT, environment
from bench.servers import Serving, only, serving_regard
from regard import Client

_STEP, _EDGE, _WHOLE, _BLOCK_BYTES = 250, 224, 3, 2**16


@dataclass
class Relay:
    """Passes connections on, and counts.

    Attributes:
        address: Where it listens.
        to: Where it passes them to.
        sent_bytes: By clients.
        received_bytes: By clients.
    """

    address: str
    to: tuple[str, int]
    sent_bytes: int = 0
    received_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def carry(self, client: socket.socket) -> None:
        """Pass one connection on, until either side ends it."""
        server = socket.create_connection(self.to)
        for name, source, goal in (("sent_bytes", client, server), ("received_bytes", server, client)):
            threading.Thread(target=self._copy, args=(name, source, goal), daemon=True).start()

    def _copy(self, name: str, source: socket.socket, goal: socket.socket) -> None:
        try:
            while block := source.recv(_BLOCK_BYTES):
                goal.sendall(block)
                with self._lock:
                    setattr(self, name, getattr(self, name) + len(block))
            goal.shutdown(socket.SHUT_WR)
        except OSError:  # the other side has ended it
            pass


@contextmanager
def relaying(address: str) -> Iterator[Relay]:
    """Pass connections on to an address, for the length of a with block."""
    host, _, port = address.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay = Relay(f"127.0.0.1:{listening.getsockname()[1]}", (host, int(port)))

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:  # closed
                    return
                relay.carry(client)

        threading.Thread(target=accept, daemon=True).start()
        yield relay


def make_images(count: int) -> Iterator[bytes]:
    """Crops of the examples' photographs, each another, made when it is wanted."""
    photos = [Image.open(path).convert("RGB") for path in sorted((ROOT / "examples" / "photos").glob("*.jpg"))]
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = (7 * number) % (photo.width - _EDGE), (3 * number) % (photo.height - _EDGE)
        held = io.BytesIO()
        photo.crop((left, top, left + _EDGE, top + _EDGE)).save(held, "JPEG", quality=85)
        yield held.getvalue()


def resident_mb(pid: int) -> float:
    """Resident set size of one process, in megabytes."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3


def main() -> None:
    """Run a study and print what it took, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.study", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="vit-s14")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--child", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        study(args.child, args.folder, args.model, args.images)
        return
    if not (args.models / args.model).is_dir():
        parser.exit(1, f"{args.models}/{args.model} is not there: make demo exports it\n")
    with only(args.models, args.model) as models, serving_regard(models) as serving:
        print("\n".join(measure(serving, args.model, args.images)), flush=True)


def study(address: str, folder: Path, model: str, images: int) -> None:
    """What is measured; says how many images it has read."""

    def told() -> Iterator[bytes]:
        for number, image in enumerate(make_images(images), start=1):
            if number % _STEP == 0:
                print(number, flush=True)
            yield image

    with Client(address, timeout=600) as client:
        client.study(folder, images=told(), model=model)


def measure(serving: Serving, model: str, images: int) -> list[str]:
    """Return the lines of the tables."""
    with tempfile.TemporaryDirectory() as folder, relaying(serving.address) as relay:
        sizes = list(_sizes(serving, relay, Path(folder) / "study", model, images))
        study_bytes = relay.received_bytes / images
        kept_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / images
        before = relay.received_bytes
        with Client(relay.address, timeout=600, max_message_bytes=-1) as client:
            for image in make_images(_WHOLE):
                for _ in client.attend(image=image, model=model):
                    pass
        map_bytes = (relay.received_bytes - before) / _WHOLE
    warm = [size for number, *size in sizes if number > images / 5] or [size for _, *size in sizes]
    lines = [f"| {model}, {images:,} images | client, MB | server, MB |", "|---|---|---|"]
    fifth = max(len(warm) // 4, 1)
    first, last = warm[:fifth], warm[-fifth:]
    for title, part in (("second fifth", first), ("last fifth", last)):
        lines.append(f"| {title}, median | {_median(part, 0):.1f} | {_median(part, 1):.1f} |")
    growth = [_median(last, at) / _median(first, at) - 1 for at in (0, 1)]
    lines += [f"| growth | {growth[0]:+.1%} | {growth[1]:+.1%} |", "", "| bytes an image | |", "|---|---|"]
    lines += [f"| received by the study | {study_bytes:,.0f} |", f"| of whole maps | {map_bytes:,.0f} |"]
    lines += [f"| share | 1/{map_bytes / study_bytes:,.0f} |", f"| kept in the folder | {kept_bytes:,.0f} |"]
    return lines


def _sizes(serving: Serving, relay: Relay, folder: Path, model: str, images: int) -> Iterator[tuple[int, float, float]]:
    """Run the study; yield images read, and resident sizes of its process and the server's."""
    command = [sys.executable, "-m", "bench.study", "--child", relay.address, "--folder", str(folder)]
    command += ["--model", model, "--images", str(images)]
    with subprocess.Popen(  # noqa: S603 -- our own
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(ROOT)
    ) as process:
        for line in process.stdout or ():
            yield int(line), resident_mb(process.pid), serving.memory_mb[1]
    if process.returncode:
        raise SystemExit(f"the study ended with {process.returncode}")


def _median(sizes: list[list[float]], at: int) -> float:
    return statistics.median(size[at] for size in sizes)


if __name__ == "__main__":
    main()
