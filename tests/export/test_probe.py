from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from export.errors import ProbeError, TapError
from export.probe import declare_axes, find_axes, find_longest, is_attention, run_graph
from export.traits import Feed, InputSpec, Traits
from tests.export.tapping import graph, node

Outputs = dict[str, NDArray[Any]]


def traits_of(longest: int = 64, **inputs: Any) -> Traits:
    """Inputs by name, each with its axes, float32."""
    return Traits(tuple(InputSpec(name, axes) for name, axes in inputs.items()), longest)


def test_axes_are_named_after_the_inputs_that_they_follow() -> None:
    """What stays the same is fixed; what is longer by one, or a product, has no name."""

    def run(feed: Feed) -> Outputs:
        (batch, length, _), other = feed["x"].shape, feed["y"].shape[1]
        shapes: dict[str, tuple[int, ...]] = {"state": (batch, length, 7), "longer": (batch, length + 1)}
        shapes |= {"flat": (batch * length, other), "one": ()}
        return {name: np.zeros(shape) for name, shape in shapes.items()}

    probed = find_axes(run, traits_of(x=("batch", "seq_len", 4), y=("batch", "other", 4)))
    axes, kinds = probed.axes, probed.kinds
    assert axes == {
        "state": ("batch", "seq_len", 7),
        "longer": ("batch", None),
        "flat": (None, "other"),
        "one": (),
    }
    assert kinds == {}


def test_many_axes_are_told_apart() -> None:
    """Nine of them, and one that is longer by one."""
    names = [f"axis_{place}" for place in range(9)]

    def run(feed: Feed) -> Outputs:
        return {name: feed[f"x_{name}"] for name in names} | {"longer": np.zeros(feed["x_axis_0"].shape[1] + 1)}

    axes = find_axes(run, Traits(tuple(InputSpec(f"x_{name}", ("batch", name)) for name in names))).axes
    assert axes == {name: ("batch", name) for name in names} | {"longer": ("axis_0 + 1",)}


@pytest.mark.parametrize("longest", [1, 2, 5, 8])
def test_no_run_is_longer_than_a_network_has_positions(longest: int) -> None:
    """Both runs still differ where they can."""
    seen = list[int]()

    def run(feed: Feed) -> Outputs:
        seen.append(feed["x"].shape[1])
        return {"y": feed["x"]}

    assert find_axes(run, traits_of(longest, x=("batch", "seq_len"))).axes == {"y": ("batch", "seq_len")}
    assert max(seen) <= longest
    assert len(set(seen)) == (2 if longest > 1 else 1)


@pytest.mark.parametrize("fits", [1, 2, 40, 63, 64])
def test_the_longest_row_is_found_by_running(fits: int) -> None:
    """A table of positions may have any name."""

    def run(feed: Feed) -> Outputs:
        if feed["x"].shape[1] > fits:
            raise ProbeError("too long")
        return {}

    assert find_longest(run, traits_of(64, x=("batch", "seq_len"))) == fits


def test_a_graphs_own_outputs_may_be_named_like_attention() -> None:
    """The tapped ones have numbers."""
    assert [is_attention(name) for name in ("attention.0", "attention.12", "attention.mean", "attention")] == [
        True,
        True,
        False,
        False,
    ]


def test_sizes_are_whole_units() -> None:
    """Samples of sound that make frames."""
    traits = Traits((InputSpec("x", ("batch", "samples")),), other_axes={"samples": 40}, units={"samples": 10})
    seen = list[int]()

    def run(feed: Feed) -> Outputs:
        seen.append(feed["x"].shape[1])
        return {"y": feed["x"]}

    assert find_axes(run, traits).axes == {"y": ("batch", "samples")}
    assert seen == [30, 40]


def attention_of(feed: Feed) -> Outputs:
    """Self-attention, causal attention, and two of other keys, one of which has as many by chance."""
    batch, length = feed["x"].shape[:2]
    even = np.ones((batch, 2, length, length))
    return {
        "attention.0": even,
        "attention.1": np.tril(even),
        "attention.2": np.ones((batch, 2, length, 9)),
        "attention.3": np.ones((batch, 2, length + 1, length + 2)),
    }


def test_the_kind_of_attention_is_told_from_its_weights() -> None:
    """No query of a causal one looks behind itself; a cross one has other keys than queries."""
    probed = find_axes(attention_of, traits_of(x=("batch", "seq_len")))
    axes, kinds = probed.axes, probed.kinds
    assert kinds == dict(zip(axes, ("self", "causal", "cross", "cross"), strict=True))
    assert axes["attention.2"] == ("batch", 2, "seq_len", 9)


def declared(axes: tuple[int | str | None, ...], first: int | str = "batch") -> ModelProto:
    """A graph whose attention has some axes."""
    model = graph([node("Softmax", "x", "attention.0")], {"x": [first, "n", "m", "m"]}, ["attention.0"])
    model.graph.output[0].doc_string = "my Softmax"
    declare_axes(model, {"attention.0": axes})
    return model


def test_axes_are_written_into_the_graph() -> None:
    """Unknown ones stay without a name; a batch that is fixed is one too."""
    (value,) = declared(("batch", 4, None, "m")).graph.output
    dims = [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
    assert dims == ["batch", 4, "", "m"]
    assert declared((1, 4, "m", "m"), first=1)


@pytest.mark.parametrize("axes", [(None, 4, 16, 16), (1, 4, "batch", "batch"), ("batch", 4, 2, 16, 16), ("batch", 4)])
def test_attention_whose_first_axis_is_not_the_batch_is_refused_by_name(axes: tuple[int | str | None, ...]) -> None:
    """Windows folded into the batch, and graphs without one: rows of requests would be mixed up."""
    with pytest.raises(TapError, match=r"my Softmax: its weights are \[.*\]; expected \[batch, heads, query, key\]"):
        declared(axes)


def test_a_graph_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path) -> None:
    """By the file's name, with ONNX Runtime's reason."""
    onnx.save_model(graph([node("Absent", "x", "y")], {"x": ["batch"]}, ["y"]), tmp_path / "odd.onnx")
    with pytest.raises(ProbeError, match=r"odd\.onnx: ONNX Runtime cannot load it: .*Absent"):
        run_graph(tmp_path / "odd.onnx")


def test_a_graph_that_does_not_run_says_on_what(tmp_path: Path) -> None:
    """It takes other sizes than its inputs say."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 17])
    model = graph([node("Reshape", "x shape", "y")], {"x": ["batch", "n"]}, ["y"])
    model.graph.initializer.append(shape)
    onnx.save_model(model, tmp_path / "odd.onnx")
    with pytest.raises(ProbeError, match=r"odd\.onnx: does not run on inputs of \{'x': \(2, 5\)\}: .*[Rr]eshape"):
        find_axes(run_graph(tmp_path / "odd.onnx"), traits_of(x=("batch", "n")))


def test_a_graph_gives_every_output_by_name(tmp_path: Path) -> None:
    """In the order of the graph."""
    onnx.save_model(graph([node("Relu", "x", "y"), node("Neg", "x", "z")], {"x": [2]}, ["z", "y"]), tmp_path / "a.onnx")
    got = run_graph(tmp_path / "a.onnx")({"x": np.array([-1, 1], dtype=np.float32)})
    assert {name: array.tolist() for name, array in got.items()} == {"z": [1, -1], "y": [0, 1]}
