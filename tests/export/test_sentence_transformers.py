"""Folders of sentence-transformers against what its modules are defined to do, written out here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

import regard
from artifact.contract import read_contract
from export.build import build
from export.graph_source import load_graph
from export.sources import load_folder
from model.text import TextNetwork
from tests.export.sentences import NEW, OLD, WIDTH, dense, pooling, read_written, run_rows, write_sentence_folder
from tests.processes import StartProcess

LENGTHS = (7, 3, 1, 5)
TOLERANCE = 1e-5
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
NORMALIZE = ("Normalize", dict[str, Any]())
# By the names of newer files, in the order in which older ones are joined; each takes a text's own tokens, [N, D].
BY_TOKENS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(dim=0).values,
    "mean": lambda tokens: tokens.sum(dim=0) / len(tokens),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(dim=0) / len(tokens) ** 0.5,
    "weightedmean": lambda tokens: (
        sum((place * token for place, token in enumerate(tokens, start=1)), torch.zeros(WIDTH))
        / sum(range(1, len(tokens) + 1))
    ),
    "lasttoken": lambda tokens: tokens[-1],
}
OLD_FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def pooled(outputs: dict[str, Tensor], mask: Tensor, *modes: str) -> Tensor:
    """What modes make of each row's own tokens."""
    rows = [hidden[real] for hidden, real in zip(outputs["last_hidden_state"], mask, strict=True)]
    return torch.stack([torch.cat([BY_TOKENS[mode](tokens) for mode in modes]) for tokens in rows])


def applied(folder: Path, place: int, vector: Tensor, activation: nn.Module) -> Tensor:
    """What a dense layer makes of a vector."""
    weights = load_file(folder / f"{place}_Dense" / "model.safetensors")
    made: Tensor = activation(vector @ weights["linear.weight"].T + weights.get("linear.bias", 0))
    return made


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
@pytest.mark.parametrize(("flag", "mode"), list(zip(OLD_FLAGS, BY_TOKENS, strict=True)))
def test_each_mode_pools_the_tokens_of_a_text_alone(family: str, flag: str, mode: str, tmp_path: Path) -> None:
    """In a padded batch, by the flags of older files; padding never counts."""
    outputs, mask = run_rows(read_written(tmp_path, pooling(flag), family=family), LENGTHS)
    torch.testing.assert_close(outputs["embedding"], pooled(outputs, mask, mode), atol=TOLERANCE, rtol=0)


def test_several_modes_are_joined(tmp_path: Path) -> None:
    """By flags in the library's own order, by names in that of the file; none set means the mean."""
    source = read_written(tmp_path / "flags", pooling("mean_tokens", "cls_token", "max_tokens"))
    outputs, mask = run_rows(source, LENGTHS)
    torch.testing.assert_close(
        outputs["embedding"], pooled(outputs, mask, "cls", "max", "mean"), atol=TOLERANCE, rtol=0
    )
    assert source.traits.embedding
    assert source.traits.embedding.dim == 3 * WIDTH
    named = ("Pooling", {"embedding_dimension": WIDTH, "pooling_mode": ["mean", "cls"], "include_prompt": True})
    outputs, mask = run_rows(read_written(tmp_path / "names", named, package=NEW), LENGTHS)
    torch.testing.assert_close(outputs["embedding"], pooled(outputs, mask, "mean", "cls"), atol=TOLERANCE, rtol=0)
    outputs, mask = run_rows(read_written(tmp_path / "none", pooling()), LENGTHS)
    torch.testing.assert_close(outputs["embedding"], pooled(outputs, mask, "mean"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("package", [OLD, NEW])
def test_modules_are_run_in_the_order_of_the_file(package: str, tmp_path: Path) -> None:
    """Normalised between two dense layers, and not at the end; then at the end alone."""
    first, last = dense(WIDTH, 12, TANH), dense(12, 5, IDENTITY, bias=False)
    source = read_written(tmp_path / "a", pooling("mean_tokens"), first, NORMALIZE, last, package=package)
    outputs, mask = run_rows(source, LENGTHS)
    expected = applied(tmp_path / "a", 2, pooled(outputs, mask, "mean"), nn.Tanh())
    expected = applied(tmp_path / "a", 4, nn.functional.normalize(expected, dim=-1), nn.Identity())
    torch.testing.assert_close(outputs["embedding"], expected, atol=TOLERANCE, rtol=0)
    assert source.traits.embedding
    assert (source.traits.embedding.dim, source.traits.embedding.normalized) == (5, False)
    source = read_written(tmp_path / "b", pooling("mean_tokens"), first, ("Dropout", {"dropout": 0.1}), NORMALIZE)
    outputs, mask = run_rows(source, LENGTHS)
    expected = nn.functional.normalize(applied(tmp_path / "b", 2, pooled(outputs, mask, "mean"), nn.Tanh()), dim=-1)
    torch.testing.assert_close(outputs["embedding"], expected, atol=TOLERANCE, rtol=0)
    assert source.traits.embedding
    assert source.traits.embedding.normalized


@pytest.mark.parametrize("gives", [WIDTH, 12])
def test_a_dense_layer_may_add_what_it_takes(gives: int, tmp_path: Path) -> None:
    """Itself where the widths agree, else through a layer of its own."""
    layer = dense(WIDTH, gives, "torch.nn.modules.activation.GELU", use_residual=True)
    outputs, mask = run_rows(read_written(tmp_path, pooling("mean_tokens"), layer), LENGTHS)
    vector = pooled(outputs, mask, "mean")
    weights = load_file(tmp_path / "2_Dense" / "model.safetensors")
    added = vector @ weights["residual.weight"].T if gives != WIDTH else vector
    expected = applied(tmp_path, 2, vector, nn.GELU()) + added
    torch.testing.assert_close(outputs["embedding"], expected, atol=TOLERANCE, rtol=0)


def test_own_networks_do_what_they_can_and_leave_the_rest_to_the_library(tmp_path: Path) -> None:
    """A BERT with the class token, not normalised, is model/'s; one with a maximum is not."""
    own = read_written(tmp_path / "own", pooling("cls_token"))
    assert isinstance(own.network, TextNetwork)
    assert (own.network.config.pooling, own.network.config.normalize) == ("cls", False)
    assert own.traits.embedding
    assert own.traits.embedding.similarity == "cosine"
    assert not isinstance(read_written(tmp_path / "other", pooling("max_tokens"), NORMALIZE).network, TextNetwork)


def test_a_network_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As older releases wrote it, with its tokenizer and limits."""
    folder = write_sentence_folder(tmp_path, pooling("mean_tokens"), path="0_Transformer")
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    source = load_folder(folder)
    assert (source.max_tokens, source.tokenizer_file) == (20, folder / "0_Transformer" / "tokenizer.json")


@pytest.mark.parametrize(
    ("settings", "length", "expected"),
    [
        ({"max_seq_length": 20}, 12, 20),
        ({"transformer_task": "feature-extraction"}, 12, 12),
        ({"transformer_task": "feature-extraction"}, 10**30, 64),
        (None, 12, 64),
    ],
)
def test_the_longest_text_is_what_the_library_reads(
    settings: dict[str, Any] | None, length: int, expected: int, tmp_path: Path
) -> None:
    """Newer folders leave it to the tokenizer; 64 are the positions of the network."""
    write_sentence_folder(tmp_path, pooling("mean_tokens"))
    if settings:
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": length}))
    assert load_folder(tmp_path).token_limit == expected


def test_of_a_graph_the_files_beside_tell_prompts_and_similarity(tmp_path: Path) -> None:
    """As in the folder "onnx" of a checkpoint; what the graph itself does is not read again."""
    settings = {"prompts": {"query": "q: "}, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    folder = write_sentence_folder(tmp_path / "net", pooling("mean_tokens"), settings=settings)
    built = build(load_folder(folder), tmp_path / "models")
    graph = onnx.load(built.folder / "model.onnx")
    for name in (*(node.output for node in graph.graph.node), *(node.input for node in graph.graph.node)):
        name[:] = ["sentence_embedding" if one == "embedding" else one for one in name]
    for value in graph.graph.output:
        value.name = "sentence_embedding" if value.name == "embedding" else value.name
    (folder / "onnx").mkdir()
    onnx.save_model(graph, folder / "onnx" / "model.onnx")
    source = load_graph(folder / "onnx" / "model.onnx")
    assert (source.prompts, source.default_prompt) == ({"query": "q: "}, "query")
    assert source.traits.embedding
    assert source.traits.embedding.similarity == "dot"


def test_of_a_pair_the_encoder_makes_vectors(tmp_path: Path) -> None:
    """sentence-t5's folder has no decoder and needs no --part."""
    source = read_written(tmp_path, pooling("mean_tokens"), dense(WIDTH, 6, IDENTITY), NORMALIZE, family="t5, encoder")
    outputs, mask = run_rows(source, LENGTHS)
    expected = nn.functional.normalize(applied(tmp_path, 2, pooled(outputs, mask, "mean"), nn.Identity()), dim=-1)
    torch.testing.assert_close(outputs["embedding"], expected, atol=TOLERANCE, rtol=0)


def test_the_exported_graph_has_the_modules(tmp_path: Path) -> None:
    """Verified against the network in padded batches and alone; the contract says what was read."""
    settings = {
        "prompts": {"query": "the cat: ", "document": None},
        "default_prompt_name": "document",
        "similarity_fn_name": "dot",
    }
    modules = (pooling("max_tokens", "weightedmean_tokens", "lasttoken"), dense(3 * WIDTH, 6, TANH), NORMALIZE)
    folder = write_sentence_folder(tmp_path / "net", *modules, family="distilbert", settings=settings)
    built = build(load_folder(folder), tmp_path / "models")
    contract = read_contract(built.folder / "contract.json")
    assert contract.embedding
    assert (contract.embedding.dim, contract.embedding.normalized, contract.embedding.similarity) == (6, True, "dot")
    assert contract.text
    assert contract.text.prompts == {"query": "the cat: ", "document": ""}
    assert contract.text.default_prompt == "document"
    assert {check.check for check in contract.verification if check.tensor == "embedding"} >= {"against torch"}


def test_a_served_folder_answers_as_the_library_would(tmp_path: Path, start_process: StartProcess) -> None:
    """A prompt, a maximum and a dense layer, from a user's folder to his vectors; beside what is written out here."""
    settings = {
        "prompts": {"query": "see the dog: ", "document": ""},
        "default_prompt_name": "query",
        "similarity_fn_name": "euclidean",
    }
    modules = (pooling("max_tokens", "mean_tokens"), dense(2 * WIDTH, 6, TANH), NORMALIZE)
    folder = write_sentence_folder(tmp_path / "net", *modules, settings=settings)
    build(load_folder(folder, name="asks"), tmp_path / "models")
    text = "the cat sat on the mat"
    with start_process("--models", str(tmp_path / "models")) as server, regard.Client(server.address) as client:
        model = client.model("asks")
        by_default = client.embed(text=text, attention=regard.AttentionRequest())
        query, document = (client.embed(text=text, prompt=prompt).vector for prompt in ("query", "document"))
        shown = regard.Attention.join(list(client.attend(text=text, prompt="query")))
        with pytest.raises(regard.InvalidArgument, match="prompt: 'passage'; expected query, document, the prompts of"):
            client.embed(text=text, prompt="passage")
        assert server.stop() == 0
    assert (model.prompts, model.default_prompt, model.similarity) == (settings["prompts"], "query", "euclidean")
    np.testing.assert_allclose(by_default.vector, query, atol=TOLERANCE)
    assert by_default.attention
    assert by_default.attention.tokens == shown.tokens
    np.testing.assert_allclose(query, expect_vector(folder, "see the dog: " + text), atol=1e-4)
    np.testing.assert_allclose(document, expect_vector(folder, text), atol=1e-4)
    assert not np.allclose(query, document, atol=1e-2)


def expect_vector(folder: Path, text: str) -> NDArray[np.float32]:
    """The library's hidden states of a text alone, pooled and projected by hand."""
    ids = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids])
    network = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = network(ids).last_hidden_state[0]
    both = torch.cat([BY_TOKENS["max"](hidden), BY_TOKENS["mean"](hidden)])
    vector = nn.functional.normalize(applied(folder, 2, both[None], nn.Tanh()), dim=-1)[0]
    return np.asarray(vector)
