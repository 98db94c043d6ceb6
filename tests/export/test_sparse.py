"""Sparse vectors of masked language models: from a folder to terms and weights, equal to torch's own."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer
from typer.testing import CliRunner

import regard
from export.__main__ import app
from export.build import build
from export.sources import load_folder
from model.checkpoint import CheckpointError
from regard import AttentionRequest
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.sentences import pooling, write_sentence_folder
from tests.golden.make import make_tokenizer
from tests.processes import StartProcess
from tests.server.api.open_inference.messages import make_bytes_request, read

PACKAGE = "sentence_transformers.sparse_encoder.models"
TEXTS = ("the dog sat on a mat", "a bad film", "it is very good to see a cat and a dog")


def write_masked_model(folder: Path, family: str = "bert") -> Path:
    """A folder of the library with random weights, a head for masked words and a tokenizer."""
    write_folder(shallow(dataclasses.replace(FAMILIES[family], task="MaskedLM")), folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_sparse_encoder(folder: Path, config: dict[str, Any], first: str = "MLMTransformer", **settings: Any) -> Path:
    """The same as sentence-transformers saves a SparseEncoder."""
    write_masked_model(folder)
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(config))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{PACKAGE}.{first}"},
        {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": f"{PACKAGE}.SpladePooling"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def expect(folder: Path, text: str, strategy: str = "max", activation: str = "relu") -> NDArray[np.float32]:
    """A text's weights, float32 [V], as SPLADE v2 defines them, of the library's scores."""
    network = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    with torch.inference_mode():
        weights = torch.log1p(torch.relu(network(input_ids=torch.tensor([ids])).logits[0]))
    weights = torch.log1p(weights) if activation == "log1p_relu" else weights
    pooled: NDArray[np.float32] = (weights.amax(dim=0) if strategy == "max" else weights.sum(dim=0)).numpy()
    return pooled


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_bare_masked_model_is_served_as_it_is_told_to(
    family: str, tmp_path: Path, start_process: StartProcess
) -> None:
    """Alone and beside others, whole and its heaviest terms, with attention, through both protocols."""
    folder = write_masked_model(tmp_path / "net", family)
    contract = build(load_folder(folder, name="words", sparse=True), tmp_path / "models").contract
    assert contract.embedding is not None and contract.text is not None
    assert (contract.embedding.sparse, contract.embedding.similarity, contract.text.pairs) == (True, "dot", False)
    expected = [expect(folder, text) for text in TEXTS]
    assert all(0 < np.count_nonzero(one) < one.size for one in expected)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    limit = ("--max-message-bytes", "18432")  # which 16 vectors of 256 numbers fill
    with start_process("--models", str(tmp_path / "models"), *limit) as server, regard.Client(server.address) as client:
        with pytest.raises(regard.InvalidArgument, match=r"outputs: an answer of \d+ bytes for 16 inputs; expected at"):
            client.embed_many(texts=TEXTS[2:] * 16, with_terms=True)
        assert len(client.embed_many(texts=TEXTS[2:] * 16, with_terms=True, max_terms=2)) == 16
        assert server.stop() == 0
    with start_process("--models", str(tmp_path / "models")) as server, regard.Client(server.address) as client:
        alone = client.embed(text=TEXTS[0], with_terms=True, attention=AttentionRequest(layers=(0,)))
        many = list(client.embed_many(texts=TEXTS))
        heaviest = client.embed(text=TEXTS[0], max_terms=3).sparse
        with pytest.raises(regard.FailedPrecondition, match="vector_format: int8 of words, whose vectors are sparse"):
            client.embed(text=TEXTS[0], vector_format="int8")
        with grpc.insecure_channel(server.address) as channel:
            rows = read(GRPCInferenceServiceStub(channel).ModelInfer(infer(*TEXTS)))["embedding"]
        assert server.stop() == 0
    assert alone.sparse is not None and alone.attention is not None and heaviest is not None
    assert alone.sparse.terms == tuple(tokenizer.id_to_token(one) or "" for one in alone.sparse.indices.tolist())
    assert np.all(alone.sparse.values > 0) and np.all(np.diff(alone.sparse.indices) > 0)
    for found, one in zip([*many, alone], [*expected, expected[0]], strict=True):
        np.testing.assert_allclose(found.vector, one, atol=1e-4)
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    np.testing.assert_allclose(np.sort(heaviest.values), np.sort(expected[0])[-3:], atol=1e-4)


def infer(*texts: str) -> oip.ModelInferRequest:
    """Texts of the Open Inference Protocol."""
    request = make_bytes_request("words", "text", *(text.encode() for text in texts))
    request.outputs.add(name="embedding")
    return request


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_a_sparse_encoder_is_read_as_it_means_it(strategy: str, activation: str, tmp_path: Path) -> None:
    """What makes weights of scores, and what is made of them; padding weighs nothing."""
    config = {"pooling_strategy": strategy, "activation_function": activation, "word_embedding_dimension": 64}
    folder = write_sparse_encoder(tmp_path / "net", config)
    source = load_folder(folder)
    assert source.traits.embedding is not None and source.network is not None
    assert (source.traits.embedding.sparse, source.traits.embedding.similarity) == (True, "dot")
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXTS[0]).ids
    padded = torch.tensor([ids + [1] * 5])
    mask = torch.tensor([[1] * len(ids) + [0] * 5])
    with torch.inference_mode():
        found = source.network(padded, mask)["embedding"][0].numpy()
    np.testing.assert_allclose(found, expect(folder, TEXTS[0], strategy, activation), atol=1e-5)


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    """By its name; and networks that have no such head."""
    odd = write_sparse_encoder(tmp_path / "odd", {"pooling_strategy": "mean"})
    with pytest.raises(CheckpointError, match="pooling_strategy 'mean'; expected max or sum"):
        load_folder(odd)
    odd = write_sparse_encoder(tmp_path / "other", {"activation_function": "softplus"})
    with pytest.raises(CheckpointError, match="activation_function 'softplus'; expected relu or log1p_relu"):
        load_folder(odd)
    static = write_sparse_encoder(tmp_path / "static", {}, first="SparseStaticEmbedding")
    with pytest.raises(CheckpointError, match=r"SparseStaticEmbedding: expected|SparseStaticEmbedding; expected"):
        load_folder(static)
    write_folder(shallow(FAMILIES["bert"]), tmp_path / "headless")
    make_tokenizer().save(str(tmp_path / "headless" / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"lacks \d+ weights: cls\.predictions"):
        load_folder(tmp_path / "headless", sparse=True)
    for kind in ("SpladePooling", "MLMTransformer"):
        dense = write_sentence_folder(tmp_path / kind, pooling("mean_tokens"), (kind, {}))
        with pytest.raises(CheckpointError, match=f"Transformer, Pooling, {kind}; expected one Transformer, then one"):
            load_folder(dense)
    write_folder(shallow(FAMILIES["flaubert"]), tmp_path / "lm-head")
    with pytest.raises(CheckpointError, match="flaubert has no head for masked words, which sparse vectors need"):
        load_folder(tmp_path / "lm-head", sparse=True)
    write_folder(shallow(FAMILIES["vit"]), tmp_path / "images")
    with pytest.raises(CheckpointError, match="has no head for masked words"):
        load_folder(tmp_path / "images", sparse=True)
    done = CliRunner().invoke(app, ["minilm", "--sparse", "--out", str(tmp_path / "models")])
    assert done.exit_code == 1
    assert "--sparse: minilm; expected a folder, or an id of the hub" in done.output.replace("\n", " ")
