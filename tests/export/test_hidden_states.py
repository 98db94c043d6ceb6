"""Hidden states: what the library gives is what the hidden graph gives, and what gives none is exported without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from torch import Tensor, nn

import export.hidden_states
from artifact.contract import HIDDEN_GRAPH, PLAIN_GRAPH, Precision
from export.build import Precise, build
from export.errors import TraceError, VerificationError
from export.graph import to_onnx
from export.graph_source import load_graph
from export.hidden_states import PREFIX, WithStates, describe_states
from export.samples import read_samples
from export.sources import OWN_FAMILIES, Source, load_folder
from export.traits import own_traits
from model.encoder import EncoderConfig
from model.text import TextNetwork
from model.vit import VisionTransformer, ViTConfig
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.test_precision import TEXTS, run

TOLERANCE = 1e-4
LENGTHS = (5, 17, 3)  # of the rows of a padded batch


def make_feed(source: Source) -> dict[str, np.ndarray]:
    """Three rows; of texts of several lengths, padded."""
    feed = source.traits.example(len(LENGTHS), source.traits.fit(dict.fromkeys(source.traits.axes, max(LENGTHS))))
    if source.traits.is_text:
        for row, length in enumerate(LENGTHS):
            for array in feed.values():
                array[row, length:] = 0
    return feed


def ask_library(folder: Path, feed: dict[str, np.ndarray], part: str | None) -> list[np.ndarray]:
    """What transformers gives by itself, loaded anew from the folder."""
    network: Any = transformers.AutoModel.from_pretrained(folder).eval()
    network = network.get_encoder() if part == "encoder" else network
    with torch.inference_mode():
        answer = network(**{name: torch.from_numpy(one) for name, one in feed.items()}, output_hidden_states=True)
    return [state.numpy() for state in answer.hidden_states]


@pytest.mark.parametrize("name", ["bert", "vit", "roberta", "modernbert", "deberta-v2", "deit", "llama", "t5, encoder"])
def test_states_are_those_of_the_library(name: str, out: Path, tmp_path: Path) -> None:
    """In a padded batch and alone, with as many layers as the library has, of networks of model/ and of its own."""
    family = FAMILIES[name] if name in OWN_FAMILIES else shallow(FAMILIES[name])
    folder = write_folder(family, tmp_path / "net")
    source = load_folder(folder, part=family.part)
    built, feed = build(source, out), make_feed(source)
    expected = ask_library(folder, feed, family.part)
    states = built.contract.hidden_states
    assert [state.layer for state in states] == list(range(len(expected)))
    assert [state.dim for state in states] == [one.shape[-1] for one in expected]
    together = run(built.folder, HIDDEN_GRAPH, feed)
    for row, length in enumerate(LENGTHS):
        cut = slice(length) if source.traits.is_text else slice(None)
        own = {key: one[row : row + 1, cut] for key, one in feed.items()}
        alone = run(built.folder, HIDDEN_GRAPH, own)
        for state, one in zip(states, expected, strict=True):
            limit = TOLERANCE * max(1, np.abs(one[row, cut]).max())
            np.testing.assert_allclose(together[state.output][row, cut], one[row, cut], rtol=0, atol=limit)
            np.testing.assert_allclose(alone[state.output][0], one[row, cut], rtol=0, atol=limit)


def test_the_state_of_a_prenorm_network_is_told_before_its_last_norm(out: Path) -> None:
    """As the library does it for ViT: it is not last_hidden_state."""
    encoder = EncoderConfig(16, 2, 2, 32)
    torch.manual_seed(0)
    network = VisionTransformer(ViTConfig(encoder, image_size=16, patch_size=8)).eval()
    source = Source("own", "regard-vit", network, own_traits(network, None), "own")
    built, feed = build(source, out), make_feed(source)
    with torch.inference_mode():
        _, states = network.show_states(torch.from_numpy(feed["pixel_values"]))
        normed = network.encoder.final_norm(states[-1])
    found = run(built.folder, HIDDEN_GRAPH, feed)
    for layer, state in enumerate(states):
        np.testing.assert_allclose(found[f"{PREFIX}{layer}"], state.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["last_hidden_state"], normed.numpy(), rtol=0, atol=1e-5)
    assert np.abs(found["last_hidden_state"] - found[f"{PREFIX}2"]).max() > 1e-2


def test_the_plain_graph_computes_nothing_for_states(source: Source, out: Path) -> None:
    """It has the nodes of a network that has none to show; and all graphs share the weights."""
    built = build(source, out)
    plain, hidden = (onnx.load(built.folder / name, load_external_data=False) for name in (PLAIN_GRAPH, HIDDEN_GRAPH))
    assert source.network
    alone = to_onnx(source.network, source.traits)
    assert [node.op_type for node in plain.graph.node] == [node.op_type for node in alone.graph.node]
    assert [value.name for value in plain.graph.output] == [value.name for value in alone.graph.output]
    assert plain.graph.initializer == hidden.graph.initializer
    checks = {(line.tensor, line.check) for line in built.contract.verification if line.tensor.startswith(PREFIX)}
    names = [f"{PREFIX}{layer}" for layer in range(3)]
    assert checks == {(name, check) for name in names for check in ("against torch", "row alone", "as served")}


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_lower_precision_has_states_in_float32(
    precision: Precision, source: Source, out: Path, tmp_path: Path
) -> None:
    """Nearly those of the network; the last is what the output is made of."""
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS))
    samples = read_samples(file, source)
    built = build(source, out, precise=Precise(precision, samples))
    assert source.network
    for feed in samples[:3]:
        found = run(built.folder, HIDDEN_GRAPH, feed)
        with torch.inference_mode():
            _, states = source.network.show_states(*map(torch.from_numpy, feed.values()))
        for layer, state in enumerate(states):
            assert found[f"{PREFIX}{layer}"].dtype == np.float32
            assert np.corrcoef(found[f"{PREFIX}{layer}"].ravel(), state.numpy().ravel())[0, 1] > 0.98
        np.testing.assert_array_equal(found[f"{PREFIX}2"], found["last_hidden_state"])


def without_states(network: nn.Module) -> None:
    """Let a network tell none."""
    network.show_states = lambda *inputs: (network(*inputs), [])  # type: ignore[assignment]


def with_maps(network: nn.Module) -> None:
    """Let it tell maps instead of vectors."""
    network.show_states = lambda *inputs: (network(*inputs), [torch.zeros(2, 4, 4, 8)])  # type: ignore[assignment]


def with_a_fault(network: nn.Module) -> None:
    """Let it fail."""

    def fail(*inputs: Tensor) -> None:
        raise RuntimeError("states")

    network.show_states = fail  # type: ignore[assignment]


def with_unknown_positions(network: nn.Module) -> None:
    """Let it tell as many as rows and tokens make together."""

    def pick(*inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        outputs = network(*inputs)
        return outputs, [outputs["last_hidden_state"][:, ::3]]

    network.show_states = pick  # type: ignore[assignment]


@pytest.mark.parametrize("change", [without_states, with_maps, with_a_fault, with_unknown_positions])
def test_a_network_without_such_states_is_exported_without(
    change: Callable[[nn.Module], None], source: Source, out: Path
) -> None:
    """Its attention is there all the same."""
    assert source.network
    change(source.network)
    built = build(source, out)
    assert built.contract.hidden_states == ()
    assert HIDDEN_GRAPH not in built.contract.files
    assert not (built.folder / HIDDEN_GRAPH).exists()
    assert len(built.contract.attention) == 2


def test_states_that_cannot_be_traced_do_not_stop_an_export(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is traced again without them."""

    def fail(network: nn.Module, *rest: Any) -> onnx.ModelProto:
        if isinstance(network, WithStates):
            raise TraceError("states")
        return to_onnx(network, *rest)

    monkeypatch.setattr(export.hidden_states, "to_onnx", fail)
    assert build(source, out).contract.hidden_states == ()


def test_states_that_differ_from_the_network_are_not_published(
    source: Source, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two layers in each other's place."""
    show = TextNetwork.show_states

    def turned(network: TextNetwork, *inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        outputs, (first, second, third) = show(network, *inputs)
        return outputs, [first, second, third] if torch.compiler.is_exporting() else [second, first, third]

    monkeypatch.setattr(TextNetwork, "show_states", turned)
    with pytest.raises(VerificationError, match=r"hidden_states\.0: against torch"):
        build(source, out)


def test_an_onnx_file_and_a_network_with_a_decoder_have_none(source: Source, out: Path, tmp_path: Path) -> None:
    """Nothing tells the states of a file; the library tells those of a decoder and an encoder apart."""
    built = build(source, out)
    file = tmp_path / "file.onnx"
    onnx.save(onnx.load(built.folder / PLAIN_GRAPH), file)
    assert build(load_graph(file), out).contract.hidden_states == ()
    family = shallow(FAMILIES["bart"])
    assert build(load_folder(write_folder(family, tmp_path / "bart")), out).contract.hidden_states == ()


def test_states_are_described_where_all_are_vectors() -> None:
    """One that is not leaves none: a list of layers has no hole."""
    good, other = ("batch", "seq_len", 8), ("batch", 5, 16)
    described = describe_states(["a", "b"], {"a": good, "b": other})
    assert [(one.output, one.layer, one.position_axis, one.dim) for one in described] == [
        ("a", 0, "seq_len", 8),
        ("b", 1, 5, 16),
    ]
    bad: list[tuple[Any, ...]] = [("batch", None, 8), ("batch", "seq_len", None), ("batch", "batch", 8), ("batch", 8)]
    for axes in bad:
        assert describe_states(["a", "b"], {"a": good, "b": axes}) == ()
