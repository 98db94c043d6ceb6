"""Relevance in the messages of regard.v1: what is to be explained, and what is sent."""

import numpy as np

from regard.v1 import types_pb2 as pb
from server.api.regard_v1.describe import describe_positions
from server.api.regard_v1.tensors import write_tensor
from server.inference.request import InferenceResponse
from server.relevance.plan import RelevancePlan
from server.relevance.request import RelevanceRequest


def read_relevance(message: pb.RelevanceRequest) -> RelevanceRequest:
    """Read what is to be explained."""
    return RelevanceRequest(message.label, message.against, message.drop_special)


def write_relevance(plan: RelevancePlan, found: InferenceResponse, message: pb.Relevance) -> None:
    """Write why the only row of an answer has its score."""
    (why,) = found.relevance()
    labels = found.model.contract.labels
    message.MergeFrom(pb.Relevance(**describe_positions(found)))
    message.index, message.label = why.label, labels[why.label]
    message.against = "" if why.against is None else labels[why.against]
    message.score, message.unsent, message.rest = why.score, why.unsent, why.rest
    message.error, message.relative_error = why.error, why.relative_error
    message.positions.extend(plan.positions or ())
    write_tensor(np.ascontiguousarray(why.values), message.values)
