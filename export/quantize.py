"""Turns a float32 graph into one whose matrix products compute in 8-bit integers.

ONNX Runtime's quantiser does the rewriting: fixed scales, found by calibration, so that an answer does not depend on
who shares its batch (scales computed on the fly, over the whole batch, would make it so).
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export.session import open_session
from export.traits import Feed

Array = NDArray[np.float32]

_PRODUCTS = ("MatMul", "Gemm")
# How much of the activations' outliers moves into the weights: SmoothQuant's migration strength (Xiao et al. 2023,
# equation 4). MiniLM, all products quantised: 0 gives a mean cosine of 0.989, 0.65 gives 0.995.
_MIGRATION = 0.65
_ROWS_KEPT = 512
_SEED = 0


@dataclass(frozen=True, eq=False)
class _Observed:
    """What goes into a product: the largest magnitude of each column, float32 [D], and some rows, float32 [R, D]."""

    largest: Array
    rows: Array


class Quantizer:
    """A graph that was smoothed once and can be quantised leaving out more or fewer of its products."""

    def __init__(self, graph: ModelProto, feeds: Sequence[Feed]) -> None:
        """Observe a graph.

        Args:
            graph: In float32, its weights inside. It is not changed.
            feeds: Real inputs.
        """
        self._feeds = feeds
        self._graph = _without_notes_on_weights(graph)
        observed = _observe(self._graph, feeds)
        scales = _smooth(self._graph, observed)
        weights = _weights(self._graph)
        errors = {
            node.name: _error(observed[name].rows / scales[name], _matrix(node, weights))
            for name, node in ((_smoothed_from(node), node) for node in _products(self._graph))
        }
        self._by_error = sorted(errors, key=lambda name: errors[name], reverse=True)

    @property
    def products(self) -> int:
        """How many matrix products could be quantised."""
        return len(self._by_error)

    def quantize(self, left_out: int) -> ModelProto:
        """Return the graph in int8 but for the products that suffer most.

        Args:
            left_out: How many stay in float32.
        """
        with tempfile.TemporaryDirectory() as folder, _quiet():
            source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            onnx.save_model(self._graph, source)  # given the graph itself, the quantiser would move its weights out
            quantize_static(
                source,
                target,
                _Reader(self._feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_PRODUCTS),
                nodes_to_exclude=self._by_error[:left_out],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,  # 7 bits: on CPUs without VNNI, sums of pairs of 8-bit products saturate
                # What leaves a product stays float32: in 8 bits it cost MiniLM a mean cosine of 0.06.
                extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": list(_PRODUCTS)},
            )
            return onnx.load(target)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the quantiser its inputs one by one."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser's advice to preprocess the graph, which torch's exporter has optimised already."""

    def is_worse(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logger = logging.getLogger()
    logger.addFilter(is_worse)
    try:
        yield
    finally:
        logger.removeFilter(is_worse)


def _without_notes_on_weights(graph: ModelProto) -> ModelProto:
    """Copy a graph without the declared shapes of its weights: the quantiser transposes some and then stumbles."""
    copy = ModelProto()
    copy.CopyFrom(graph)
    weights = {tensor.name for tensor in graph.graph.initializer}
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(value for value in graph.graph.value_info if value.name not in weights)
    return copy


def _weights(graph: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.graph.initializer}


def _products(graph: ModelProto) -> Iterator[NodeProto]:
    """Yield the matrix products with a weight."""
    weights = _weights(graph)
    for node in graph.graph.node:
        if node.op_type in _PRODUCTS and node.input[1] in weights and len(weights[node.input[1]].dims) == 2:
            yield node


def _is_transposed(node: NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _matrix(node: NodeProto, weights: dict[str, TensorProto]) -> Array:
    """Return a product's weight, float32 [D in, D out]."""
    matrix = numpy_helper.to_array(weights[node.input[1]])
    return matrix.T if _is_transposed(node) else matrix


def _observe(graph: ModelProto, feeds: Sequence[Feed]) -> dict[str, _Observed]:
    """Run the graph and keep what goes into its products, by name."""
    names = sorted({node.input[0] for node in _products(graph)})
    tapped = ModelProto()
    tapped.CopyFrom(graph)
    known = {value.name for value in graph.graph.output}
    tapped.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )
    session = open_session(tapped.SerializeToString())
    random = np.random.default_rng(_SEED)
    rows_each = max(1, _ROWS_KEPT // len(feeds))
    largest: dict[str, Array] = {}
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for feed in feeds:
        for name, value in zip(names, session.run(names, feed), strict=True):
            flat = value.reshape(-1, value.shape[-1])
            largest[name] = np.maximum(largest.get(name, np.float32(0)), np.abs(flat).max(axis=0))
            rows[name].append(flat[random.permutation(len(flat))[:rows_each]])
    return {name: _Observed(largest[name], np.concatenate(rows[name])) for name in names}


def _smooth(graph: ModelProto, observed: dict[str, _Observed]) -> dict[str, Array]:
    """Divide what goes into products by a scale a column, and multiply their weights by it; changes the graph.

    Returns:
        The scales by the name of what is divided, float32 [D].
    """
    weights = _weights(graph)
    consumers: dict[str, list[NodeProto]] = {}
    for node in _products(graph):
        consumers.setdefault(node.input[0], []).append(node)
    scales, divisions = {}, {}
    for name, nodes in consumers.items():
        columns = np.max([np.abs(_matrix(node, weights)).max(axis=1) for node in nodes], axis=0)
        scales[name] = scale = _scale(observed[name].largest, columns)
        graph.graph.initializer.append(numpy_helper.from_array(1 / scale, f"{name}.inverse_scale"))
        operands = [name, f"{name}.inverse_scale"]
        divisions[nodes[0].name] = helper.make_node("Mul", operands, [f"{name}{_SMOOTHED}"], name=f"{name}/smooth")
        for node in nodes:
            matrix = _matrix(node, weights) * scale[:, None]
            matrix = np.ascontiguousarray(matrix.T if _is_transposed(node) else matrix)
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(matrix, node.input[1]))
            node.input[0] = f"{name}{_SMOOTHED}"
    ordered = []
    for node in graph.graph.node:
        ordered += [divisions[node.name], node] if node.name in divisions else [node]
    ordered = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.graph.node[:]
    graph.graph.node.extend(ordered)
    return scales


_SMOOTHED = ".smoothed"


def _smoothed_from(node: NodeProto) -> str:
    return node.input[0].removesuffix(_SMOOTHED)


def _scale(activations: Array, columns: Array) -> Array:
    """Balance the largest magnitudes of activations and weights, each float32 [D]; 1 on the geometric mean."""
    smallest = np.float32(1e-5)
    scale = np.maximum(activations, smallest) ** _MIGRATION / np.maximum(columns, smallest) ** (1 - _MIGRATION)
    scale /= np.exp(np.log(scale).mean())
    return np.clip(scale, 1e-4, 1e4).astype(np.float32)


def _error(rows: Array, matrix: Array) -> float:
    """Estimate a product's mean relative error in 8 bits: rows float32 [R, D in], matrix float32 [D in, D out]."""
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), 0.0)
    step = max((high - low) / 255, 1e-12)
    zero = np.round(-low / step)
    rounded_rows = (np.clip(np.round(rows / step) + zero, 0, 255) - zero) * step
    steps = np.maximum(np.abs(matrix).max(axis=0), 1e-12) / 127
    exact = rows @ matrix
    difference = rounded_rows @ (np.round(matrix / steps) * steps) - exact
    norms = np.maximum(np.linalg.norm(exact, axis=1), 1e-12)
    return float((np.linalg.norm(difference, axis=1) / norms).mean())
