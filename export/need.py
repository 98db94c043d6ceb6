"""Measures the memory that running graphs takes at two lengths, and tells by it what a longer input would take.

Counting arrays missed what differs between networks: how often scores are written anew, the logits of a vocabulary for
every token, weights that are stored in fewer bits than they are run in. A process of its own runs each graph with an
arena, which keeps all that it took: what the process has grown by is what the run needed at once. It takes no torch.
"""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from artifact.dtypes import Array
from export.errors import VerificationError
from export.served import SECONDS, environment, load_feed, save_feed, tell_end
from export.session import open_session, run_session
from server.memory import give_back_memory, resident_bytes

Shapes = Sequence[tuple[int, int, int]]  # heads, queries and keys of each layer
# glibc's: blocks from 64 KiB on are given back once they are freed, so that no run takes what one before it left.
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Need:
    """What running some graphs takes.

    Attributes:
        fixed_bytes: At any length, of the largest: its weights as they are run.
        position_bytes: For each position, of all graphs together: states, logits, and outputs, which are kept.
        weight_bytes: For each weight of a layer's attention, of all together.
    """

    fixed_bytes: int
    position_bytes: float
    weight_bytes: float

    @classmethod
    def fit(cls, fixed_bytes: int, shorter: tuple[Shapes, int], longer: tuple[Shapes, int]) -> Self:
        """Find what explains the growth at two lengths; neither part of it is negative.

        Args:
            fixed_bytes: See the class.
            shorter: The layers' shapes, and by how many bytes the process grew.
            longer: Likewise.
        """
        (positions, weights), grown = _sizes(longer[0]), longer[1]
        (fewer, less), before = _sizes(shorter[0]), shorter[1]
        curve = weights / positions - less / fewer
        slope = (grown / positions - before / fewer) / curve if curve > 0 else grown / weights
        of_weights = min(max(slope, 0.0), grown / weights)
        return cls(fixed_bytes, (grown - of_weights * weights) / positions, of_weights)

    def grown_bytes(self, shapes: Shapes) -> float:
        """What comes to the fixed part with layers of these shapes."""
        positions, weights = _sizes(shapes)
        return self.position_bytes * positions + self.weight_bytes * weights


def _sizes(shapes: Shapes) -> tuple[int, int]:
    """Most positions, and most weights of a layer."""
    return max((max(one[1:]) for one in shapes), default=0), max(map(math.prod, shapes), default=0)


class Taken(NamedTuple):
    """Bytes that a graph's session and its run take, and those of the results, which the run's include."""

    session: int
    run: int
    results: int


def measure(runs: Sequence[tuple[Path, Mapping[str, Array]]]) -> list[Taken]:
    """Run graphs one after the other in another process.

    Returns:
        For each, what it takes.

    Raises:
        VerificationError: A run fails.
    """
    with tempfile.TemporaryDirectory(prefix="regard-") as work:
        for place, (_, feed) in enumerate(runs):
            save_feed(Path(work, f"feed.{place}.npz"), feed)
        command = [sys.executable, "-P", "-m", "export.need", work, *(str(graph.resolve()) for graph, _ in runs)]
        named = {**environment(), **_GIVE_BACK}
        try:
            done = subprocess.run(  # noqa: S603 -- our own module
                command, env=named, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise VerificationError(f"measuring the memory of a run takes longer than {SECONDS} s") from error
    if done.returncode:
        reason = tell_end(done.returncode, done.stdout + done.stderr)
        raise VerificationError(f"while the memory of a run is measured, {reason}")
    return [Taken(*taken) for taken in json.loads(done.stdout)]


def _measure_run(graph: Path, feed: Mapping[str, Array]) -> Taken:
    give_back_memory()
    before = resident_bytes()
    session = open_session(graph)
    loaded = resident_bytes()
    outputs = run_session(session, feed)
    grown = resident_bytes() - loaded
    return Taken(loaded - before, grown, sum(array.nbytes for array in outputs.values()))


if __name__ == "__main__":
    feeds = (load_feed(Path(sys.argv[1], f"feed.{place}.npz")) for place in range(len(sys.argv) - 2))
    print(json.dumps([_measure_run(Path(graph), feed) for graph, feed in zip(sys.argv[2:], feeds, strict=True)]))
