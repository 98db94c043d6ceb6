"""Late interaction: the vectors of a text's tokens, and how well those of a query find their like in a document."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from artifact.contract import Contract
from artifact.late_interaction import kept_positions
from artifact.text import Tokens
from server.errors import InvalidInput, NotPossible
from server.inference.request import Images, InferenceResponse, Tensors, Texts

Floats = NDArray[np.float32]
Given = TypeVar("Given", Texts, Images, Texts | Images, Tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """The vectors of a text that are part of an answer.

    Attributes:
        vectors: float32 [T, D].
        kept: The positions in the text that they are of.
        read: All tokens of the text.
    """

    vectors: Floats
    kept: list[int]
    read: Tokens

    def tokens(self) -> Tokens:
        """Return the tokens that the vectors are of."""
        kept, read = self.kept, self.read
        return replace(
            read,
            ids=read.ids[kept],
            texts=[read.texts[place] for place in kept],
            offsets=[read.offsets[place] for place in kept],
            special=[read.special[place] for place in kept],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Which document's token each of the query found, int64 [Q], and how similar it is, float32 [Q]."""

    found: NDArray[np.int64]
    similarities: Floats

    @property
    def score(self) -> float:
        """Their sum."""
        return float(self.similarities.sum(dtype=np.float64))


def with_role(inputs: Given, contract: Contract, *, query: bool) -> Given:
    """Say of texts whether they are queries.

    Raises:
        NotPossible: They are, and the model does not tell queries from documents.
        InvalidInput: They are no texts.
    """
    if not query:
        return inputs
    if contract.late is None:
        raise NotPossible(f"role: {contract.name} reads queries as documents; expected one with token_vector_dim")
    if not isinstance(inputs, Texts):
        raise InvalidInput("role", "query", "none, as there is no text that it is of")
    return replace(inputs, queries=len(inputs))


def take_vectors(found: InferenceResponse, *, query: bool) -> Spoken:
    """Return the vectors that are part of an answer.

    Raises:
        InvalidInput: All tokens of a document are skipped.
    """
    late, tokens = found.model.contract.late, found.prepared.source
    assert late is not None and isinstance(tokens, Tokens)  # noqa: S101 -- a text of late interaction
    kept = kept_positions(tokens, late, query=query)
    if not kept:
        raise InvalidInput("text", "tokens that are all skipped", "a document with others")
    return Spoken(found.outputs[late.output][0][kept], kept, tokens)


def mark_kept(found: InferenceResponse, *, query: bool) -> NDArray[np.bool_]:
    """Mark the positions of rows that are part of an answer, as take_vectors takes them of a single one: bool [B, T].

    Args:
        found: Rows of texts, filled up to the longest; or a caller's own tensors.
        query: Whether they are queries.
    """
    contract, inputs = found.model.contract, found.prepared.inputs
    late = contract.late
    assert late is not None  # noqa: S101 -- or it has no such vectors
    real = np.ones(found.outputs[late.output].shape[:2], dtype=bool)
    if query and late.filler is not None:
        return real
    for spec in contract.inputs:
        if spec.mask:
            real &= inputs[spec.name] != 0
        elif not (spec.token_types or query):
            real &= ~np.isin(inputs[spec.name], late.skipped)
    return real


def align(query: Floats, document: Floats) -> Aligned:
    """Find for each token of a query the most similar of a document (Khattab and Zaharia 2020, equation 3).

    Args:
        query: float32 [Q, D].
        document: float32 [N, D], N at least 1; of equally similar ones the first counts.
    """
    similarities = query @ document.T  # [Q, N]
    found = similarities.argmax(axis=1)
    return Aligned(found, np.take_along_axis(similarities, found[:, None], axis=1)[:, 0])
