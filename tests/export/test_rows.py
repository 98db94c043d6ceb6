"""A row's answer must not depend on the rows beside it: the server batches requests that know nothing of each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from artifact.dtypes import Array
from export.build import build
from export.errors import VerificationError
from export.graph_source import load_graph
from tests.export.networks import Images, Texts, spread, write_images, write_texts
from tests.export.tapping import node


def after_the_patches(model: ModelProto, nodes: Sequence[NodeProto], weights: dict[str, Array]) -> ModelProto:
    """Change what enters the first layer of an image graph from "before" to "after"."""
    first = next(one for one in model.graph.node if one.op_type == "MatMul")
    place = list(model.graph.node).index(first)
    made = [*nodes]
    for one in made:
        one.input[:] = [first.input[0] if name == "before" else name for name in one.input]
    first.input[0] = "after"
    for offset, one in enumerate(made):
        model.graph.node.insert(place + offset, one)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


MEAN = [node("ReduceMean", "before", "mean", axes=[0], keepdims=1), node("Sub", "before mean", "after")]
SCALE = [node("ReduceMax", "before", "most", keepdims=1), node("Div", "before most", "after")]
REVERSED = [node("Slice", "before start end axis step", "after")]
PLACES: dict[str, Array] = {
    "start": np.array([-1]),
    "end": np.array([-(2**31)]),
    "axis": np.array([0]),
    "step": np.array([-1]),
}
SUMS = [node("CumSum", "before place", "after")]


@pytest.mark.parametrize(
    ("nodes", "weights", "culprit"),
    [
        (MEAN, {}, r"my ReduceMean \(ReduceMean\)"),
        (SCALE, {}, r"my ReduceMax \(ReduceMax\)"),
        (REVERSED, PLACES, r"my Slice \(Slice\)"),
        (SUMS, {"place": np.array(0)}, r"my CumSum \(CumSum\)"),
    ],
    ids=["less the batch's mean", "a scale of the batch", "rows turned round", "sums of rows"],
)
def test_images_whose_rows_depend_on_each_other_are_refused(
    nodes: list[NodeProto], weights: dict[str, Array], culprit: str, out: Path, tmp_path: Path
) -> None:
    """With the node that mixes them; the same image had another answer beside other callers."""
    model = after_the_patches(write_images(spread(Images())), nodes, weights)
    onnx.save_model(model, tmp_path / "odd.onnx")
    said = rf"rows of a batch depend on each other, first at {culprit}:\n(.*\n)*  attention\.0: row alone: "
    with pytest.raises(VerificationError, match=said):
        build(load_graph(tmp_path / "odd.onnx"), out)
    assert not list(out.rglob("*.onnx"))


def test_texts_whose_rows_depend_on_each_other_are_refused(out: Path, tmp_path: Path) -> None:
    """Padding does not hide it."""
    model = after_the_patches(write_texts(spread(Texts())), MEAN, {})
    onnx.save_model(model, tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match=r"depend on each other, first at my ReduceMean \(ReduceMean\)"):
        build(load_graph(tmp_path / "odd.onnx"), out)


def test_padding_that_is_seen_is_not_taken_for_rows_that_mix(out: Path, tmp_path: Path) -> None:
    """Rows of one length are then the same alone: the message names no node."""
    model = write_texts(spread(Texts()))
    for place, one in enumerate(model.graph.node):
        if one.op_type == "Where":
            one.CopyFrom(helper.make_node("Identity", [one.input[2]], [one.output[0]], name=f"unmasked {place}"))
    onnx.save_model(model, tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match=r"the export differs from the network:\n  .*row alone"):
        build(load_graph(tmp_path / "odd.onnx"), out)


def test_rows_that_are_told_apart_by_no_axis_are_served_as_one(out: Path, tmp_path: Path) -> None:
    """An output without the batch's axis makes every request a run of its own."""
    model = write_images(spread(Images()))
    model.graph.node.append(node("ReduceMean", "logits", "mean", axes=[0], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, [3]))
    onnx.save_model(model, tmp_path / "odd.onnx")
    assert not build(load_graph(tmp_path / "odd.onnx"), out).contract.batched
