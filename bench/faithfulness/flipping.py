"""Masks inputs part by part, and asks a server what it makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from artifact.contract import Contract
from bench.faithfulness.measures import Maps
from bench.faithfulness.protocols import Flipped, Keeps, masks, rank, step_counts
from bench.faithfulness.rows import Row
from regard import Client

Filling = Literal["mean", "black", "mask", "remove"]
CALLS = 4
"""Calls at a time."""
_MASK_TOKENS = ("[MASK]", "<mask>", "[UNK]", "<unk>", "[PAD]", "<pad>")


@dataclass(frozen=True)
class Masking:
    """How parts are masked.

    Attributes:
        contract: Of the model.
        filling: Patches become the training images' mean, or black; tokens become the mask token, or are taken out.
        token: The mask token; what comes nearest where the vocabulary has none.
    """

    contract: Contract
    filling: Filling
    token: int = 0

    def feed(self, row: Row, keeps: Keeps) -> dict[str, NDArray[Any]]:
        """The inputs of copies of a row, of which parts are kept, bool [copies, parts]."""
        if self.contract.image:
            return {self.contract.inputs[0].name: self._images(row, keeps)}
        kept = np.ones((len(keeps), len(row.tensor)), dtype=bool)
        kept[:, row.parts] = keeps
        ids = np.where(kept, row.tensor, self.token)
        attended = np.ones_like(ids)
        if self.filling == "remove":
            order = np.argsort(~kept, axis=1, kind="stable")  # what is kept moves to the front
            ids, attended = (np.take_along_axis(one, order, axis=1) for one in (ids, kept.astype(np.int64)))
        return {
            spec.name: attended if spec.mask else np.zeros_like(ids) if spec.token_types else ids
            for spec in self.contract.inputs
        }

    def _images(self, row: Row, keeps: Keeps) -> NDArray[np.float32]:
        image, grid = self.contract.image, self.contract.patches
        assert image and grid  # noqa: S101 -- it takes images
        shown = keeps.reshape(-1, 1, grid.rows, grid.cols)
        shown = shown.repeat(grid.patch_size, axis=2).repeat(grid.patch_size, axis=3)
        black = -np.array(image.mean, dtype=np.float32) / np.array(image.std, dtype=np.float32)
        fill = black[:, None, None] if self.filling == "black" else np.float32(0)  # 0 is the mean, normalised
        filled: NDArray[np.float32] = np.where(shown, row.tensor, fill).astype(np.float32)
        return filled


def masking(contract: Contract, folder: Path, filling: Filling) -> Masking:
    """Find the mask token of a model in its folder; of images there is none."""
    if contract.text is None:
        return Masking(contract, filling)
    tokenizer = Tokenizer.from_file(str(folder / contract.text.tokenizer_file))
    ids = [tokenizer.token_to_id(name) for name in _MASK_TOKENS]
    return Masking(contract, filling, next((one for one in ids if one is not None), 0))


def flip(
    client: Client, masked: Masking, rows: Sequence[Row], maps: Maps, steps: int, at_once: int
) -> Iterator[dict[str, Flipped]]:
    """Mask each row in the order of each measure; yields what came of it, by measure, row after row.

    Args:
        client: Of the server.
        masked: How.
        rows: What is masked.
        maps: By which ranking.
        steps: About how many.
        at_once: The most copies in a call.

    Raises:
        RegardError: A call failed.
        ValueError: The row as a whole has another label than it was explained for.
    """

    def one(place: int) -> dict[str, Flipped]:
        return flip_row(
            client, masked, rows[place], {name: found[place] for name, found in maps.items()}, steps, at_once
        )

    with ThreadPoolExecutor(CALLS) as pool:
        yield from pool.map(one, range(len(rows)))


def flip_row(
    client: Client, masked: Masking, row: Row, values: Mapping[str, NDArray[np.float64]], steps: int, at_once: int
) -> dict[str, Flipped]:
    """Mask one row in the order of each measure; equal masks are asked for once."""
    counts = step_counts(len(row.parts), steps)
    wanted = [masks(rank(one, seed=len(row.parts)), counts) for one in values.values()]  # [2, S, parts] each
    keeps, places = np.unique(np.concatenate(wanted).reshape(-1, len(row.parts)), axis=0, return_inverse=True)
    logits = ask_logits(client, masked, row, keeps, at_once)[places.ravel()].reshape(len(values), 2, len(counts), -1)
    whole = int(logits[0, 0, 0].argmax())
    if whole != row.label:
        raise ValueError(f"{row.given.truth}: unmasked it is label {whole}, and {row.label} was explained")
    return {name: _flipped(counts, one, row) for name, one in zip(values, logits, strict=True)}


def ask_logits(client: Client, masked: Masking, row: Row, keeps: Keeps, at_once: int) -> NDArray[np.float64]:
    """The logits of masked copies, float64 [copies, labels]."""
    explained = masked.contract.relevance
    assert explained is not None  # noqa: S101 -- checked before
    found = []
    for start in range(0, len(keeps), at_once):
        feed = masked.feed(row, keeps[start : start + at_once])
        answer = client.predict(feed, model=masked.contract.name, outputs=(explained.output,))
        found.append(answer.outputs[explained.output].astype(np.float64))
    return np.concatenate(found)


def _flipped(counts: Sequence[int], logits: NDArray[np.float64], row: Row) -> Flipped:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    right = (logits.argmax(axis=-1) == row.truth).astype(float)
    return Flipped(counts, logits[..., row.label], probabilities[..., row.label], right)
