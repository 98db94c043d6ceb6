"""Align: which patch of an image answers to which token of a text, in the space of two towers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact.contract import NUMBER_BYTES
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.describe import can_align, describe_positions
from server.api.regard_v1.tensors import write_tensor
from server.context import Timings
from server.errors import InvalidInput, NotPossible
from server.hidden_states.request import HiddenStatesRequest
from server.inference.request import Images, InferenceRequest, InferenceResponse, Texts
from server.ledger import COPIES, Account
from server.repository.loading import LoadedModel, Towers

Floats = NDArray[np.float32]

_WANTED = HiddenStatesRequest(normalize=True, projected=True)


@dataclass(frozen=True, eq=False)
class AlignedText:
    """What is kept of a text while its image is computed.

    Attributes:
        positions: What its tokens are.
        vectors: float32 [N, D], of each token, of Euclidean length 1.
        whole: float32 [D], of the text.
        truncated: Whether it was cut.
        timings: Of its computation.
    """

    positions: pb.TokenSequence
    vectors: Floats
    whole: Floats
    truncated: bool
    timings: Timings


def find_towers(model: LoadedModel) -> Towers:
    """Return the towers of a model that can align.

    Raises:
        NotPossible: It cannot.
    """
    if not can_align(model) or model.towers is None:
        raise NotPossible(f"model: {model.name} cannot align; expected two towers with can_align")
    return model.towers


def read_text(request: api.AlignRequest, towers: Towers) -> InferenceRequest:
    """Read what is asked of the tower for texts."""
    return _ask(towers.text, Texts((request.text,), request.truncate))


def read_image(request: api.AlignRequest, towers: Towers) -> InferenceRequest:
    """Read what is asked of the tower for images.

    Raises:
        InvalidInput: There is no image.
    """
    if not request.image:
        raise InvalidInput("image", "empty", "a JPEG, PNG or WebP file")
    return _ask(towers.image, Images((request.image,)))


def keep_text(found: InferenceResponse, account: Account) -> AlignedText:
    """Take what is needed out of the answer to a text, and count what is kept."""
    vectors, whole = _vectors(found), _whole(found).copy()
    account.reserve(kept=vectors.nbytes + whole.nbytes)
    tokens = describe_positions(found)["tokens"]
    return AlignedText(tokens, vectors, whole, found.prepared.truncated, found.timings)


def reserve_map(text: AlignedText, towers: Towers, max_bytes: int, account: Account) -> None:
    """See that the map may be made, before its image is computed.

    Raises:
        InvalidInput: It is more than a message has.
        TooBusy: Others hold too much, or the client's other requests do.
    """
    patches = towers.image.contract.patches
    size_bytes = (len(text.vectors) + 1) * (patches.rows * patches.cols if patches else 0) * NUMBER_BYTES
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): a shorter text"
        raise InvalidInput("text", f"a map of {size_bytes} bytes", expected)
    account.reserve(map=COPIES * size_bytes)


def write_map(found: InferenceResponse, text: AlignedText) -> api.AlignResponse:
    """Answer with the cosines of an image's patches and a text's tokens."""
    grid: pb.PatchGrid = describe_positions(found)["patches"]
    patches = _vectors(found)[grid.prefix_tokens :]
    answer = api.AlignResponse(model=found.model.name, version=found.model.version, truncated=text.truncated)
    answer.map.tokens.CopyFrom(text.positions)
    answer.map.patches.CopyFrom(grid)
    write_tensor(np.asarray(text.vectors @ patches.T), answer.map.similarities)
    write_tensor(np.asarray(text.whole @ patches.T), answer.map.text_similarities)
    answer.map.similarity = math.fsum(text.whole * _whole(found))
    return answer


def _ask(tower: LoadedModel, inputs: Texts | Images) -> InferenceRequest:
    assert tower.contract.embedding  # noqa: S101 -- or it were no tower
    return InferenceRequest(tower, inputs, (tower.contract.embedding.output,), hidden_states=_WANTED)


def _vectors(found: InferenceResponse) -> Floats:
    """Of every position, float32 [N, D]."""
    (reduced,) = found.hidden_states()
    vectors: Floats = reduced.values[0]
    return vectors


def _whole(found: InferenceResponse) -> Floats:
    """Of the whole, float32 [D]."""
    (vectors,) = found.outputs.values()
    vector: Floats = vectors[0]
    return vector
