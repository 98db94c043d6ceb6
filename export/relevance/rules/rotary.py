"""Rotary positions: pairs (a, b) of a head's numbers are turned by their position's angle, (a c - b s, a s + b c).

Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", equation 34. A rotation's gradient is
turned back: the same with -s. What is beyond rotary_embedding_dim passes.
"""

from collections.abc import Sequence

from onnx import NodeProto, helper

from export.relevance.reverse import Reverse


def _rotary(reverse: Reverse, node: NodeProto, given: Sequence[str]) -> None:
    value, cosine, sine, *positions = node.input
    options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    back = [given[0], cosine, reverse.add("Neg", [sine]), *positions]
    reverse.give(value, reverse.add("RotaryEmbedding", back, **options))


ROTARY = {"RotaryEmbedding": _rotary}
