"""Labels of the caller's own: images of two towers, compared with each label read as a text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from artifact.text import check_text
from artifact.towers import LABEL_PLACE, TowersContract
from server.context import RpcContext
from server.errors import InvalidInput, NotPossible, ServerError, refusing_inputs
from server.inference.pipeline import Pipeline
from server.inference.preprocess import InputLimits, check_number
from server.inference.request import FirstPart, Images, InferenceRequest, InferenceResponse, ManyResponses, Texts
from server.ledger import Account
from server.repository.loading import LoadedModel, Towers

LABELS = "candidate_labels"
_CHARACTER_BYTES = 4  # of a text in memory, at most
_MAX_TEMPLATE = 4096  # characters, as of a prompt: each label is read with all of it


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """What a caller wants images to be compared with.

    Attributes:
        names: The labels, as the caller has them.
        template: The sentence that each is put into; empty for the model's own.
        truncate: Whether a label with too many tokens is cut.
        brings: What else the request brings: "image" or "images"; of others it is refused.
    """

    names: tuple[str, ...]
    template: str
    truncate: bool
    brings: str


@dataclass(frozen=True, eq=False)
class Candidates:
    """Labels with their vectors.

    Attributes:
        names: As the caller has them.
        vectors: float32 [L, D], of Euclidean length 1.
        towers: What makes scores of them.
        part: Their computation.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    towers: TowersContract
    part: FirstPart


def towers_for(wanted: LabelRequest, model: LoadedModel, limits: InputLimits) -> Towers:
    """Return the towers that compare labels with images.

    Raises:
        NotPossible: The model is not two towers.
        InvalidInput: There are no labels or too many; or what they are for is no image.
    """
    towers, names = model.towers, wanted.names
    if towers is None:
        field = LABELS if names else "label_template"
        raise NotPossible(f"{field}: {model.name} has labels of its own, or none; expected a model of two towers")
    if wanted.brings not in ("image", "images"):
        raise InvalidInput("input", wanted.brings or "none", "an image, or images, to compare with the labels")
    if not names:
        raise InvalidInput(LABELS, "none", f"some: {model.name} has none of its own")
    check_number(LABELS, len(names), limits.inputs)
    return towers


async def read_labels(wanted: LabelRequest, towers: Towers, pipeline: Pipeline, account: Account) -> Texts:
    """Put each label into its sentence; called when all else is read, as it counts what it makes as "labels".

    Raises:
        TooBusy: Others hold too much, or the client's other requests do.
        InvalidInput: One of them or the sentence cannot be used; or they are too long together, the sentence with each:
            longer than could be sent as texts.
    """
    names, template = wanted.names, _check_template(wanted.template or towers.contract.template)
    before, _, after = template.partition(LABEL_PLACE)
    characters = len(names) * (len(before) + len(after)) + sum(map(len, names))
    max_bytes = pipeline.attention.answer_bytes
    await pipeline.workers.decode(partial(_check_labels, names, template, pipeline.inputs, max_bytes), characters)
    account.reserve(labels=_CHARACTER_BYTES * characters)
    texts = await pipeline.workers.decode(lambda: tuple(f"{before}{name}{after}" for name in names), characters)
    return Texts(texts, wanted.truncate, field=LABELS)


def _check_labels(names: tuple[str, ...], template: str, limits: InputLimits, max_bytes: int) -> None:
    size_bytes = len(names) * len(template.encode()) + sum(len(name.encode()) for name in names)
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): a shorter template or fewer labels"
        raise InvalidInput(LABELS, f"{size_bytes} bytes to read of {len(names)} labels", expected)
    with refusing_inputs():
        for number, name in enumerate(names):
            check_text(f"{LABELS}[{number}]", name, limits.text_bytes)


def _check_template(template: str) -> str:
    if len(template) > _MAX_TEMPLATE:
        raise InvalidInput("label_template", f"{len(template)} characters", f"at most {_MAX_TEMPLATE}")
    if (places := template.count(LABEL_PLACE)) != 1:
        raise InvalidInput("label_template", f"{places} of {LABEL_PLACE}", f"one {LABEL_PLACE}, where a label goes")
    return template


async def compute_labels(
    pipeline: Pipeline, towers: Towers, names: tuple[str, ...], labels: Texts, context: RpcContext
) -> Candidates:
    """Compute the labels' vectors, the first part of a call whose other part are the images.

    Each label is counted as a request, and one for the images; what is kept is on the account as "kept".

    Raises:
        ServerError: One of the labels cannot be computed; the first of such.
    """
    asked = replace(ask_vectors(towers.text, labels), is_first_part=True)
    async with pipeline.run_each(asked, context) as found:
        vectors = _collect(found)
        context.account.reserve(kept=vectors.nbytes)
        candidates = Candidates(names, vectors, towers.contract, FirstPart(found.timings, found.rows))
    context.account.hold("labels", 0)
    context.caller.quota.count(1)  # an image: a label was counted when the request was admitted
    return candidates


def vector_outputs(tower: LoadedModel) -> tuple[str, ...]:
    """Name the output that has a tower's vector."""
    assert tower.contract.embedding  # noqa: S101 -- or it were no tower
    return (tower.contract.embedding.output,)


def ask_vectors(model: LoadedModel, inputs: Texts | Images) -> InferenceRequest:
    """Ask for vectors that are compared here: none is sent."""
    outputs = vector_outputs(model)
    return InferenceRequest(model, inputs, outputs, unsent=frozenset(outputs))


def first_vector(found: InferenceResponse) -> NDArray[np.float32]:
    """Return the vector of the first row, float32 [D], where vectors are all that was asked for."""
    (vectors,) = found.outputs.values()
    vector: NDArray[np.float32] = vectors[0]
    return vector


def _collect(found: ManyResponses) -> NDArray[np.float32]:
    vectors = list[NDArray[np.float32]]()
    for one in found.each:
        if isinstance(one, ServerError):
            raise one
        vectors.append(first_vector(one))
    return np.stack(vectors)


def score(vectors: NDArray[np.float32], candidates: Candidates) -> NDArray[np.float64]:
    """Score labels for images (Radford et al. 2021, figure 3; Zhai et al. 2023, "Sigmoid Loss", algorithm 1).

    Args:
        vectors: float32 [..., D], of one image or of several, of length 1.
        candidates: L labels.

    Returns:
        float64 [..., L], in [0, 1].
    """
    towers = candidates.towers
    logits = towers.logit_scale * (vectors @ candidates.vectors.astype(np.float64).T) + towers.logit_bias
    if towers.activation == "sigmoid":
        return np.asarray((1 + np.tanh(logits / 2)) / 2)
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))


def best(scores: Sequence[float] | NDArray[np.float64], count: int) -> list[int]:
    """Return the indices of the highest scores, the highest first; of equal ones the first."""
    order: list[int] = np.argsort(-np.asarray(scores), kind="stable")[:count].tolist()
    return order
