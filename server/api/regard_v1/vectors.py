"""The vectors of Embed in the messages of regard.v1: what is wanted of them, and what is sent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from artifact.contract import Contract
from artifact.text import TextReader
from regard.v1 import regard_pb2 as api
from server.api.regard_v1.late_interaction import fill_vectors
from server.api.regard_v1.messages import read_dense, with_further
from server.api.regard_v1.tensors import write_tensor
from server.errors import InvalidInput
from server.inference.request import InferenceResponse, ManyResponses
from server.inference.sparse import Floats, SparseRequest, find_terms
from server.inference.vectors import VectorRequest, make_vectors

Embedded = TypeVar("Embedded", api.EmbedResponse, api.EmbedResult)


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a model's vectors, which are dense or sparse."""

    dense: VectorRequest
    sparse: SparseRequest
    query: bool = False


def read_wanted(message: api.EmbedRequest, contract: Contract) -> Wanted:
    """Read what is wanted.

    Raises:
        InvalidInput: There is no such format; or see VectorRequest.check and SparseRequest.check.
        NotPossible: See both.
    """
    dense = read_dense(message)
    sparse = SparseRequest(message.max_terms, message.with_terms)
    dense.check(contract)
    sparse.check(contract)
    return Wanted(dense, sparse, query=message.role == api.TEXT_ROLE_QUERY)


def write_vector(found: InferenceResponse, wanted: Wanted) -> api.EmbedResponse:
    """Answer Embed with the one output that was asked for."""
    model = found.model
    return fill_vector(found, api.EmbedResponse(model=model.name, version=model.version), wanted)


def fill_vector(found: InferenceResponse, message: Embedded, wanted: Wanted) -> Embedded:
    """Write the one output that was asked for into an answer, and its attention or hidden states."""
    message.truncated, message.num_tokens = found.prepared.truncated, found.prepared.num_tokens
    if found.model.contract.late:
        fill_vectors(found, message.token_vectors, query=wanted.query)
        return with_further(found, message)
    (vectors,) = found.outputs.values()
    embedding = found.model.contract.embedding
    assert embedding is not None  # noqa: S101 -- or it had not been asked for
    if embedding.sparse:
        _fill_sparse(vectors[0], message.sparse, wanted.sparse, found.model.reader)
        return with_further(found, message)
    made = make_vectors(vectors[:1], wanted.dense, embedding)
    write_tensor(made.values[0], message.vector)
    if made.scales is not None:
        message.vector_scale = float(made.scales[0])
    return with_further(found, message)


def check_written(
    write_each: Callable[[ManyResponses], None], answer: api.EmbedResponse, max_bytes: int, found: ManyResponses
) -> None:
    """Write sparse vectors into an answer; how large they are is only known then.

    Raises:
        InvalidInput: They are more than a message holds.
    """
    write_each(found)
    if (size_bytes := answer.ByteSize()) > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): fewer texts or max_terms"
        raise InvalidInput("outputs", f"an answer of {size_bytes} bytes for {len(found.each)} inputs", expected)


def _fill_sparse(vector: Floats, message: api.SparseVector, wanted: SparseRequest, reader: TextReader | None) -> None:
    indices, values = find_terms(vector, wanted)
    message.dim = len(vector)
    message.indices.extend(indices.tolist())
    message.values.extend(values.tolist())
    if wanted.with_terms and reader:
        message.terms.extend(reader.spell(indices.tolist()))
