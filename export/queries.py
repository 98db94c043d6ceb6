"""Gives the attention of some queries instead of all, so that long inputs can be compared: in graphs, and in torch."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from export.probe import is_attention

QUERIES = 16  # evenly over the length, the first and the last included


def choose_queries(length: int) -> list[int]:
    """Places of the queries of which attention is compared."""
    return [(length - 1) * place // (QUERIES - 1) for place in range(QUERIES)]


def keep_some_queries(tapped: ModelProto) -> None:
    """Make every attention output [B, H, QUERIES, K] instead of [B, H, Q, K]; changes the graph.

    ONNX Runtime makes first what the last nodes of a graph without takers need. With the first layer's queries last,
    each layer's whole weights are freed before those of the next are made.
    """
    names = [value.name for value in tapped.graph.output if is_attention(value.name)]
    for node in tapped.graph.node:
        node.output[:] = [_whole(name) if name in names else name for name in node.output]
        node.input[:] = [_whole(name) if name in names else name for name in node.input]
    for name in reversed(names):
        tapped.graph.node.extend(_pick(name))
    for value in tapped.graph.output:
        if value.name in names:
            value.type.tensor_type.shape.dim[2].Clear()
    for name, content in (("axis", [2]), ("one", [1]), ("places", range(QUERIES)), ("last", [QUERIES - 1])):
        tensor = numpy_helper.from_array(np.array(content, dtype=np.int64), f"queries.{name}")
        tapped.graph.initializer.append(tensor)


def _whole(name: str) -> str:
    return f"{name}.whole"


def _pick(name: str) -> Iterator[NodeProto]:
    """Yield the nodes that take the queries of one layer, by choose_queries."""
    steps = [
        ("Shape", [_whole(name)], "sizes"),
        ("Gather", [f"{name}.sizes", "queries.axis"], "length"),
        ("Sub", [f"{name}.length", "queries.one"], "end"),
        ("Mul", [f"{name}.end", "queries.places"], "products"),
        ("Div", [f"{name}.products", "queries.last"], "queries"),
    ]
    for op_type, inputs, output in steps:
        yield helper.make_node(op_type, inputs, [f"{name}.{output}"], name=f"{name}.{output}")
    yield helper.make_node("Gather", [_whole(name), f"{name}.queries"], [name], name=f"{name}.some", axis=2)


@contextmanager
def told_of_some_queries() -> Iterator[list[Tensor]]:
    """Collect the weights of some queries, each float [B, H, QUERIES, K], of all fused attention torch does meanwhile.

    The attention itself is left to torch.
    """
    weights, own = list[Tensor](), functional.scaled_dot_product_attention

    def tell(*given: Any, **named: Any) -> Tensor:
        weights.append(weigh_some_queries(*given, **named))
        return own(*given, **named)

    _replace(tell)
    try:
        yield weights
    finally:
        _replace(own)


def _replace(function: Callable[..., Tensor]) -> None:
    functional.scaled_dot_product_attention = function


def weigh_some_queries(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute what torch.nn.functional.scaled_dot_product_attention weighs values with, for some queries.

    Args: as that function's.

    Returns:
        Float [B, H, QUERIES, K].
    """
    places = torch.tensor(choose_queries(query.shape[-2]))
    keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1) if enable_gqa else key
    scores = query[..., places, :] @ keys.transpose(-2, -1)
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)  # [B, H, QUERIES, K]
    if is_causal:
        seen = torch.arange(key.shape[-2])[None] <= places[:, None]
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        mask = attn_mask[..., places, :] if attn_mask.shape[-2] > 1 else attn_mask
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(dim=-1)
