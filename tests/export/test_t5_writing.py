"""T5, MT5 and UMT5 as they are exported to write: distances are told by a bias of each row, nothing is scaled."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import GraphProto, NodeProto, helper, numpy_helper

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH
from artifact.generation import GenerationContract
from export.encoder_decoder import Writing
from export.errors import VerificationError
from export.relative_bias import RelativeBias
from export.sources import load_folder
from export.step import LOWERED, Flat
from export.traits import Traits
from export.transformers_writing import load_writer
from export.verify_steps import verify_steps
from export.write_steps import write_steps
from model.checkpoint import CheckpointError
from tests.export.encoder_decoders import write_plain
from tests.export.t5_folders import END, FAMILIES, PAD, VOCABULARY, make_network, write_t5

Graphs = tuple[Writing, Traits, Path]
POSITIONS = 24


@pytest.fixture(scope="module", autouse=True)
def few_positions() -> Iterator[None]:
    """Read and write fewer tokens, so that less is verified."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.transformers_parts.RELATIVE_POSITIONS", POSITIONS)
        yield


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """The encoder's graph and those of a step, of UMT5, each layer of which has a bias."""
    folder = tmp_path_factory.mktemp("umt5")
    reader, traits, writing, _ = load_writer(write_t5(folder / "network", "umt5"))
    (folder / "graphs").mkdir()
    write_steps(writing, write_plain(reader, traits, folder / "graphs"), folder / "graphs")
    return writing, traits, folder / "graphs"


@pytest.fixture
def copied(graphs: Graphs, tmp_path: Path) -> Graphs:
    """A copy to make wrong."""
    shutil.copytree(graphs[2], tmp_path / "graphs")
    return *graphs[:2], tmp_path / "graphs"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bias_is_that_of_each_rows_position(family: str) -> None:
    """As the library computes it for a row alone, near and far, whatever the other rows' positions are."""
    network = make_network(family)
    attention = network.get_decoder().block[0].layer[0].SelfAttention
    biases = RelativeBias(attention, 40)(torch.arange(40), 40)  # [40, H, 1, 40]
    for position in range(40):
        expected = attention.compute_bias(1, position + 1, past_seen_tokens=position)[0]
        torch.testing.assert_close(biases[position, ..., : position + 1], expected, rtol=0, atol=0)
    assert len(biases[39, 0, 0].unique()) == 8  # all buckets


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_does_what_whole_sequences_do(family: str, tmp_path: Path) -> None:
    """In torch: rows that begin at different steps, each with its own bias; the output layer as the family has it."""
    reader, _, writing, _ = load_writer(write_t5(tmp_path, family))
    random = np.random.default_rng(0)
    generation, begins, length = writing.generation, (0, 3, 1), 9
    targets = torch.from_numpy(random.integers(VOCABULARY, size=(3, length)))
    source_ids, mask = torch.from_numpy(random.integers(VOCABULARY, size=(3, 5))), torch.ones(3, 5, dtype=torch.int64)
    with torch.inference_mode():
        expected = writing.explain(source_ids, mask, targets)[0]
        read = reader(source_ids, mask)
        shape = (3, generation.num_heads, length, generation.head_dim)
        kept = {name: torch.randn(shape) for name in generation.step_inputs if name.startswith("self_")} | read
        step, found = Flat(writing.step, LOWERED), torch.zeros_like(expected)
        for number in range(length + max(begins)):
            cached = torch.tensor([min(max(number - begin, 0), length - 1) for begin in begins])
            given = (targets.gather(1, cached[:, None]), cached, torch.full((3,), 5))
            caches = [kept[name] for name in generation.step_inputs[3:]]
            told = dict(zip(generation.step_outputs, step(*given, *caches), strict=True))
            kept |= {f"self_{name[5:]}": one for name, one in told.items() if name.startswith("next_")}
            found[torch.arange(3), cached] = told["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert expected.std() > 0.5


@pytest.mark.parametrize(("family", "biases"), [("t5", 1), ("t5-1.1", 1), ("mt5", 1), ("umt5", 2)])
def test_what_generation_config_says_is_in_the_contract(family: str, biases: int, tmp_path: Path) -> None:
    """And what the network is."""
    settings: dict[str, Any] = {
        "max_length": 20,
        "num_beams": 4,
        "length_penalty": 0.6,
        "eos_token_id": [END, 9],
        "suppress_tokens": [7],
    }
    source = load_folder(write_t5(tmp_path, family, **settings))
    assert source.writing is not None
    assert source.writing.generation == GenerationContract(
        num_layers=2,
        num_heads=4,
        head_dim=6,
        scale=1.0,
        self_biases=biases,
        vocab_size=VOCABULARY,
        starts={"default": (PAD,)},
        default_start="default",
        end_tokens=(END, 9),
        pad_token=PAD,
        max_tokens=19,
        tokenizer_file="target_tokenizer.json",
        suppressed_tokens=(7,),
        num_beams=4,
        length_penalty=0.6,
    )
    assert source.traits.longest == source.writing.max_positions == POSITIONS


def test_graphs_of_the_step_are_verified(graphs: Graphs) -> None:
    """Fused and lowered, each layer's weights of both kinds, and the biases themselves."""
    checks = {(line.check, line.tensor) for line in verify_steps(*graphs)}
    names = ["logits", *(f"{kind}.{layer}" for kind in ("self", "cross") for layer in range(2))]
    for check in ("against torch", "row alone", "lowered form"):
        assert {(check, f"decoder.{name}") for name in names} <= checks
    for check in ("one step in torch", "lowered form", "as served"):
        assert {(check, f"decoder.self_bias.{layer}") for layer in range(2)} <= checks
    graph = onnx.load(graphs[2] / DECODER_GRAPH, load_external_data=False).graph
    scales = [{one.name: one.f for one in node.attribute} for node in attentions(graph)]
    assert scales == [{"scale": 1.0}] * 4


def attentions(graph: GraphProto) -> list[NodeProto]:
    """Of self attention and of cross attention, of each layer in its order."""
    return [node for node in graph.node if node.op_type == "Attention"]


def drop_bias(graph: GraphProto) -> None:
    """Attend without one in the second layer."""
    attentions(graph)[2].input[3] = ""


def take_another_layers_bias(graph: GraphProto) -> None:
    """As if all shared the first."""
    attentions(graph)[2].input[3] = attentions(graph)[0].input[3]


def take_the_first_rows_bias(graph: GraphProto) -> None:
    """For every row."""
    node = attentions(graph)[0]
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    places = [
        helper.make_node("Gather", [node.input[3], "first"], ["of_first"], axis=0),
        helper.make_node("Shape", [node.input[3]], ["sizes"]),
        helper.make_node("Expand", ["of_first", "sizes"], ["of_all"]),
    ]
    before = list(graph.node).index(node)
    for place, one in enumerate(places):
        graph.node.insert(before + place, one)
    node.input[3] = "of_all"


def scale(graph: GraphProto) -> None:
    """By 1 / sqrt(d), as other families do."""
    del attentions(graph)[1].attribute[:]


def tell_no_bias(graph: GraphProto) -> None:
    """Give zeros where the weights are computed from: the logits are right."""
    (maker,) = (node for node in graph.node if "self_bias.1" in node.output)
    maker.output[:] = ["right"]
    for node in graph.node:
        node.input[:] = ["right" if name == "self_bias.1" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    graph.node.append(helper.make_node("Mul", ["right", "nothing"], ["self_bias.1"]))


WRONG: list[tuple[Callable[[GraphProto], None], str, str]] = [
    (drop_bias, DECODER_GRAPH, r"decoder\.logits: against torch"),
    (take_another_layers_bias, DECODER_GRAPH, r"decoder\.logits: against torch"),
    (take_the_first_rows_bias, DECODER_GRAPH, r"decoder\.logits: against torch"),
    (scale, DECODER_GRAPH, r"decoder\.logits: against torch"),
    (tell_no_bias, DECODER_GRAPH, r"decoder\.self\.1: against torch"),
    (tell_no_bias, LOWERED_DECODER_GRAPH, r"decoder\.self\.1: lowered form"),
]


@pytest.mark.parametrize(("change", "name", "message"), WRONG)
def test_a_wrong_step_is_refused(change: Callable[[GraphProto], None], name: str, message: str, copied: Graphs) -> None:
    """The error names what differs, and from what."""
    model = onnx.load(copied[2] / name, load_external_data=False)
    change(model.graph)
    onnx.save_model(model, copied[2] / name)
    with pytest.raises(VerificationError, match=message):
        verify_steps(*copied)


def test_an_output_layer_that_is_scaled_otherwise_is_refused(graphs: Graphs) -> None:
    """The graphs are held to the library's whole sequences."""
    writing, traits, folder = graphs
    other = replace(
        writing, explain=lambda *given: (writing.explain(*given)[0] * 32**0.5, *writing.explain(*given)[1:])
    )
    with pytest.raises(VerificationError, match=r"decoder\.logits: against torch"):
        verify_steps(other, traits, folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """With the file that is missing."""
    (write_t5(tmp_path, "t5") / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not found; expected a file of the tokenizers library"):
        load_folder(tmp_path)


def test_the_encoder_alone_can_be_exported_still(tmp_path: Path) -> None:
    """With --part."""
    assert load_folder(write_t5(tmp_path, "t5"), part="encoder").writing is None
