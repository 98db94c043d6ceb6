"""Rank: documents scored by a cross-encoder, each read with the query."""

import math

from artifact.contract import Contract
from artifact.text import check_text
from regard.v1 import regard_pb2 as api
from server.api.regard_v1.messages import with_further, write_error
from server.errors import InvalidInput, NotPossible, ServerError, refusing_inputs
from server.inference.preprocess import InputLimits, check_number
from server.inference.request import InferenceResponse, ManyResponses, Texts


def read_documents(request: api.RankRequest, contract: Contract, limits: InputLimits, max_bytes: int) -> Texts:
    """Read the query and the documents, a pair each.

    Args:
        request: The caller's.
        contract: Of the model.
        limits: Of each text, and of their number.
        max_bytes: Most that is read in all, the query with each document: no more than could be sent as pairs.

    Raises:
        NotPossible: The model has no single score for a pair.
        InvalidInput: The query cannot be used, or there are too many documents, or none; or they are too long together.
    """
    if request.token_matches:
        raise NotPossible(
            f"token_matches: {contract.name} compares no token vectors; expected one with token_vector_dim"
        )
    if not contract.ranks:
        raise NotPossible(f"model: {contract.name} gives pairs of texts no single score; expected one with can_rank")
    documents = check_documents(request, limits)
    count = len(documents)
    size_bytes = count * len(request.query.encode()) + sum(len(text.encode()) for text in documents)
    if size_bytes > max_bytes:
        expected = f"at most {max_bytes} (the server's --max-message-bytes): a shorter query or fewer documents"
        raise InvalidInput("query", f"{size_bytes} bytes to read with {count} documents", expected)
    return Texts((request.query,) * count, request.truncate, second=documents, field="documents")


def check_documents(request: api.RankRequest, limits: InputLimits) -> tuple[str, ...]:
    """Check a query, how many documents there are and how many are wanted; returns the documents.

    Raises:
        InvalidInput: The query cannot be used, there are too many documents, or none, or so many cannot be wanted.
    """
    if request.top_k < 0:
        raise InvalidInput("top_k", request.top_k, "0 for all, or a positive number")
    check_number("documents", len(request.documents.items), limits.inputs)
    with refusing_inputs():
        check_text("query", request.query, limits.text_bytes)
    return tuple(request.documents.items)


def write_ranking(found: ManyResponses, answer: api.RankResponse, request: api.RankRequest) -> None:
    """Answer with the best documents, and then all that have an error."""
    scored = [(number, one) for number, one in enumerate(found.each) if isinstance(one, InferenceResponse)]
    scored.sort(key=lambda numbered: -_logit(numbered[1]))
    for number, one in scored[: request.top_k or None]:
        score = _score(_logit(one), found.model.contract, raw=request.raw_scores)
        with_further(one, answer.documents.add(index=number, score=score, truncated=one.prepared.truncated))
    answer.num_tokens = sum(one.prepared.num_tokens for _, one in scored)
    failed = [(number, one) for number, one in enumerate(found.each) if isinstance(one, ServerError)]
    for number, error in failed:
        write_error(error, f"documents[{number}]", answer.documents.add(index=number).error)


def _logit(found: InferenceResponse) -> float:
    return float(found.outputs["logits"][0, 0])


def _score(logit: float, contract: Contract, *, raw: bool) -> float:
    """Make a score of a logit; sigmoid is what the sentence-transformers library takes where a model does not say."""
    return logit if raw or contract.activation == "identity" else (1 + math.tanh(logit / 2)) / 2
