"""Classify with the caller's own labels, in the messages of regard.v1."""

from regard.v1 import regard_pb2 as api
from server.api.regard_v1.messages import Classified, with_further
from server.inference.request import InferenceResponse
from server.inference.zero_shot import Candidates, LabelRequest, best, score
from server.repository.loading import LoadedModel


def wants_candidates(request: api.ClassifyRequest, model: LoadedModel) -> bool:
    """Whether the labels are the caller's own."""
    return model.towers is not None or bool(request.candidate_labels or request.label_template)


def read_candidates(request: api.ClassifyRequest) -> LabelRequest:
    """Read the labels that a caller brings."""
    names, brings = tuple(request.candidate_labels), request.WhichOneof("input") or ""
    return LabelRequest(names, request.label_template, request.truncate, brings)


def fill_candidates(found: InferenceResponse, message: Classified, candidates: Candidates, count: int) -> Classified:
    """Write so many of the labels into an answer, and its attention or hidden states."""
    (vectors,) = found.outputs.values()
    scores = score(vectors[0], candidates)
    message.labels.extend(
        api.Label(index=index, name=candidates.names[index], probability=float(scores[index]))
        for index in best(scores, count)
    )
    return with_further(found, message)
