"""The vectors of Embed in the messages of regard.v1: what is wanted of them, and what is sent."""

from typing import TypeVar

from artifact.contract import Contract
from regard.v1 import regard_pb2 as api
from server.api.regard_v1.messages import with_further
from server.api.regard_v1.tensors import write_tensor
from server.errors import InvalidInput
from server.inference.request import InferenceResponse
from server.inference.vectors import VectorFormat, VectorRequest, make_vectors

Embedded = TypeVar("Embedded", api.EmbedResponse, api.EmbedResult)

_FORMATS: dict[int, VectorFormat] = {
    api.VECTOR_FORMAT_UNSPECIFIED: "float32",
    api.VECTOR_FORMAT_FLOAT16: "float16",
    api.VECTOR_FORMAT_INT8: "int8",
    api.VECTOR_FORMAT_BINARY: "binary",
}


def read_vector_request(message: api.EmbedRequest, contract: Contract) -> VectorRequest:
    """Read what is wanted.

    Raises:
        InvalidInput: There is no such format; or see VectorRequest.check.
        NotPossible: See VectorRequest.check.
    """
    if message.vector_format not in _FORMATS:
        raise InvalidInput("vector_format", message.vector_format, "one of the values of VectorFormat")
    wanted = VectorRequest(message.dimensions, _FORMATS[message.vector_format])
    wanted.check(contract)
    return wanted


def write_vector(found: InferenceResponse, wanted: VectorRequest) -> api.EmbedResponse:
    """Answer Embed with the one output that was asked for."""
    model = found.model
    return fill_vector(found, api.EmbedResponse(model=model.name, version=model.version), wanted)


def fill_vector(found: InferenceResponse, message: Embedded, wanted: VectorRequest) -> Embedded:
    """Write the one output that was asked for into an answer, and its attention or hidden states."""
    message.truncated = found.prepared.truncated
    (vectors,) = found.outputs.values()
    embedding = found.model.contract.embedding
    assert embedding is not None  # noqa: S101 -- or it had not been asked for
    made = make_vectors(vectors[:1], wanted, embedding)
    write_tensor(made.values[0], message.vector)
    if made.scales is not None:
        message.vector_scale = float(made.scales[0])
    return with_further(found, message)
