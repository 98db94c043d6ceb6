"""Lowered attention gives zeros for queries that see no key, where there may be some."""

from pathlib import Path

import pytest

from tests.export.relevance.test_networks import image_network, lowered_graph, text_network


@pytest.mark.parametrize("is_text", [True, False])
def test_rows_are_tested_for_being_empty_where_keys_may_be_hidden(is_text: bool, tmp_path: Path) -> None:
    """By a text's padding; an image has none, and its graph no test of all weights."""
    network = text_network("norms before, class token") if is_text else image_network()
    graph = lowered_graph(network, tmp_path, None if is_text else 12)
    assert any(node.output[0].endswith(".seen") for node in graph.graph.node) == is_text
