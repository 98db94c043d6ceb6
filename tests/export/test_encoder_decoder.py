import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import pytest
from tokenizers import Tokenizer

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH, PLAIN_GRAPH, WEIGHTS_FILE
from artifact.generation import GenerationContract
from export.build import Precise, build
from export.encoder_decoder import load_own
from export.errors import PublishError
from export.sources import load_folder
from export.verify_steps import verify_steps
from model.checkpoint import CheckpointError
from model.encoder import Positions
from tests.export.encoder_decoders import VOCABULARY, write_checkpoint, write_graphs, write_plain
from tests.model.encoder_decoders import HEADS, LAYERS, VOCAB, WIDTH

POSITIONS = [positions for positions in get_args(Positions) if positions != "alibi"]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_step_of_every_kind_does_what_torch_does(
    positions: Positions, norm: Literal["pre", "post"], tmp_path: Path
) -> None:
    """Fused and lowered, ragged and alone, as served; the line of each check names every layer."""
    checkpoint = write_checkpoint(tmp_path / "network", positions, norm)
    checks = verify_steps(*write_graphs(checkpoint, tmp_path / "graphs"), tmp_path / "graphs")
    told = {(line.check, line.tensor) for line in checks}
    shown = ["logits", *(f"{kind}.{layer}" for kind in ("self", "cross") for layer in range(LAYERS))]
    for check in ("against torch", "row alone", "lowered form"):
        assert {(check, f"decoder.{name}") for name in shown} <= told
    assert {check for check, _ in told} >= {"one step in torch", "as served"}


@pytest.mark.parametrize("settings", [{"tie_output": False, "output_bias": True}, {"scale_embeddings": False}])
def test_output_layers_of_every_kind_are_exported(settings: dict[str, Any], tmp_path: Path) -> None:
    """Their own weights, a bias, embeddings as they are."""
    checkpoint = write_checkpoint(tmp_path / "network", "learned", **settings)
    verify_steps(*write_graphs(checkpoint, tmp_path / "graphs"), tmp_path / "graphs")


def test_the_graphs_are_of_the_operators_that_they_are_meant_to_be(tmp_path: Path) -> None:
    """The fused one writes and attends with ONNX's own operators, the lowered one with neither."""
    write_graphs(write_checkpoint(tmp_path / "network"), tmp_path / "graphs")
    counts = {}
    for name in (DECODER_GRAPH, LOWERED_DECODER_GRAPH):
        model = onnx.load(tmp_path / "graphs" / name, load_external_data=False)
        kinds = [node.op_type for node in model.graph.node]
        counts[name] = [kinds.count(kind) for kind in ("TensorScatter", "Attention", "ScatterElements", "Softmax")]
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert counts == {
        DECODER_GRAPH: [2 * LAYERS, 2 * LAYERS, 0, 0],
        LOWERED_DECODER_GRAPH: [0, 0, 2 * LAYERS] * 1 + [2 * LAYERS],
    }


def test_weights_that_several_graphs_have_lie_in_the_file_once(tmp_path: Path) -> None:
    """The embeddings are the encoder's and the decoder's; the lowered form has nothing of its own."""
    checkpoint = write_checkpoint(tmp_path / "network")
    write_graphs(checkpoint, tmp_path / "graphs")
    places = {}
    for name in (PLAIN_GRAPH, DECODER_GRAPH, LOWERED_DECODER_GRAPH):
        model = onnx.load(tmp_path / "graphs" / name, load_external_data=False)
        external = [tensor for tensor in model.graph.initializer if tensor.external_data]
        assert {entry.value for one in external for entry in one.external_data if entry.key == "location"} == {
            WEIGHTS_FILE
        }
        places[name] = {
            (entry.value, tuple(one.dims)) for one in external for entry in one.external_data if entry.key == "offset"
        }
    assert any(dims == (VOCAB, WIDTH) for _, dims in places[PLAIN_GRAPH] & places[DECODER_GRAPH])
    assert places[LOWERED_DECODER_GRAPH] == places[DECODER_GRAPH]
    reader, traits, _ = load_own(checkpoint)
    alone = tmp_path / "alone"
    alone.mkdir()
    write_plain(reader, traits, alone)
    first = (alone / WEIGHTS_FILE).read_bytes()
    assert (tmp_path / "graphs" / WEIGHTS_FILE).read_bytes()[: len(first)] == first


def test_a_checkpoint_becomes_an_artifact(tmp_path: Path, out: Path) -> None:
    """Encoder and step, tokenizers and contract; a server loads it, which the export tries at its end."""
    built = build(load_folder(write_checkpoint(tmp_path / "network"), name="small"), out)
    contract = built.contract
    assert contract.generation == GenerationContract(
        num_layers=LAYERS,
        num_heads=HEADS,
        head_dim=WIDTH // HEADS,
        scale=(WIDTH // HEADS) ** -0.5,
        vocab_size=VOCAB,
        starts={"plain": (1,), "stress": (3,)},
        default_start="plain",
        end_tokens=(2,),
        pad_token=0,
        max_tokens=15,
        tokenizer_file="target_tokenizer.json",
    )
    assert {DECODER_GRAPH, LOWERED_DECODER_GRAPH, "target_tokenizer.json"} <= set(contract.files)
    assert [spec.name for spec in contract.outputs] == contract.generation.source_names
    assert [layer.kind for layer in contract.attention] == ["self"] * LAYERS
    assert len(contract.hidden_states) == LAYERS + 1
    assert contract.text is not None
    assert contract.text.max_tokens == 16
    letters, phones = (
        Tokenizer.from_file(str(built.folder / name)) for name in ("tokenizer.json", "target_tokenizer.json")
    )
    assert letters.encode("Bad").ids == [VOCABULARY.index(letter) for letter in ("b", "a", "d", "</s>")]
    assert phones.decode([3, 15, 14, 18, 2]) == "B AA1"
    tensors = {line.tensor for line in contract.verification}
    assert {"cross_key.0", "attention.0", "decoder.logits", "decoder.self.1", "decoder.cross.1"} <= tensors
    assert build(load_folder(tmp_path / "network", name="small"), out).unchanged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("vocabulary"), r"config\.json: vocabulary: NoneType; expected a list of 20 texts"),
        (lambda config: config["vocabulary"].pop(), r"config\.json: vocabulary: 19 tokens; expected vocab_size, 20"),
        (lambda config: config.update(vocabulary=["a"] * 20), r"vocabulary: 1 tokens; expected vocab_size, 20"),
        (lambda config: config.update(vocabulary=[f"T{i}" for i in range(20)]), r"config\.json: vocabulary: no letter"),
        (lambda config: config.pop("decoder"), r"config\.json: .*DecoderConfig"),
    ],
)
def test_a_checkpoint_that_cannot_be_exported_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    """The error names file and field."""
    file = write_checkpoint(tmp_path / "network") / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_folder(tmp_path / "network")


def test_a_vocabulary_of_its_own_for_the_source_is_refused(tmp_path: Path) -> None:
    """Nothing spells its tokens."""
    folder = write_checkpoint(tmp_path / "network", source_vocab_size=9)
    with pytest.raises(CheckpointError, match=r"source_vocab_size: 9; expected one vocabulary for both sides"):
        load_folder(folder)


def test_what_only_other_networks_have_is_refused(tmp_path: Path, out: Path) -> None:
    """Parts, sparse vectors, lower precisions."""
    folder = write_checkpoint(tmp_path / "network")
    with pytest.raises(CheckpointError, match=r"--part: 'encoder'; regard-encoder-decoder is exported as it is"):
        load_folder(folder, part="encoder")
    with pytest.raises(CheckpointError, match=r"--sparse; regard-encoder-decoder is exported as it is"):
        load_folder(folder, sparse=True)
    with pytest.raises(PublishError, match=r"--precision: float16; expected fp32 of what writes token by token"):
        build(load_folder(folder), out, precise=Precise("float16"))
    assert not list(out.rglob("*.onnx"))
