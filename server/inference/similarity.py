"""Runs two inputs whose vectors are compared, and what explains their similarity."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from artifact.contract import NUMBER_BYTES
from server.context import RpcContext, Timings
from server.errors import InvalidInput, NotPossible
from server.inference.pipeline import Pipeline
from server.inference.request import FirstPart, Images, InferenceResponse, PreparedInput, Texts
from server.inference.workers import Workers
from server.inference.zero_shot import ask_vectors, first_vector
from server.ledger import COPIES
from server.relevance.similarity import Comparison, Side, SimilarityPlan, SimilarityRequest, compare
from server.repository.loading import LoadedModel

_OF_AN_INPUT = ("text", "image", "prompt", "input")  # fields that an error may name, which then says of which input


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One of two inputs that are compared.

    Attributes:
        field: What the caller calls it, for messages.
        model: What reads it: of two towers, one of them.
        inputs: A single one.
    """

    field: str
    model: LoadedModel
    inputs: Texts | Images


@dataclass(frozen=True, slots=True)
class ComparisonRequest:
    """What is wanted besides the similarity.

    Attributes:
        explained: Whether positions are.
        pairs: Whether pairs of them are.
        drop_special: Leaves out positions that are no part of an input.
    """

    explained: bool = False
    pairs: bool = False
    drop_special: bool = False


@dataclass(slots=True, eq=False)
class Found:
    """What was found of two inputs.

    Attributes:
        comparison: How similar they are, and why.
        prepared: Both inputs, the first one first.
        timings: Of all runs.
    """

    comparison: Comparison
    prepared: tuple[PreparedInput, PreparedInput]
    timings: Timings


@dataclass(slots=True, eq=False)
class _Runs:
    """The runs of one call, each a part of it; all but the last are added up."""

    pipeline: Pipeline
    context: RpcContext
    timings: Timings = field(default_factory=Timings)

    async def add(self, one: Compared, wanted: SimilarityRequest | None) -> tuple[Side, PreparedInput]:
        """Compute one that is not the last."""
        asked = replace(ask_vectors(one.model, one.inputs), similarity=wanted, is_first_part=True)
        with _naming(one.field):
            async with self.pipeline.run(asked, self.context) as found:
                side = _take(found)
                self.timings.add(found.timings)
                return side, found.prepared

    @asynccontextmanager
    async def last(self, one: Compared, wanted: SimilarityRequest | None) -> AsyncIterator[InferenceResponse]:
        """Compute the last, with which the others are counted."""
        part = FirstPart(self.timings, 1)
        asked = replace(ask_vectors(one.model, one.inputs), similarity=wanted, first_part=part)
        async with AsyncExitStack() as stack:
            with _naming(one.field):
                found = await stack.enter_async_context(self.pipeline.run(asked, self.context))
            yield found


@asynccontextmanager
async def run_compared(
    pipeline: Pipeline,
    workers: Workers,
    inputs: tuple[Compared, Compared],
    wanted: ComparisonRequest,
    context: RpcContext,
) -> AsyncIterator[Found]:
    """Compute two inputs, one after the other; the block writes the answer, which is held until its end.

    A similarity takes a run of each. Positions take one more of the first: the second is explained by the first's
    vector as it is computed, then the first by the second's. Pairs take, of each input, a run for each of its positions
    and one more, and no others.

    Args:
        pipeline: Runs them, as parts of one call.
        workers: Put together what was computed.
        inputs: The two; both are checked already to give vectors of one space.
        wanted: What is to be explained.
        context: For whom; each is counted as a request.

    Raises:
        NotPossible: Similarities of one cannot be explained.
        ServerError: As the steps raise it.
    """
    first, second = inputs
    _check_explained(inputs, wanted)
    if wanted.explained:  # before anything is computed
        context.caller.require("attention", "relevance")
    runs, account, drop = _Runs(pipeline, context), context.account, wanted.drop_special
    own = SimilarityRequest(drop_special=drop) if wanted.pairs else None
    one, read = await runs.add(first, own)
    account.reserve(kept=_bytes_of(one))
    context.caller.quota.count(1)  # the second: the first was counted when the request was admitted
    if wanted.explained and not wanted.pairs:
        other, prepared = await runs.add(second, SimilarityRequest(one.vector, drop))
        account.reserve(kept=_bytes_of(one) + _bytes_of(other))
        async with runs.last(first, SimilarityRequest(other.vector, drop)) as found:
            comparison = compare(_take(found), other, dot=_is_dot(first.model))
            yield Found(comparison, (read, prepared), found.timings)
        return
    async with runs.last(second, own) as found:
        other = _take(found)
        if one.parts is not None and other.parts is not None:
            _check_pairs(len(one.parts) * len(other.parts), pipeline.attention.answer_bytes)
            account.reserve(map=COPIES * NUMBER_BYTES * len(one.parts) * len(other.parts))
        comparison = await workers.run(lambda: compare(one, other, dot=_is_dot(first.model)))
        yield Found(comparison, (read, found.prepared), found.timings)


def _check_explained(inputs: tuple[Compared, Compared], wanted: ComparisonRequest) -> None:
    """Refuse what cannot be explained before anything is computed.

    Raises:
        NotPossible: Says which model.
    """
    for one in inputs if wanted.explained else ():
        if one.model.contract.similarity is None:
            named = f"relevance: {one.model.name} was exported without relevance of similarities"
            raise NotPossible(f"{named}; expected a model with Model.can_explain_similarity")


def _take(found: InferenceResponse) -> Side:
    """Copy what is needed out of a response."""
    vector, plan = first_vector(found).copy(), found.plan
    if not isinstance(plan, SimilarityPlan):
        return Side(vector)
    told = [np.array(found.result.further[name]) for name in plan.outputs]
    if plan.weights is None:
        return Side(vector, plan.positions, parts=told[0])
    values, rest, _ = told
    return Side(vector, plan.positions, values[0], float(rest[0]))


def _bytes_of(side: Side) -> int:
    return sum(array.nbytes for array in (side.vector, side.values, side.parts) if array is not None)


def _is_dot(model: LoadedModel) -> bool:
    return model.contract.embedding is not None and model.contract.embedding.similarity == "dot"


def _check_pairs(numbers: int, max_bytes: int) -> None:
    if (size_bytes := numbers * NUMBER_BYTES) > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): shorter inputs, or no pairs"
        raise InvalidInput("relevance.pairs", f"an answer of {size_bytes} bytes", expected)


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say of which input an error is."""
    try:
        yield
    except InvalidInput as error:
        if str(error).startswith(_OF_AN_INPUT):
            error.args = (f"{place}.{error}",)
        raise
