"""Align in the messages of regard.v1: which patch of an image answers to which token of a text."""

from regard.v1 import regard_pb2 as api
from server.api.regard_v1.describe import describe_patches, describe_tokens
from server.api.regard_v1.tensors import write_tensor
from server.inference.alignment import SimilarityMap
from server.repository.loading import LoadedModel


def write_map(found: SimilarityMap, model: LoadedModel) -> api.AlignResponse:
    """Answer with the cosines of an image's patches and a text's tokens."""
    answer = api.AlignResponse(model=model.name, version=model.version, truncated=found.tokens.truncated)
    answer.map.tokens.CopyFrom(describe_tokens(found.tokens))
    answer.map.patches.CopyFrom(describe_patches(found.patches, found.pixels))
    write_tensor(found.similarities, answer.map.similarities)
    write_tensor(found.text_similarities, answer.map.text_similarities)
    answer.map.similarity = found.similarity
    return answer
