import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from export.graph_source import load_graph
from export.known import load_source
from export.onnx_file import fix_image_size, read_graph, read_traits
from model.checkpoint import CheckpointError
from tests.export.networks import (
    POSITIONS,
    VOCABULARY,
    Images,
    Texts,
    spread,
    write_images,
    write_texts,
)
from tests.export.tapping import MICROSOFT, graph, node, numbers, run
from tests.golden import GOLDEN_NETWORK

Save = Callable[[ModelProto], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a graph to a file."""

    def saving(model: ModelProto) -> Path:
        onnx.save_model(model, tmp_path / "file.onnx")
        return tmp_path / "file.onnx"

    return saving


@pytest.fixture(scope="module")
def texts() -> ModelProto:
    """The network on texts."""
    return write_texts(spread(Texts()))


@pytest.fixture(scope="module")
def images() -> ModelProto:
    """The network on images."""
    return write_images(spread(Images()))


def with_axes(**inputs: Any) -> ModelProto:
    """A graph with inputs of some axes, which it gives back."""
    nodes = [node("Identity", name, f"{name}.out") for name in inputs]
    return graph(nodes, inputs, [])


def axes_of(model: ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Axes of the inputs by name."""
    return {spec.name: spec.axes for spec in read_traits(model).inputs}


def test_segment_ids_become_zeros(texts: ModelProto, save: Save) -> None:
    """As a tokenizer gives them for a single text, so that texts need only ids and a mask."""
    read = read_graph(save(texts))
    assert [value.name for value in read.graph.input] == ["input_ids", "attention_mask"]
    ids = np.arange(10).reshape(2, 5)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    expected, got = run(texts, feed | {"token_type_ids": np.zeros_like(ids)}), run(read, feed)
    for name, array in expected.items():
        assert np.array_equal(got[name], array)


def test_an_old_file_that_lists_its_weights_as_inputs_is_read(save: Save) -> None:
    """Of IR version 3; only what is fed is an input then."""
    model = graph([node("MatMul", "x w", "y")], {"x": ["n", 4], "w": [4, 2]}, ["y"], {"w": numbers(4, 2)}, opset=9)
    model.ir_version = 3
    del model.opset_import[1:]
    read = read_graph(save(model))
    assert axes_of(read) == {"x": ("batch", 4)}
    x = numbers(3, 4)
    assert np.array_equal(run(read, {"x": x})["y"], run(model, {"x": x})["y"])


def test_functions_of_a_file_are_written_out(save: Save) -> None:
    """So that rules see what is in them."""
    body = [node("Softmax", "a", "b", axis=-1)]
    model = graph([node("Inner", "x", "y", "own")], {"x": ["n", 4]}, ["y"])
    opsets = [helper.make_opsetid("", 23)]
    model.functions.append(helper.make_function("own", "Inner", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    assert [one.op_type for one in read_graph(save(model)).graph.node] == ["Softmax"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (
            {"ids": ("int64", ["b", "s"]), "mask": ("int64", ["b", "s"])},
            {"ids": ("batch", "seq_len"), "mask": ("batch", "seq_len")},
        ),
        (
            {"ids": ("int64", [None, None]), "a_mask": ("int64", [None, None])},
            {"ids": ("batch", "seq_len"), "a_mask": ("batch", "seq_len")},
        ),
        ({"ids": ("int64", ["b", "seq_len"])}, {"ids": ("batch", "seq_len_of_graph")}),
        ({"x": ["seq", "batch", 8]}, {"x": ("batch", "batch_of_graph", 8)}),
        ({"x": [None, None, 8]}, {"x": ("batch", "x_1", 8)}),
        ({"x": [1, 3, 8, 8]}, {"x": (1, 3, 8, 8)}),
        ({"x": ["texts", 8], "y": ["images", 8]}, {"x": ("texts", 8), "y": ("images", 8)}),
        (
            {"ids": ("int64", ["b", "s"]), "mask": ("int64", ["b", "s"]), "target": ("int64", ["b", "t"])},
            {"ids": ("batch", "seq_len"), "mask": ("batch", "seq_len"), "target": ("batch", "t")},
        ),
    ],
)
def test_axes_are_named_as_in_contracts(inputs: dict[str, Any], expected: dict[str, Any], save: Save) -> None:
    """The first is the batch; the sequence is what has a mask, since the server pads it. Others keep their names."""
    assert axes_of(read_graph(save(with_axes(**inputs)))) == expected


def test_bounds_are_the_rows_of_tables(texts: ModelProto, save: Save) -> None:
    """Ids beyond the vocabulary would fail a whole batch, longer texts have no positions."""
    traits = read_traits(read_graph(save(texts)))
    assert [(spec.name, spec.bound, spec.mask) for spec in traits.inputs] == [
        ("input_ids", VOCABULARY, False),
        ("attention_mask", 2, True),
    ]
    assert traits.longest == POSITIONS
    assert traits.embedding
    assert (traits.embedding.output, traits.embedding.dim) == ("sentence_embedding", 16)


def test_positions_counted_from_two_leave_two_fewer(save: Save) -> None:
    """As RoBERTa counts them, over real tokens: its table of 514 rows is for 512."""
    nodes = [
        node("CumSum", "mask one", "c"),
        node("Mul", "c mask", "m"),
        node("Add", "m one", "p"),
        node("Gather", "embeddings.position_embeddings.weight p", "y"),
    ]
    weights = {"one": np.array(1), "embeddings.position_embeddings.weight": numbers(20, 4)}
    model = graph(nodes, {"mask": ("int64", ["b", "s"])}, ["y"], weights)
    assert read_traits(read_graph(save(model))).longest == 18


def test_bounds_are_found_in_fused_embeddings_too(save: Save) -> None:
    """Of ONNX Runtime, behind a cast."""
    nodes = [
        node("Cast", "input_ids", "i", to=onnx.TensorProto.INT32),
        node("EmbedLayerNormalization", "i - w p - g b", "y masks", MICROSOFT),
    ]
    weights = {"w": numbers(30, 4), "p": numbers(9, 4), "g": numbers(4), "b": numbers(4)}
    model = graph(nodes, {"input_ids": ("int64", ["b", "s"])}, ["y"], weights, opset=14)
    assert read_traits(read_graph(save(model))).inputs[0].bound == 30


def test_weights_beside_the_file_are_read(images: ModelProto, tmp_path: Path) -> None:
    """And where they are missing, that is what is said."""
    pixels = {"pixel_values": numbers(2, 3, 32, 32)}
    expected = run(images, pixels)["logits"]
    model = onnx.ModelProto()
    model.CopyFrom(images)
    onnx.save_model(model, tmp_path / "file.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert np.array_equal(run(read_graph(tmp_path / "file.onnx"), pixels)["logits"], expected)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(CheckpointError, match=r"file\.onnx: cannot be read as an ONNX file: .*w\.bin"):
        read_graph(tmp_path / "file.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no graph at all", "cannot be read as an ONNX file"),
        (b"", "cannot be read as an ONNX file: it has no nodes"),
        (graph([node("Constant", "", "y", value_float=1.0)], {}, ["y"]).SerializeToString(), "has no inputs"),
    ],
)
def test_what_is_no_graph_is_refused_by_the_files_name(content: bytes, message: str, tmp_path: Path) -> None:
    """Garbage, nothing, and a graph that takes nothing."""
    (tmp_path / "odd.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"odd\.onnx: {message}"):
        load_source(str(tmp_path / "odd.onnx"), tmp_path)


@pytest.mark.parametrize(
    ("kind", "axes", "message"), [("float32", [], "input x: has no axes"), ("string", ["b"], "input x: is object")]
)
def test_inputs_that_cannot_be_served_are_named(kind: str, axes: list[str], message: str, save: Save) -> None:
    """Numbers without a batch, and strings."""
    model = with_axes(x=["b"])
    elem_type = onnx.TensorProto.STRING if kind == "string" else onnx.TensorProto.FLOAT
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", elem_type, axes))
    with pytest.raises(CheckpointError, match=message):
        read_traits(read_graph(save(model)))


def test_an_image_of_symbolic_axes_gets_those_of_the_files_beside(tmp_path: Path) -> None:
    """As exporters write them that leave every axis open: channels from the first convolution, the edge from a file."""
    open_axes = {0: "batch", 1: "channels", 2: "height", 3: "width"}
    onnx.save_model(write_images(spread(Images()), axes=open_axes), tmp_path / "vit.onnx")
    unknown = load_graph(tmp_path / "vit.onnx")
    assert unknown.image is None
    assert unknown.traits.inputs[0].axes == ("batch", "channels", "height", "width")
    (tmp_path / "config.json").write_text(json.dumps({"image_size": 32}))
    assert load_graph(tmp_path / "vit.onnx").traits.inputs[0].axes == ("batch", 3, 32, 32)
    by_timm = {"input_size": [3, 32, 32], "crop_pct": 0.8, "mean": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": by_timm}))
    source = load_graph(tmp_path / "vit.onnx")
    assert source.traits.inputs[0].axes == ("batch", 3, 32, 32)
    assert source.image
    assert (source.image.crop_size, source.image.resize_shorter_edge, source.image.mean) == (32, 40, (0.5, 0.5, 0.5))
    assert not source.assumed
    (tmp_path / "config.json").write_text(json.dumps({"image_size": 32}))
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    given = {"do_center_crop": True, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, **half}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    source = load_graph(tmp_path / "vit.onnx")
    assert source.traits.inputs[0].axes == ("batch", 3, 32, 32)
    assert source.image
    assert (source.image.crop_size, source.image.resize_shorter_edge, source.image.mean) == (32, 40, (0.5, 0.5, 0.5))


def test_what_is_no_image_stays_as_it_is(images: ModelProto, texts: ModelProto) -> None:
    """Axes that are fixed, and inputs that are no pixels."""
    for model in (images, texts):
        before = model.SerializeToString()
        fix_image_size(model, 64)
        assert model.SerializeToString() == before


@pytest.mark.parametrize("inside", ["", "onnx"])
def test_tokenizer_and_names_of_classes_lie_beside_the_file_or_above(inside: str, tmp_path: Path) -> None:
    """The folder onnx of a checkpoint, as exporters make it, is looked out of."""
    model = write_texts(spread(Texts()))
    model.graph.output[1].name = model.graph.node[-1].output[0] = "logits"
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 16
    (tmp_path / inside).mkdir(exist_ok=True)
    onnx.save_model(model, tmp_path / inside / "file.onnx")
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "id2label": {"1": "good"}}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    source = load_graph(tmp_path / inside / "file.onnx")
    assert (source.family, source.tokenizer_file, source.max_tokens) == ("bert", tmp_path / "tokenizer.json", 20)
    assert source.labels[:3] == ("LABEL_0", "good", "LABEL_2")
    assert len(source.labels) == 16


def test_a_tokenizer_of_another_vocabulary_is_refused(texts: ModelProto, tmp_path: Path) -> None:
    """Its ids would be none of the graph's."""
    for tensor in texts.graph.initializer:
        assert "word" not in tensor.name or tensor.dims[0] == VOCABULARY
    smaller = onnx.ModelProto()
    smaller.CopyFrom(texts)
    for tensor in smaller.graph.initializer:
        if "word_embeddings" in tensor.name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers(50, 16), tensor.name))
    onnx.save_model(smaller, tmp_path / "file.onnx")
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: has \d+ tokens; expected at most the network's 50"):
        load_graph(tmp_path / "file.onnx")


@pytest.mark.parametrize(
    "inputs",
    [
        {"input_ids": ("int64", ["b", "s"])},
        {"input_ids": ("int64", ["b", 16]), "attention_mask": ("int64", ["b", 16])},
        {"input_ids": ("int32", ["b", "s"]), "attention_mask": ("int32", ["b", "s"])},
    ],
)
def test_graphs_that_take_no_texts_as_the_server_makes_them_take_tensors(
    inputs: dict[str, Any], save: Save, tmp_path: Path
) -> None:
    """Without a mask, of a fixed length, of another type."""
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", tmp_path / "tokenizer.json")
    assert load_graph(save(with_axes(**inputs))).tokenizer_file is None
