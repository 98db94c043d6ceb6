"""Embed and Rank of models of late interaction: a vector a token, and MaxSim."""

from artifact.contract import Contract
from regard.v1 import regard_pb2 as api
from server.api.regard_v1.describe import describe_tokens
from server.api.regard_v1.messages import with_further, write_error
from server.api.regard_v1.ranking import check_documents
from server.api.regard_v1.tensors import write_tensor
from server.errors import InvalidInput, ServerError
from server.inference.late_interaction import Aligned, Spoken, align, take_vectors
from server.inference.preprocess import InputLimits
from server.inference.request import InferenceResponse, ManyResponses, Texts

_TOKEN_BYTES = 64  # of matches in a message, generously: a token, what it found, and the document's tokens


def read_role(role: int) -> bool:
    """Read whether texts are queries.

    Raises:
        InvalidInput: There is no such role.
    """
    if role not in api.TextRole.values():
        raise InvalidInput("role", role, "one of the values of TextRole")
    return role == api.TEXT_ROLE_QUERY


def fill_vectors(found: InferenceResponse, message: api.TokenVectors, *, query: bool) -> None:
    """Write a text's vectors."""
    spoken = take_vectors(found, query=query)
    write_tensor(spoken.vectors, message.vectors)
    message.tokens.CopyFrom(describe_tokens(spoken.tokens()))


def read_late_documents(request: api.RankRequest, contract: Contract, limits: InputLimits, max_bytes: int) -> Texts:
    """Read a query and documents, each by itself.

    Raises:
        InvalidInput: The query cannot be used; or there are too many documents, or none; or matches are too large.
    """
    assert contract.late is not None  # noqa: S101 -- or they are pairs
    documents = check_documents(request, limits)
    sent = min(request.top_k or len(documents), len(documents))
    size_bytes = sent * _TOKEN_BYTES * (contract.late.query_tokens + contract.late.document_tokens)
    if request.token_matches and size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): fewer documents or a smaller top_k"
        raise InvalidInput("token_matches", f"up to {size_bytes} bytes of {sent} documents", expected)
    return Texts((request.query, *documents), request.truncate, field="documents", queries=1)


def write_late_ranking(found: ManyResponses, answer: api.RankResponse, request: api.RankRequest) -> None:
    """Answer with the best documents, and then all that have an error.

    Raises:
        ServerError: Of the query.
    """
    first, *rest = found.each
    if isinstance(first, ServerError):
        raise first
    query = take_vectors(first, query=True)
    scored = list[tuple[int, InferenceResponse, Spoken, Aligned]]()
    failed = dict[int, ServerError]()
    for number, one in enumerate(rest):
        try:
            if isinstance(one, ServerError):
                raise one
            document = take_vectors(one, query=False)
        except ServerError as error:
            failed[number] = found.each[number + 1] = error
            continue
        scored.append((number, one, document, align(query.vectors, document.vectors)))
    scored.sort(key=lambda each: -each[3].score)
    if request.token_matches:
        answer.query_tokens.CopyFrom(describe_tokens(query.tokens()))
    for number, one, document, aligned in scored[: request.top_k or None]:
        message = answer.documents.add(index=number, score=aligned.score, truncated=one.prepared.truncated)
        if request.token_matches:
            message.token_matches.found.extend(aligned.found.tolist())
            message.token_matches.similarities.extend(aligned.similarities.tolist())
            message.token_matches.document_tokens.CopyFrom(describe_tokens(document.tokens()))
        with_further(one, message)
    answer.num_tokens = sum(one.prepared.num_tokens for one in (first, *(each[1] for each in scored)))
    for number, fault in failed.items():
        write_error(fault, f"documents[{number}]", answer.documents.add(index=number).error)
