"""MaxSim, and which positions of a text have a vector in an answer."""

import numpy as np

from artifact.contract import LateContract
from artifact.late_interaction import kept_positions
from artifact.text import Tokens
from server.inference.late_interaction import align

LATE = LateContract(output="token_vectors", dim=2, query_tokens=8, document_tokens=9, skipped=(7, 9))


def test_each_token_of_a_query_finds_the_most_similar_of_a_document() -> None:
    """Of equally similar ones the first; their sum is the score."""
    query = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    document = np.array([[0.8, 0.6], [0, 1], [0, 1]], np.float32)
    aligned = align(query, document)
    assert aligned.found.tolist() == [0, 1, 0]
    np.testing.assert_allclose(aligned.similarities, [0.8, 1, 0.96])
    assert abs(aligned.score - 2.76) < 1e-6


def test_skipped_tokens_are_left_out_of_documents_alone() -> None:
    """A query keeps all."""
    tokens = Tokens(np.array([1, 7, 5, 9, 9, 2]), [], [], [], truncated=False)
    assert kept_positions(tokens, LATE, query=False) == [0, 2, 5]
    assert kept_positions(tokens, LATE, query=True) == list(range(6))
