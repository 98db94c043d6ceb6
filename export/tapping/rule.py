"""What the rules of tapping have in common: one attention that was found in a graph."""

from dataclasses import dataclass

from onnx import NodeProto


@dataclass(frozen=True, eq=False)
class Found:
    """One attention whose weights are now a value of the graph.

    Attributes:
        node: What computes it, or its softmax; names it in messages and says where in the graph it stands.
        weights: The value that multiplies the values: softmax(Q K^T / sqrt(d)), float [B, H, Q, K].
        values: What is weighed, float [B, H or fewer, K, d]; empty where the graph does not show it so.
        attended: The weighted values on their way to the output projection, [B, H, Q, d] or [B, Q, H * d].
        mixes_heads: Whether the weights are sums over heads of what a softmax gave: rows then need not sum to 1.
    """

    node: NodeProto
    weights: str
    values: str = ""
    attended: str = ""
    mixes_heads: bool = False
