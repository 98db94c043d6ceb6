"""Graphs of a decoder's step that are wrong, each in a way of its own: every one is refused."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, NodeProto, helper, numpy_helper

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH
from export.encoder_decoder import Writing
from export.errors import VerificationError
from export.traits import Traits
from export.verify_steps import verify_steps
from tests.export.encoder_decoders import write_checkpoint, write_graphs

Graphs = tuple[Writing, Traits, Path]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """What is right."""
    folder = tmp_path_factory.mktemp("steps")
    return *write_graphs(write_checkpoint(folder / "network"), folder / "graphs"), folder / "graphs"


@pytest.fixture
def copied(graphs: Graphs, tmp_path: Path) -> Iterator[Graphs]:
    """A copy to make wrong."""
    shutil.copytree(graphs[2], tmp_path / "graphs")
    yield graphs[0], graphs[1], tmp_path / "graphs"


def nodes(graph: GraphProto, kind: str) -> list[NodeProto]:
    """Those of a kind, in their order."""
    return [node for node in graph.node if node.op_type == kind]


def read_all_keys(graph: GraphProto) -> None:
    """Attend to what lies behind a row's length, too."""
    nodes(graph, "Attention")[0].input.pop()


def take_one_row_for_all(graph: GraphProto) -> None:
    """Write every row where the first one is."""
    first, zero = (
        helper.make_node("Gather", ["lengths", "zero"], ["first"]),
        numpy_helper.from_array(np.array([0]), "zero"),
    )
    same = helper.make_node("Expand", ["first", "rows"], ["same"])
    graph.initializer.append(zero)
    shape = helper.make_node("Shape", ["lengths"], ["rows"])
    for node in nodes(graph, "TensorScatter"):
        node.input[2] = "same"
    for place, node in enumerate((shape, first, same)):
        graph.node.insert(place, node)


def give_other_queries(graph: GraphProto) -> None:
    """Give one layer's queries in place of another's: the logits are right, the weights are not."""
    rename = {"self_query.0": "self_query.1", "self_query.1": "self_query.0"}
    for node in graph.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]


def give_other_cross_queries(graph: GraphProto) -> None:
    """Give queries before they are scaled otherwise: twice as large."""
    (maker,) = (node for node in graph.node if "cross_query.1" in node.output)
    for node in graph.node:
        node.input[:] = ["half" if name == "cross_query.1" else name for name in node.input]
    maker.output[:] = ["half"]
    graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), "two"))
    graph.node.append(helper.make_node("Mul", ["half", "two"], ["cross_query.1"]))


def mix_rows(graph: GraphProto) -> None:
    """Add to each row's logits what the batch has on average."""
    for node in graph.node:
        node.output[:] = ["own" if name == "logits" else name for name in node.output]
    axes = numpy_helper.from_array(np.array([0]), "axes")
    graph.initializer.append(axes)
    graph.node.append(helper.make_node("ReduceMean", ["own", "axes"], ["mean"]))
    graph.node.append(helper.make_node("Add", ["own", "mean"], ["logits"]))


WRONG: list[tuple[Callable[[GraphProto], None], str]] = [
    (read_all_keys, r"decoder\.logits: against torch"),
    (take_one_row_for_all, r"decoder\.self\.0: against torch"),
    (give_other_queries, r"decoder\.self\.0: against torch"),
    (give_other_cross_queries, r"decoder\.cross\.1: against torch"),
    (mix_rows, r"decoder\.logits: row alone"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[change.__name__ for change, _ in WRONG])
def test_a_wrong_step_is_refused(change: Callable[[GraphProto], None], message: str, copied: Graphs) -> None:
    """The error names what differs, and from what."""
    _edit(copied[2] / DECODER_GRAPH, change)
    with pytest.raises(VerificationError, match=message):
        verify_steps(*copied)


def test_a_wrong_lowered_form_is_refused(copied: Graphs) -> None:
    """Though the other one is right."""

    def read_all(graph: GraphProto) -> None:
        for node in nodes(graph, "Less"):
            node.op_type = "GreaterOrEqual"

    _edit(copied[2] / LOWERED_DECODER_GRAPH, read_all)
    with pytest.raises(VerificationError, match=r"decoder\.logits: lowered form"):
        verify_steps(*copied)


def test_a_network_that_writes_whole_sequences_otherwise_is_refused(copied: Graphs) -> None:
    """The step is held to both: to one step in torch, and to what torch does without caches."""
    writing, traits, folder = copied
    other = replace(writing, explain=lambda *given: (writing.explain(*given)[0] * 1.01, *writing.explain(*given)[1:]))
    with pytest.raises(VerificationError, match=r"decoder\.logits: against torch") as caught:
        verify_steps(other, traits, folder)
    assert "one step in torch" not in str(caught.value)


def test_a_step_that_does_not_run_is_refused(copied: Graphs) -> None:
    """With ONNX Runtime's reason."""

    def cut_caches(graph: GraphProto) -> None:
        for value in graph.input:
            if value.name == "self_key.0":
                value.type.tensor_type.shape.dim[2].Clear()
                value.type.tensor_type.shape.dim[2].dim_value = 3

    _edit(copied[2] / DECODER_GRAPH, cut_caches)
    with pytest.raises(VerificationError, match="does not run on inputs of"):
        verify_steps(*copied)


def _edit(file: Path, change: Callable[[GraphProto], None]) -> None:
    model = onnx.load(file, load_external_data=False)
    change(model.graph)
    onnx.save_model(model, file)
