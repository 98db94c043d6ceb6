"""Which patch of an image answers to which token of a text, in the space of two towers."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from artifact.contract import NUMBER_BYTES, PatchContract
from artifact.images import Pixels
from artifact.text import Tokens
from server.context import RpcContext
from server.errors import InvalidInput, NotPossible
from server.hidden_states.request import HiddenStatesRequest
from server.inference.pipeline import Pipeline
from server.inference.request import FirstPart, Images, InferenceResponse, Texts
from server.inference.workers import Workers
from server.inference.zero_shot import ask_vectors, first_vector
from server.ledger import COPIES, Account
from server.repository.loading import LoadedModel, Towers

Floats = NDArray[np.float32]

_WANTED = HiddenStatesRequest(normalize=True, projected=True)


@dataclass(frozen=True, eq=False)
class SimilarityMap:
    """Cosines of an image's patches and a text's tokens.

    Attributes:
        tokens: Of the text, T.
        patches: How P patches lie on the image.
        pixels: What the network saw of it.
        similarities: float32 [T, P], patches row by row.
        text_similarities: float32 [P], of the vector of the whole text.
        similarity: Of the vectors of the whole text and the whole image.
    """

    tokens: Tokens
    patches: PatchContract
    pixels: Pixels
    similarities: Floats
    text_similarities: Floats
    similarity: float


@dataclass(frozen=True, eq=False)
class _Text:
    """What is kept of a text while its image is computed: float32 [T, D] and [D], of Euclidean length 1."""

    tokens: Tokens
    vectors: Floats
    whole: Floats


def can_align(model: LoadedModel) -> bool:
    """Whether a model is two towers that both give vectors of positions."""
    towers = model.towers
    return towers is not None and all(one.contract.projected for one in (towers.text, towers.image))


def find_towers(model: LoadedModel) -> Towers:
    """Return the towers of a model that can align.

    Raises:
        NotPossible: It cannot.
    """
    if not can_align(model) or model.towers is None:
        raise NotPossible(f"model: {model.name} cannot align; expected two towers with can_align")
    return model.towers


def check_image(image: bytes) -> None:
    """Refuse no image before its text is computed.

    Raises:
        InvalidInput: There is none.
    """
    if not image:
        raise InvalidInput("image", "empty", "a JPEG, PNG or WebP file")


@asynccontextmanager
async def run_aligned(
    pipeline: Pipeline, workers: Workers, towers: Towers, image: bytes, texts: Texts, context: RpcContext
) -> AsyncIterator[tuple[SimilarityMap, InferenceResponse]]:
    """Compute a text and then an image; the block writes their map, which is held until its end.

    Args:
        pipeline: Runs both, as two parts of one call.
        workers: Make the map.
        towers: As find_towers gives them.
        image: A file, checked.
        texts: A single one.
        context: For whom; text and image are counted as a request each.

    Raises:
        InvalidInput: The map is more than a message has.
        ServerError: As the steps raise it.
    """
    account, max_bytes = context.account, pipeline.attention.answer_bytes
    asked = replace(ask_vectors(towers.text, texts), hidden_states=_WANTED, is_first_part=True)
    async with pipeline.run(asked, context) as found:
        text = await workers.run(partial(_keep_text, found))
        kept_bytes = text.vectors.nbytes + text.whole.nbytes
        account.reserve(kept=kept_bytes, result=found.result.size_bytes)  # without the states that it was made of
        _reserve_map(len(text.vectors), towers, max_bytes, account)
        part = FirstPart(found.timings, found.rows)
    context.caller.quota.count(1)  # the image: the text was counted when the request was admitted
    asked = replace(ask_vectors(towers.image, Images((image,))), hidden_states=_WANTED, first_part=part)
    async with pipeline.run(asked, context) as found:
        yield await workers.run(partial(_compare, found, text)), found


def _keep_text(found: InferenceResponse) -> _Text:
    """Take what is needed out of the answer to a text."""
    tokens = found.prepared.source
    assert isinstance(tokens, Tokens)  # noqa: S101 -- a single text
    return _Text(tokens, _vectors(found), first_vector(found).copy())


def _reserve_map(tokens: int, towers: Towers, max_bytes: int, account: Account) -> None:
    """See that the map may be made, before its image is computed."""
    patches = towers.image.contract.patches
    size_bytes = (tokens + 1) * (patches.rows * patches.cols if patches else 0) * NUMBER_BYTES
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): a shorter text"
        raise InvalidInput("text", f"a map of {size_bytes} bytes", expected)
    account.reserve(map=COPIES * size_bytes)


def _compare(found: InferenceResponse, text: _Text) -> SimilarityMap:
    grid, pixels = found.model.contract.patches, found.prepared.source
    assert grid is not None and isinstance(pixels, Pixels)  # noqa: S101 -- a single image
    patches = _vectors(found)[grid.prefix_tokens :]
    return SimilarityMap(
        tokens=text.tokens,
        patches=grid,
        pixels=pixels,
        similarities=np.asarray(text.vectors @ patches.T),
        text_similarities=np.asarray(text.whole @ patches.T),
        similarity=math.fsum(text.whole * first_vector(found)),
    )


def _vectors(found: InferenceResponse) -> Floats:
    """Of every position, float32 [N, D]."""
    (reduced,) = found.hidden_states()
    vectors: Floats = reduced.values[0]
    return vectors
