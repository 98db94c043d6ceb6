"""Measures what a lower precision costs against the float32 network, and refuses what costs too much."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from artifact.contract import TAPPED_GRAPH
from artifact.verification import Accuracy
from export.session import open_session
from export.traits import Feed

Array = NDArray[np.float32]
# Ordinary outputs by name, and the attention of every layer, float32 [B, H, Q, K].
Answer = tuple[dict[str, Array], list[Array]]

# What publishing insists on.
LABEL_AGREEMENT, COSINE, ATTENTION_DIFFERENCE = 0.99, 0.99, 0.01


def ask_network(network: Any) -> Callable[[Feed], Answer]:
    """Answer with a network in torch (verify.Exportable), whatever it computes in."""

    def ask(feed: Feed) -> Answer:
        dtype = next(network.parameters()).dtype
        inputs = [torch.from_numpy(feed[name]) for name in network.input_names]
        with torch.inference_mode():
            outputs, attentions = network.explain(*(x.to(dtype) if x.is_floating_point() else x for x in inputs))
        return {name: x.float().numpy() for name, x in outputs.items()}, [x.float().numpy() for x in attentions]

    return ask


def ask_graph(folder: Path, outputs: Sequence[str], attentions: Sequence[str]) -> Callable[[Feed], Answer]:
    """Answer with the tapped graph in a folder."""
    session = open_session(folder / TAPPED_GRAPH)

    def ask(feed: Feed) -> Answer:
        values: list[Any] = session.run([*outputs, *attentions], feed)
        return dict(zip(outputs, values, strict=False)), values[len(outputs) :]

    return ask


def measure_accuracy(
    reference: Callable[[Feed], Answer], candidate: Callable[[Feed], Answer], feeds: Sequence[Feed]
) -> tuple[Accuracy, ...]:
    """Compare the answers of two precisions.

    Args:
        reference: In float32.
        candidate: In the lower precision.
        feeds: Inputs that were not used for calibration.
    """
    agreements, cosines, differences = list[bool](), list[float](), list[Array]()
    for feed in feeds:
        (expected, expected_attentions), (got, got_attentions) = reference(feed), candidate(feed)
        vector = next(name for name in ("embedding", "token_vectors", "last_hidden_state") if name in expected)
        cosines.append(_cosine(got[vector], expected[vector]))
        if "logits" in expected:
            agreements.append(bool(got["logits"].argmax() == expected["logits"].argmax()))
        for one, other in zip(got_attentions, expected_attentions, strict=True):
            differences.append(np.abs(one - other))
    found = [
        Accuracy(measure="cosine, mean", value=float(np.mean(cosines)), limit=COSINE, inputs=len(feeds)),
        Accuracy(measure="cosine, least", value=float(np.min(cosines)), inputs=len(feeds)),
    ]
    if agreements:
        agreement = float(np.mean(agreements))
        found.append(Accuracy(measure="label agreement", value=agreement, limit=LABEL_AGREEMENT, inputs=len(feeds)))
    if differences:
        mean = float(np.mean([one.mean() for one in differences]))
        largest = float(np.max([one.max() for one in differences]))
        found.append(
            Accuracy(measure="attention, mean difference", value=mean, limit=ATTENTION_DIFFERENCE, inputs=len(feeds))
        )
        found.append(Accuracy(measure="attention, largest difference", value=largest, inputs=len(feeds)))
    return tuple(found)


def misses(found: Sequence[Accuracy]) -> list[str]:
    """Say which measures miss their limits."""
    return [f"{one.measure}: {one.value:.4f}; expected {one.bound}" for one in found if not one.holds]


def _cosine(one: Array, other: Array) -> float:
    """Return the least cosine of corresponding rows, each float32 [B, D]; NaN where there is one."""
    products = (one * other).sum(axis=-1)
    return float((products / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))).min())
