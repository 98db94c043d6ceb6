from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from export.errors import TapError
from export.graph import OPSET, externalize, to_onnx
from export.probe import declare_axes, find_axes, run_graph
from export.tapping.tap import tap
from export.traits import own_traits
from model.checkpoint import Network, load_network
from model.encoder import EncoderConfig, Positions
from model.text import TextConfig, TextNetwork
from model.vit import VisionTransformer, ViTConfig
from tests.golden import GOLDEN_NETWORK
from tests.processes import ROOT


@pytest.fixture(scope="module")
def network() -> Network:
    """The golden text network."""
    return load_network(GOLDEN_NETWORK)


@pytest.fixture(scope="module")
def plain(network: Network) -> ModelProto:
    """Its graph."""
    return to_onnx(network, own_traits(network, None))


def save(graph: ModelProto, path: Path) -> onnxruntime.InferenceSession:
    """Write a graph and open it."""
    onnx.save_model(graph, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def feed(*lengths: int) -> dict[str, Any]:
    """Random tokens for rows of some lengths, padded to the longest."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": np.random.default_rng(0).integers(4, 60, mask.shape) * mask, "attention_mask": mask}


def test_the_graph_is_named_as_the_network_and_dynamic_in_batch_and_length(plain: ModelProto) -> None:
    """At opset 23, with fused Attention nodes."""
    assert [entry.version for entry in plain.opset_import if not entry.domain] == [OPSET]
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*plain.graph.input, *plain.graph.output)
    }
    assert axes == {
        "input_ids": ["batch", "seq_len"],
        "attention_mask": ["batch", "seq_len"],
        "last_hidden_state": ["batch", "seq_len", 32],
        "embedding": ["batch", 32],
        "logits": ["batch", 2],
    }
    kinds = [node.op_type for node in plain.graph.node]
    assert kinds.count("Attention") == 2
    assert "Softmax" not in kinds


def test_the_graph_holds_no_trace_of_where_it_was_made(plain: ModelProto) -> None:
    """No stack traces, no paths."""
    content = plain.SerializeToString()
    for trace in (str(ROOT), "stack_trace", "attention.py", "site-packages"):
        assert trace.encode() not in content


def test_both_graphs_share_one_weights_file(plain: ModelProto, tmp_path: Path) -> None:
    """Every large tensor lies at a page of the file, and neither graph repeats it."""
    light = externalize(plain, tmp_path / "weights.bin")
    tapped, _ = tap(light, tmp_path)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in tapped.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }
    assert {place["location"] for place in places.values()} == {"weights.bin"}
    assert all(int(place["offset"]) % 4096 == 0 for place in places.values())
    shared = [t.SerializeToString() for t in light.graph.initializer]
    assert [t.SerializeToString() for t in tapped.graph.initializer][: len(shared)] == shared
    assert light.ByteSize() < plain.ByteSize() / 2
    assert len(plain.graph.initializer) == len(light.graph.initializer)


def test_a_tapped_graph_gives_the_weights_and_the_same_outputs(
    network: Network, plain: ModelProto, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Attention within 1e-5 of PyTorch, outputs to the bit, symbolic axes reported, not a word on stderr."""
    before = plain.SerializeToString()
    graph, taps = tap(plain, tmp_path)
    assert plain.SerializeToString() == before
    (tmp_path / "first.onnx").write_bytes(graph.SerializeToString())
    probed = find_axes(run_graph(tmp_path / "first.onnx"), own_traits(network, None))
    axes, kinds = probed.axes, probed.kinds
    declare_axes(graph, axes)
    assert set(kinds.values()) == {"self"}
    one, both = save(plain, tmp_path / "plain.onnx"), save(graph, tmp_path / "tapped.onnx")
    inputs = feed(9, 4, 6)
    ordinary = [value.name for value in one.get_outputs()]
    names = [*ordinary, *(each.output for each in taps)]
    fetched = dict(zip(names, both.run(names, inputs), strict=True))
    for name, array in zip(ordinary, one.run(ordinary, inputs), strict=True):
        assert np.array_equal(array, fetched[name])
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        _, attentions = network.explain(**tensors)
    for each, reference in zip(taps, attentions, strict=True):
        np.testing.assert_allclose(fetched[each.output], reference.numpy(), atol=1e-5)
    shapes = {value.name: value.shape for value in both.get_outputs()}
    assert shapes["attention.0"] == shapes["attention.1"] == ["batch", 4, "seq_len", "seq_len"]
    assert capfd.readouterr().err == ""


def test_the_mode_is_set_once_in_every_node(plain: ModelProto) -> None:
    """Torch's exporter writes the attribute too."""
    graph, _ = tap(plain, Path())
    for node in graph.graph.node:
        if node.op_type == "Attention":
            modes = [attribute.i for attribute in node.attribute if attribute.name == "qk_matmul_output_mode"]
            assert modes == [3]


@pytest.mark.parametrize("positions", get_args(Positions))
def test_every_positional_encoding_exports_and_is_tapped(positions: Positions, tmp_path: Path) -> None:
    """Outputs and attention within 1e-5 of PyTorch for a ragged batch of another size than was traced."""
    torch.manual_seed(0)
    encoder = EncoderConfig(16, 2, 4, 32, positions=positions, max_positions=32)
    network = TextNetwork(TextConfig(encoder, vocab_size=60)).eval()
    graph, taps = tap(to_onnx(network, own_traits(network, None)), tmp_path)
    session, inputs = save(graph, tmp_path / "tapped.onnx"), feed(11, 3, 7)
    with torch.inference_mode():
        outputs, attentions = network.explain(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    fetched = session.run(["embedding", *(each.output for each in taps)], inputs)
    for got, expected in zip(fetched, (outputs["embedding"], *attentions), strict=True):
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_a_vision_transformer_is_exported_for_the_size_asked_for(tmp_path: Path) -> None:
    """With its positions fitted: 20 x 20 pixels are 25 patches and a class token."""
    torch.manual_seed(0)
    network = VisionTransformer(ViTConfig(EncoderConfig(16, 2, 4, 32), image_size=12, patch_size=4)).eval()
    graph, taps = tap(to_onnx(network, own_traits(network, 20)), tmp_path)
    assert [each.output for each in taps] == ["attention.0", "attention.1"]
    pixels = torch.randn(3, 3, 20, 20)
    with torch.inference_mode():
        _, attentions = network.explain(pixels)
    (got,) = save(graph, tmp_path / "v.onnx").run(["attention.1"], {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(got, attentions[1].numpy(), atol=1e-5)


def test_a_network_of_few_positions_is_exported() -> None:
    """Fewer than are traced with otherwise."""
    encoder = EncoderConfig(16, 1, 2, 32, positions="learned", max_positions=8)
    network = TextNetwork(TextConfig(encoder, vocab_size=20)).eval()
    assert to_onnx(network, own_traits(network, None)).graph.node


def test_a_graph_without_attention_nodes_is_refused_with_what_it_has() -> None:
    """Nothing to tap."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    with pytest.raises(TapError, match="no attention to tap; the graph has Relu"):
        tap(helper.make_model(graph), Path())
