"""Classify with the caller's own labels: images of two towers, compared with each label read as a text."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.errors import InputError
from artifact.text import check_text
from artifact.towers import LABEL_PLACE, TowersContract
from regard.v1 import regard_pb2 as api
from server.api.regard_v1.messages import Classified, check_inputs, with_further
from server.context import Timings
from server.errors import InvalidInput, NotPossible, ServerError
from server.inference.preprocess import InputLimits
from server.inference.request import InferenceResponse, ManyResponses, Texts
from server.ledger import Account
from server.repository.loading import LoadedModel, Towers

_FIELD = "candidate_labels"
_CHARACTER_BYTES = 4  # of a text in memory, at most
_MAX_TEMPLATE = 4096  # characters, as of a prompt: each label is read with all of it


@dataclass(frozen=True, eq=False)
class Candidates:
    """Labels with their vectors.

    Attributes:
        names: As the caller has them.
        vectors: float32 [L, D], of Euclidean length 1.
        towers: What makes scores of them.
        timings: Of their computation.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    towers: TowersContract
    timings: Timings


def wants_candidates(request: api.ClassifyRequest, model: LoadedModel) -> bool:
    """Whether the labels are the caller's own."""
    return model.towers is not None or bool(request.candidate_labels or request.label_template)


def read_candidates(
    request: api.ClassifyRequest, model: LoadedModel, limits: InputLimits, max_bytes: int, account: Account
) -> tuple[Towers, Texts]:
    """Read the labels, each put into its sentence.

    Args:
        request: The caller's.
        model: That was asked.
        limits: Of each text, and of their number.
        max_bytes: Most that is read in all, the sentence with each label: no more than could be sent as texts.
        account: Where it is counted what is made, as "labels".

    Raises:
        NotPossible: The model is not two towers.
        TooBusy: Others hold too much, or the client's other requests do.
        InvalidInput: There are no labels or too many, one of them or the sentence cannot be used, they are too long
            together; or what they are for is no image.
    """
    towers, names = model.towers, tuple(request.candidate_labels)
    if towers is None:
        field = _FIELD if names else "label_template"
        raise NotPossible(f"{field}: {model.name} has labels of its own, or none; expected a model of two towers")
    if request.WhichOneof("input") not in ("image", "images"):
        raise InvalidInput(
            "input", request.WhichOneof("input") or "none", "image or images, to compare with the labels"
        )
    if not names:
        raise InvalidInput(_FIELD, "none", f"some: {model.name} has none of its own")
    check_inputs(_FIELD, len(names), limits.inputs)
    template = request.label_template or towers.contract.template
    if len(template) > _MAX_TEMPLATE:
        raise InvalidInput("label_template", f"{len(template)} characters", f"at most {_MAX_TEMPLATE}")
    if (places := template.count(LABEL_PLACE)) != 1:
        raise InvalidInput("label_template", f"{places} of {LABEL_PLACE}", f"one {LABEL_PLACE}, where a label goes")
    size_bytes = len(names) * len(template.encode()) + sum(len(name.encode()) for name in names)
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): a shorter template or fewer labels"
        raise InvalidInput(_FIELD, f"{size_bytes} bytes to read of {len(names)} labels", expected)
    for number, name in enumerate(names):
        try:
            check_text(f"{_FIELD}[{number}]", name, limits.text_bytes)
        except InputError as error:
            raise InvalidInput(error.field, error.value, error.expected) from error
    before, _, after = template.partition(LABEL_PLACE)
    characters = len(names) * (len(before) + len(after)) + sum(map(len, names))
    account.reserve(labels=_CHARACTER_BYTES * characters)
    return towers, Texts(tuple(f"{before}{name}{after}" for name in names), request.truncate, field=_FIELD)


def collect_candidates(names: tuple[str, ...], towers: TowersContract, found: ManyResponses) -> Candidates:
    """Put the labels' vectors together.

    Raises:
        ServerError: One of them has none; the first of such.
    """
    vectors = list[NDArray[np.float32]]()
    for one in found.each:
        if isinstance(one, ServerError):
            raise one
        (vector,) = one.outputs.values()
        vectors.append(vector[0])
    return Candidates(names, np.stack(vectors), towers, found.timings)


def fill_candidates(found: InferenceResponse, message: Classified, candidates: Candidates, count: int) -> Classified:
    """Write so many of the labels into an answer, and its attention or hidden states."""
    (vectors,) = found.outputs.values()
    scores = score(vectors[0], candidates)
    best = np.argsort(-scores, kind="stable")[:count]
    message.labels.extend(api.Label(index=int(i), name=candidates.names[i], probability=float(scores[i])) for i in best)
    return with_further(found, message)


def score(vector: NDArray[np.float32], candidates: Candidates) -> NDArray[np.float64]:
    """Score labels for an image (Radford et al. 2021, figure 3; Zhai et al. 2023, "Sigmoid Loss", algorithm 1).

    Args:
        vector: float32 [D], of the image, of length 1.
        candidates: L labels.

    Returns:
        float64 [L], in [0, 1].
    """
    towers = candidates.towers
    logits = towers.logit_scale * (candidates.vectors.astype(np.float64) @ vector) + towers.logit_bias
    if towers.activation == "sigmoid":
        return np.asarray((1 + np.tanh(logits / 2)) / 2)
    exponents = np.exp(logits - logits.max())
    return np.asarray(exponents / exponents.sum())
