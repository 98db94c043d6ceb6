"""Folders of ColBERT's own code: vectors a token, equal to its formula written out; samples read as the server does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import regard
from export.build import build
from export.samples import read_samples
from export.sources import load_folder
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.test_late_interaction import LENGTH as PYLATE_LENGTH
from tests.export.test_late_interaction import write_late
from tests.golden.make import make_tokenizer
from tests.processes import StartProcess

QUERY, DOCUMENTS = "the dog", ("a dog sat, on the mat!", "it is a very bad film", "cat")
DIM, LENGTH, WEIGHTS = 16, 9, "model.safetensors"
MARKS = {"query": "[unused0]", "doc": "[unused1]"}


def write_colbert(folder: Path, **settings: Any) -> Path:
    """A folder as ColBERT saves it: a BERT and a linear layer in one file, and artifact.metadata."""
    write_folder(shallow(FAMILIES["bert"]), folder)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(list(MARKS.values()))
    tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    torch.manual_seed(1)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(weights | {"linear.weight": torch.randn(DIM, config["hidden_size"])}, folder / WEIGHTS)
    told = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": LENGTH, "doc_maxlen": 12}
    told |= {"dim": DIM, "similarity": "cosine", "interaction": "colbert", "mask_punctuation": True, "nway": 64}
    (folder / "artifact.metadata").write_text(json.dumps(told | settings))
    return folder


def expect(folder: Path, text: str, kind: str, *, attends: bool, skips: bool) -> NDArray[np.float32]:
    """A text's vectors, float32 [T, DIM], as colbert/modeling/colbert.py has them."""
    tokenizer, weights = Tokenizer.from_file(str(folder / "tokenizer.json")), load_file(folder / WEIGHTS)
    network, at = transformers.AutoModel.from_pretrained(folder).eval(), tokenizer.get_vocab()
    ids = tokenizer.encode(f". {text}").ids
    ids[1] = at[MARKS[kind]]
    mask = [1] * len(ids)
    if kind == "query":
        missing = LENGTH - len(ids)
        ids, mask = ids + [at["[MASK]"]] * missing, mask + [int(attends)] * missing
    with torch.inference_mode():
        hidden = network(input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask])).last_hidden_state[0]
        vectors = torch.nn.functional.normalize(hidden @ weights["linear.weight"].T, p=2, dim=1).numpy()
    marks = {tokenizer.encode(mark, add_special_tokens=False).ids[0] for mark in ",.!"} if skips else set()
    kept: NDArray[np.float32] = vectors[[kind == "query" or one not in marks for one in ids]]
    return kept


@pytest.mark.parametrize(("attends", "skips"), [(False, True), (True, False)])
def test_vectors_and_scores_are_those_of_colbert(
    attends: bool, skips: bool, tmp_path: Path, start_process: StartProcess
) -> None:
    """Marks, queries filled up, punctuation left out, and MaxSim of both."""
    folder = write_colbert(tmp_path / "net", attend_to_mask_tokens=attends, mask_punctuation=skips)
    contract = build(load_folder(folder, name="colbert"), tmp_path / "models").contract
    assert contract.late is not None and (contract.late.query_tokens, contract.late.document_tokens) == (LENGTH, 12)
    query = expect(folder, QUERY, "query", attends=attends, skips=skips)
    documents = [expect(folder, text, "doc", attends=attends, skips=skips) for text in DOCUMENTS]
    with start_process("--models", str(tmp_path / "models")) as server, regard.Client(server.address) as client:
        found = client.embed(text=QUERY, model="colbert", role="query").vector
        many = client.embed_many(texts=list(DOCUMENTS), model="colbert")
        ranking = client.rank(QUERY, list(DOCUMENTS), model="colbert")
        assert server.stop() == 0
    np.testing.assert_allclose(found, query, atol=1e-4)
    for one, expected in zip(many, documents, strict=True):
        assert isinstance(one, regard.Embedding)
        np.testing.assert_allclose(one.vector, expected, atol=1e-4)
    scores = [float((query @ one.T).max(axis=1).sum()) for one in documents]
    assert {one.index: pytest.approx(one.score, abs=1e-3) for one in ranking.documents} == dict(enumerate(scores))


def test_what_colbert_does_not_say_is_its_default(tmp_path: Path) -> None:
    """Of lengths and marks; the network may take fewer tokens than a document is said to have."""
    folder = write_colbert(tmp_path / "net")
    (folder / "artifact.metadata").write_text(json.dumps({"dim": DIM, "doc_maxlen": 20}))
    late = load_folder(folder).late
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert late is not None and (late.query_tokens, late.document_tokens) == (32, 20)
    marks = tuple(map(tokenizer.token_to_id, MARKS.values()))
    assert (late.query_prefix, late.document_prefix) == marks
    assert (late.filler, late.attends_filler) == (tokenizer.token_to_id("[MASK]"), False)
    assert tokenizer.token_to_id("!") in late.skipped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity": "l2"}, "artifact.metadata: similarity 'l2'; expected 'cosine'"),
        ({"interaction": "flipr"}, "interaction 'flipr'; expected 'colbert'"),
        ({"dim": 8}, "does not fit the dense layer"),
        ({"dim": "16"}, "dim '16' of hidden_size"),
        ({"query_token_id": "[unused9]"}, r"query_token_id '\[unused9\]'; expected a token of tokenizer.json"),
        ({"doc_maxlen": 9999}, "doc_maxlen 9999; expected 4 to"),
    ],
)
def test_what_is_not_known_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(CheckpointError, match=message):
        load_folder(write_colbert(tmp_path / "net", **settings))


def test_samples_are_read_as_documents_and_as_queries(tmp_path: Path) -> None:
    """With their prefixes, two of each in turn, so that both halves have both; fillers are not attended to."""
    folder, samples = write_late(tmp_path / "net"), tmp_path / "samples.txt"
    samples.write_text("the cat\na dog\none film\n\nvery good\n")
    at = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    feeds = read_samples(samples, load_folder(folder))
    prefixes = [int(feed["input_ids"][0, 1]) for feed in feeds]
    query, document = at["[Q] "], at["[D] "]
    assert prefixes == [document, document, query, query] * 2
    assert [feed["input_ids"].shape[1] for feed in feeds[2:4]] == [PYLATE_LENGTH] * 2
    assert feeds[2]["attention_mask"].tolist() == [[1] * 5 + [0] * (PYLATE_LENGTH - 5)]
    assert feeds[0]["attention_mask"].tolist() == [[1] * 5]
    assert feeds[0]["input_ids"].dtype == feeds[2]["attention_mask"].dtype == np.int64
    assert feeds[0]["input_ids"][0, 2] == feeds[2]["input_ids"][0, 2] == at["the"]
