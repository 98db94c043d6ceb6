"""What a study holds while it runs does not grow with its inputs."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from regard import Client
from regard.study.asking import StudyOptions
from regard.study.folder import PART_INPUTS
from regard.study.running import Run
from tests.client.fake import NUM_HEADS, NUM_LAYERS

FIRST, LAST = 2 * PART_INPUTS, 10 * PART_INPUTS


class Answering:
    """Answers without a network, and keeps nothing."""

    def embed_many(self, *, texts: Iterator[str], **options: Any) -> Iterator[Any]:
        """Yield the same shape for each, of numbers that are its text's length."""
        for text in texts:
            weights = np.full((NUM_HEADS, 2), len(text), np.float32)
            layer = SimpleNamespace(axes=("head", "statistic"), weights=weights)
            yield SimpleNamespace(attention=SimpleNamespace(layers=[layer] * NUM_LAYERS))

    attend_many = embed_many


def test_nothing_is_kept_of_each_input(client: Client, tmp_path: Path) -> None:
    """Between the second part and the tenth: a list of names alone would take 60 bytes an input or more."""
    held = dict[int, int]()

    def inputs() -> Iterator[tuple[str, str]]:
        for number in range(LAST + 1):
            if number in (FIRST, LAST):
                held[number] = tracemalloc.get_traced_memory()[0]
            name = f"input {number:06}"
            yield name, name

    run = Run(Answering(), client.model("minilm"), "texts", StudyOptions(("entropy", "sink")), tmp_path / "study")
    tracemalloc.start()
    try:
        found = run.run(inputs())
    finally:
        tracemalloc.stop()
    assert found.num_inputs == LAST + 1
    assert (held[LAST] - held[FIRST]) / (LAST - FIRST) < 8
