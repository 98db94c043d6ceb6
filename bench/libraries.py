"""Other libraries that write texts, each in a process of its own Python: see peers/write_texts.py."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_WORKER = Path(__file__).parent / "peers" / "write_texts.py"
_READY = "[]\n"


@dataclass(frozen=True)
class Library:
    """One that has loaded a network.

    Attributes:
        name: For tables.
        write: Writes the texts of lists of tokens greedily, as one batch, so many tokens of each at most.
    """

    name: str
    write: Callable[[Sequence[Sequence[int]], int], list[list[int]]]


@contextmanager
def library(python: Path, folder: Path, name: str) -> Iterator[Library]:
    """Start one, on all CPUs; it has loaded the network, a folder of transformers, when this is entered.

    Raises:
        SystemExit: It could not; it has said why on stderr.
    """
    cpus = len(os.sched_getaffinity(0))
    with subprocess.Popen(  # noqa: S603 -- our own
        [str(python), str(_WORKER), str(folder), name.lower(), str(cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked and answered  # noqa: S101 -- pipes, as told
        if answered.readline() != _READY:
            raise SystemExit(f"{name}: its process ended before it had loaded {folder}; see above")

        def write(sources: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
            print(json.dumps([max_tokens, list(sources)]), file=asked, flush=True)
            return [list(one) for one in json.loads(answered.readline())]

        yield Library(name, write)
