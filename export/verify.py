"""Compares the exported graphs with the network before anything is published; called by build."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graph import example_inputs
from model.checkpoint import Network
from model.text import TextNetwork
from model.vit import VisionTransformer
from server.contract import PLAIN_GRAPH, TAPPED_GRAPH, Check, Precision

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """Largest absolute differences for values of magnitude 1; outputs of larger magnitude scale their limit.

    Attributes:
        torch: From the network; None where only the accuracy on real inputs says how far a precision may go.
        plain: Of the tapped graph from the plain one.
        row_sum: Of the sum of a row of attention from 1.
        padding: Of a row in a padded batch from the row alone.
    """

    torch: float | None
    plain: float
    row_sum: float
    padding: float


# Where numbers are rounded to eleven or eight bits, the last bit of a sum can move a result by one step.
LIMITS: dict[Precision, Limits] = {
    "float32": Limits(torch=1e-4, plain=1e-5, row_sum=1e-5, padding=1e-5),
    "float16": Limits(torch=None, plain=1e-2, row_sum=5e-3, padding=1e-2),
    "int8": Limits(torch=None, plain=1e-5, row_sum=1e-5, padding=5e-2),
}
SEED = 0
# All the attention of one image takes layers x heads x patches^2 numbers: above this, batches of 1 and 2 must do.
_MANY_PATCHES = 512


class VerificationError(ValueError):
    """The graphs do not do what the network does; lists every failed check with its difference and limit."""


@dataclass(frozen=True)
class Case:
    """One batch to try, by input name, and the true length of each row (text only)."""

    inputs: dict[str, Tensor]
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Difference:
    """One comparison in one case; `scale` is the largest magnitude of the reference."""

    tensor: str
    check: str
    max_abs: float
    scale: float
    limit: float


def verify(
    network: Network,
    folder: Path,
    attention_names: Sequence[str],
    image_size: int | None,
    precision: Precision = "float32",
) -> tuple[Check, ...]:
    """Run network and graphs on batches of several sizes, lengths and paddings and compare everything.

    Args:
        network: In evaluation mode.
        folder: Holds the plain and the tapped graph and their weights.
        attention_names: The tapped graph's attention outputs, in the order of the layers.
        image_size: Edge in pixels of the images, None for the network's own.
        precision: Of the graphs; one that ONNX Runtime can run on the CPU.

    Returns:
        The table, one line for each tensor and check, the worst over all cases.

    Raises:
        VerificationError: A difference is above its limit, or is not a number.
    """
    plain, tapped = (
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in (PLAIN_GRAPH, TAPPED_GRAPH)
    )
    differences: list[Difference] = []
    for case in make_cases(network, image_size):
        differences += compare_case(network, plain, tapped, attention_names, case, LIMITS[precision])
    table = summarize(differences)
    failed = [line for line in table if not line.max_abs <= line.limit]
    if failed:
        lines = (f"{line.tensor}: {line.check}: {line.max_abs:.3g}, limit {line.limit:.3g}" for line in failed)
        raise VerificationError("the export differs from the network:\n  " + "\n  ".join(lines))
    return table


def make_cases(network: Network, image_size: int | None) -> list[Case]:
    """Make batches of 1, 2 and 5 rows; of texts with 3 to 64 tokens, even and ragged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if not isinstance(network, TextNetwork):
            batches = (1, 2, 5) if _patches(network, image_size) <= _MANY_PATCHES else (1, 2)
            return [Case({"pixel_values": example_inputs(network, batch, 0, image_size)[0]}) for batch in batches]
        longest = network.config.encoder.max_positions
        ragged = [(3,), (16, 16), (5, 17, 3, 9, 12), (64, 7), (33, 64, 1)]
        return [_text_case(network, tuple(min(length, longest) for length in lengths)) for lengths in ragged]


def _patches(network: VisionTransformer, image_size: int | None) -> int:
    return ((image_size or network.config.image_size) // network.config.patch_size) ** 2


def _text_case(network: TextNetwork, lengths: tuple[int, ...]) -> Case:
    input_ids, mask = example_inputs(network, len(lengths), max(lengths), None)
    for row, length in enumerate(lengths):
        input_ids[row, length:] = 0
        mask[row, length:] = 0
    return Case({"input_ids": input_ids, "attention_mask": mask}, lengths)


def compare_case(
    network: Network,
    plain: onnxruntime.InferenceSession,
    tapped: onnxruntime.InferenceSession,
    attention_names: Sequence[str],
    case: Case,
    limits: Limits,
) -> Iterator[Difference]:
    """Yield every difference in one case; positions that are padding are left out."""
    with torch.inference_mode():
        outputs = {name: tensor.numpy() for name, tensor in network(**case.inputs).items()}
        attentions = [tensor.numpy() for tensor in network.explain(**case.inputs)[1]]
    feed = {name: tensor.numpy() for name, tensor in case.inputs.items()}
    from_plain = dict(zip(outputs, plain.run(list(outputs), feed), strict=True))
    names = [*outputs, *attention_names]
    from_tapped = dict(zip(names, tapped.run(names, feed), strict=True))
    for name, reference in outputs.items():
        if limits.torch:
            yield _difference(name, "against torch", from_plain[name], reference, case, limits.torch)
        yield _difference(name, "against plain", from_tapped[name], from_plain[name], case, limits.plain)
    for name, reference in zip(attention_names, attentions, strict=True):
        if limits.torch:
            yield _difference(name, "against torch", from_tapped[name], reference, case, limits.torch)
        sums = from_tapped[name].sum(-1, dtype=np.float64)
        yield _difference(name, "rows sum to 1", sums, np.ones_like(sums), case, limits.row_sum)
    if len(case.lengths) > 1:
        yield from _compare_unpadded(tapped, names, feed, from_tapped, case, limits.padding)


def _compare_unpadded(
    tapped: onnxruntime.InferenceSession,
    names: list[str],
    feed: dict[str, Array],
    padded: dict[str, Array],
    case: Case,
    padding_limit: float,
) -> Iterator[Difference]:
    """Run each row alone at its own length; it must not matter what it was batched with."""
    for row, length in enumerate(case.lengths):
        alone = tapped.run(names, {name: array[row : row + 1, :length] for name, array in feed.items()})
        for name, reference in zip(names, alone, strict=True):
            is_attention = name.startswith("attention.")
            got = _true_part(name, padded[name][row], length)
            scale = max(1.0, float(np.abs(reference).max()))
            limit = padding_limit if is_attention else padding_limit * scale
            yield Difference(name, "against unpadded", _max_abs(got, reference[0]), scale, limit)


def _difference(name: str, check: str, got: Array, reference: Array, case: Case, limit: float) -> Difference:
    if case.lengths:
        rows = [
            (_true_part(name, a, n), _true_part(name, b, n))
            for a, b, n in zip(got, reference, case.lengths, strict=True)
        ]
    else:
        rows = [(got, reference)]
    scale = _largest(np.abs(b).max() for _, b in rows)
    scaled_limit = limit * max(1.0, scale) if not name.startswith("attention.") else limit
    return Difference(name, check, _largest(_max_abs(a, b) for a, b in rows), scale, scaled_limit)


def _true_part(name: str, row: Array, length: int) -> Array:
    """Cut padding off one row: hidden states [N, D], attention [H, N, N] or its sums [H, N]; vectors stay."""
    if name == "last_hidden_state":
        return row[:length]
    if name.startswith("attention."):
        return row[:, :length, :length] if row.ndim == 3 else row[:, :length]
    return row


def _largest(values: Iterable[float]) -> float:
    """Largest of some numbers; NaN if one of them is NaN, which Python's max may drop."""
    return float(np.max(list(values)))


def _max_abs(got: Array, reference: Array) -> float:
    """Largest absolute difference; NaN if there is one anywhere, which no limit admits."""
    return float(np.abs(got - reference).max())


def summarize(differences: Sequence[Difference]) -> tuple[Check, ...]:
    """Keep the worst of each tensor and check."""
    groups: dict[tuple[str, str], list[Difference]] = {}
    for one in differences:
        groups.setdefault((one.tensor, one.check), []).append(one)
    return tuple(_worst(group) for group in groups.values())


def _worst(group: Sequence[Difference]) -> Check:
    worst = max(group, key=_share_of_limit)
    return Check(
        tensor=worst.tensor,
        check=worst.check,
        cases=len(group),
        max_abs=worst.max_abs,
        max_rel=worst.max_abs / max(worst.scale, float(np.finfo(np.float32).tiny)),
        limit=worst.limit,
    )


def _share_of_limit(difference: Difference) -> float:
    share = difference.max_abs / difference.limit
    return math.inf if math.isnan(share) else share
