"""Runs an artifact's graphs as the server will, in a process of its own: with its session options and packed weights.

A graph that ends the process when its packed weights are read must not end the export, so `AsServed` starts
`python -m export.served FOLDER` and compares what that wrote. The process takes no torch and starts in a second.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime

from artifact.contract import CONTRIBUTIONS_GRAPH, HIDDEN_GRAPH, LOWERED_GRAPH, PLAIN_GRAPH, TAPPED_GRAPH, Contract
from artifact.dtypes import Array
from artifact.towers import TowersContract
from export.errors import VerificationError
from export.session import run_session
from server.engine.prepacked_weights import packed
from server.engine.session import make_options

GRAPHS = (PLAIN_GRAPH, TAPPED_GRAPH, LOWERED_GRAPH, CONTRIBUTIONS_GRAPH, HIDDEN_GRAPH)
SECONDS = 600


class AsServed:
    """Runs graphs as the server does, beside what else is done meanwhile.

    Args:
        folder: The artifact's.
        feeds: Inputs by name, one batch each.
        graphs: Names of those that take them; the ones that are there are run.
    """

    def __init__(self, folder: Path, feeds: Sequence[Mapping[str, Array]], graphs: Sequence[str] = GRAPHS) -> None:
        self._cases = len(feeds)
        self._work = tempfile.TemporaryDirectory(prefix="regard-")
        self._results = Path(self._work.name)
        for place, feed in enumerate(feeds):
            save_feed(self._results / f"feed.{place}.npz", feed)
        command = [sys.executable, "-P", "-m", "export.served", str(folder.resolve()), self._work.name, *graphs]
        self._process = subprocess.Popen(  # noqa: S603 -- our own module
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._work.cleanup()

    def results(self) -> Iterator[tuple[str, int, dict[str, Array]]]:
        """Wait for the process; yield a graph's file name, the place of the feed, and the outputs by name.

        Raises:
            VerificationError: The process ended otherwise than well, or took longer than SECONDS.
        """
        try:
            output, _ = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise VerificationError(f"as it is served, the export takes longer than {SECONDS} s") from error
        if self._process.returncode:
            raise VerificationError(f"as it is served, {tell_end(self._process.returncode, output)}")
        for file in sorted(self._results.glob("result.*.npz")):
            _, place, graph = file.name.removesuffix(".npz").split(".", 2)
            yield graph, int(place), load_feed(file)


def check_loads(folder: Path, contract: Contract | TowersContract) -> None:
    """Let a server's loader take an artifact, as it will at its start: contract, hashes, tokenizer, graphs.

    Args:
        folder: Holds its files, the contract included.
        contract: Says name and version.

    Raises:
        VerificationError: A server would not load it; says why.
    """
    with tempfile.TemporaryDirectory(prefix="regard-") as work:
        place = Path(work, contract.name, str(contract.version))
        place.parent.mkdir()
        place.symlink_to(folder.resolve())
        command = [sys.executable, "-P", "-m", "server.repository.trial", str(place), "cpu", "1", "1"]
        try:
            done = subprocess.run(  # noqa: S603 -- our own module
                command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise VerificationError(f"a server takes longer than {SECONDS} s to load it") from error
    if done.returncode:
        reason = tell_end(done.returncode, done.stdout + done.stderr).replace(f"{place}{os.sep}", "")
        raise VerificationError(f"loaded by a server, {reason}")


def environment() -> dict[str, str]:
    """Let another process find the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)}


def tell_end(code: int, output: str) -> str:
    """Say how the process ended: by a signal, or with an error of which the last line tells."""
    last = (output.strip().splitlines() or ["it says nothing"])[-1]
    if code < 0:
        return f"the export ends the process with {signal.Signals(-code).name}"
    return f"the export fails: {last}"


def run_as_served(folder: Path, results: Path, names: Sequence[str]) -> None:
    """Run graphs of a folder, those that are there, on every feed of another, and write the outputs there."""
    graphs = [name for name in names if (folder / name).exists()]
    with packed(folder, graphs, make_options) as places:
        for graph in graphs:
            session = onnxruntime.InferenceSession(places[graph], make_options(), providers=["CPUExecutionProvider"])
            _run(session, graph, results)


def _run(session: onnxruntime.InferenceSession, graph: str, results: Path) -> None:
    for file in sorted(results.glob("feed.*.npz")):
        outputs = run_session(session, load_feed(file))
        save_feed(results / f"result.{file.name.split('.')[1]}.{graph}.npz", outputs)


def save_feed(file: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays behind their names, which may be any that ONNX allows."""
    np.savez(file, np.array(list(arrays)), *arrays.values(), allow_pickle=False)


def load_feed(file: Path) -> dict[str, Array]:
    """Read arrays by name."""
    with np.load(file, allow_pickle=False) as stored:
        names, *arrays = (stored[key] for key in stored.files)
    return dict(zip(map(str, names), arrays, strict=True))


if __name__ == "__main__":
    run_as_served(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
