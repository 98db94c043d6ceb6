"""Pairs of texts: token types as the tokenizer makes them, from a folder or an ONNX file to scores; or refused."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, processors

import regard
from export.build import build
from export.errors import SampleError
from export.graph_source import load_graph
from export.samples import read_samples
from export.sources import load_folder
from export.tokenizer_files import count_pair_types, joins_pairs
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, shallow, write_folder
from tests.export.networks import Texts, spread, write_texts
from tests.export.sentences import NEW, pooling, write_sentence_folder
from tests.golden.make import make_tokenizer
from tests.processes import StartProcess

BERT = "[CLS] $A [SEP] $B:1 [SEP]:1"
ROBERTA = "[CLS] $A [SEP] [SEP] $B [SEP]"
ROWS = "[CLS] $A $B [SEP]"
QUERY, DOCUMENTS = "see the dog", ("the dog sat on a mat", "a bad film", "it is very good to see a cat and a dog")


def write_cross_encoder(folder: Path, family: str, template: str = BERT, classes: int = 1, **config: Any) -> Path:
    """A folder of the library with random weights, a score or classes, and a tokenizer that joins pairs."""
    labels = {str(number): f"class {number}" for number in range(classes)}
    given = {"id2label": labels, "label2id": {label: int(number) for number, label in labels.items()}, **config}
    whole = FAMILIES[family]
    made = shallow(dataclasses.replace(whole, task="SequenceClassification", config=whole.config | given))
    write_folder(made, folder)
    make_tokenizer(template).save(str(folder / "tokenizer.json"))
    return folder


def expect(folder: Path, first: str, second: str) -> NDArray[np.float32]:
    """The library's logits of a pair alone."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(first, second)
    given = {"input_ids": torch.tensor([found.ids])}
    if network.config.model_type not in ("distilbert", "roberta"):
        given["token_type_ids"] = torch.tensor([found.type_ids])
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(**given).logits[0].numpy()
    return logits


def names(inputs: Any) -> list[str]:
    """Of a contract."""
    return [spec.name for spec in inputs]


@pytest.mark.parametrize(
    ("family", "template", "told"),
    [("bert", BERT, True), ("electra", BERT, True), ("distilbert", BERT, False), ("roberta", ROBERTA, False)],
)
def test_scores_are_those_of_the_library(
    family: str, template: str, told: bool, tmp_path: Path, start_process: StartProcess
) -> None:
    """Of a folder of each kind: read by model/, by the library, told of token types or not."""
    folder = write_cross_encoder(tmp_path / "net", family, template)
    contract = build(load_folder(folder, name="ranks"), tmp_path / "models").contract
    assert contract.text and contract.text.pairs and contract.ranks
    assert ("token_type_ids" in names(contract.inputs)) == told
    expected = [expect(folder, QUERY, text)[0] for text in DOCUMENTS]
    if told:
        assert abs(expect(folder, QUERY, QUERY) - expect(folder, QUERY, QUERY + " dog")).max() > 1e-3
    with start_process("--models", str(tmp_path / "models")) as server, regard.Client(server.address) as client:
        ranking = client.rank(QUERY, DOCUMENTS, raw_scores=True)
        scores = client.rank(QUERY, DOCUMENTS)
        assert server.stop() == 0
    found = {one.index: one.score for one in ranking.documents}
    np.testing.assert_allclose([found[place] for place in range(3)], expected, atol=1e-4)
    assert [one.index for one in scores.documents] == np.argsort(-np.array(expected)).tolist()
    sigmoids = 1 / (1 + np.exp(-np.sort(expected)[::-1]))
    np.testing.assert_allclose([one.score for one in scores.documents], sigmoids, atol=1e-4)


def test_an_inference_of_two_texts_is_classified(tmp_path: Path, start_process: StartProcess) -> None:
    """A premise and a hypothesis; three classes."""
    folder = write_cross_encoder(tmp_path / "net", "bert", classes=3)
    contract = build(load_folder(folder, name="nli"), tmp_path / "models").contract
    assert contract.text and contract.text.pairs and not contract.ranks
    with start_process("--models", str(tmp_path / "models")) as server, regard.Client(server.address) as client:
        labels = client.classify(pair=(QUERY, DOCUMENTS[0])).labels
        assert server.stop() == 0
    logits = expect(folder, QUERY, DOCUMENTS[0]).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(
        [label.probability for label in sorted(labels, key=lambda one: one.index)], expected, atol=1e-5
    )


def test_an_onnx_file_keeps_its_token_types(tmp_path: Path) -> None:
    """Where its tokenizer makes two; else they are zeros, and without its configuration nobody knows more."""
    onnx.save_model(write_texts(spread(Texts())), tmp_path / "mine.onnx")
    make_tokenizer(BERT).save(str(tmp_path / "tokenizer.json"))
    source = load_graph(tmp_path / "mine.onnx")
    assert source.pairs
    assert [(spec.name, spec.bound, spec.token_types) for spec in source.traits.inputs][2] == (
        "token_type_ids",
        2,
        True,
    )
    contract = build(source, tmp_path / "models").contract
    assert names(contract.inputs) == ["input_ids", "attention_mask", "token_type_ids"]
    make_tokenizer().save(str(tmp_path / "tokenizer.json"))
    single = load_graph(tmp_path / "mine.onnx")
    assert (single.pairs, names(single.traits.inputs)) == (False, ["input_ids", "attention_mask"])


def test_an_onnx_file_that_has_lost_its_token_types_takes_no_pairs(tmp_path: Path) -> None:
    """Its scores would be others than the network's."""
    model = write_texts(spread(Texts()))
    zeros = onnx.helper.make_node("ConstantOfShape", ["shape"], ["token_type_ids"])
    zeros.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.zeros(1, np.int64))))
    shape = onnx.helper.make_node("Shape", ["input_ids"], ["shape"])
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([shape, zeros, *rest])
    model.graph.input.remove(next(value for value in model.graph.input if value.name == "token_type_ids"))
    onnx.save_model(model, tmp_path / "mine.onnx")
    make_tokenizer(BERT).save(str(tmp_path / "tokenizer.json"))
    assert not load_graph(tmp_path / "mine.onnx").pairs
    for config, pairs in (({"type_vocab_size": 2}, False), ({"model_type": "distilbert"}, True)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert load_graph(tmp_path / "mine.onnx").pairs == pairs
    make_tokenizer(ROBERTA).save(str(tmp_path / "tokenizer.json"))
    assert load_graph(tmp_path / "mine.onnx").pairs


def test_an_onnx_file_of_a_cross_encoder_keeps_its_pairs(tmp_path: Path) -> None:
    """Its folder is of sentence-transformers, too, but embeds nothing; prompts that it cannot keep are refused."""
    onnx.save_model(write_texts(spread(Texts())), tmp_path / "mine.onnx")
    make_tokenizer(BERT).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "modules.json").write_text("[]")
    assert not load_graph(tmp_path / "mine.onnx").pairs
    settings = tmp_path / "config_sentence_transformers.json"
    told = {"model_type": "CrossEncoder", "prompts": {"q": "query: "}}
    settings.write_text(json.dumps(told))
    source = load_graph(tmp_path / "mine.onnx")
    assert (source.pairs, source.prompts) == (True, {})
    settings.write_text(json.dumps(told | {"default_prompt_name": "q"}))
    with pytest.raises(CheckpointError, match="default_prompt_name 'q'; expected none: nothing is put before pairs"):
        load_graph(tmp_path / "mine.onnx")


def test_a_single_score_is_no_softmax(tmp_path: Path) -> None:
    """It would be 1 of every document."""
    folder = write_cross_encoder(tmp_path / "net", "bert", sentence_transformers={"activation_fn": "torch.nn.Softmax"})
    with pytest.raises(CheckpointError, match="Softmax of a single score, which is always 1; expected Sigmoid"):
        load_folder(folder)


def test_samples_of_pairs_are_pairs(tmp_path: Path) -> None:
    """With a tab between, and the tokenizer's types; a line without one is a single text."""
    source = load_folder(write_cross_encoder(tmp_path / "net", "bert"), name="ranks")
    file = tmp_path / "pairs.tsv"
    file.write_text("see the dog\tthe dog sat\n" * 7 + "a bad film\n")
    *pairs, single = read_samples(file, source)
    expected = Tokenizer.from_file(str(source.tokenizer_file)).encode("see the dog", "the dog sat")
    for feed in pairs:
        assert feed["input_ids"].tolist() == [expected.ids]
        assert feed["token_type_ids"].tolist() == [expected.type_ids]
        assert feed["attention_mask"].tolist() == [[1] * len(expected.ids)]
    assert not single["token_type_ids"].any()
    file.write_text("a\tb\n\n" * 8 + "a\t \n")
    with pytest.raises(SampleError, match=r"pairs\.tsv, line 17: pair\.second: empty"):
        read_samples(file, source)


@pytest.mark.parametrize(("template", "types"), [(BERT, 2), (ROBERTA, 1), (ROWS, 0), (None, 0)])
def test_what_a_tokenizer_makes_of_a_pair_is_told(template: str | None, types: int, tmp_path: Path) -> None:
    """Texts that stand in a row with nothing between them are no pair; padding and cutting do not count."""
    tokenizer = make_tokenizer(template)
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert count_pair_types(tmp_path / "tokenizer.json") == types


def test_a_tokenizer_without_a_template_joins_nothing(tmp_path: Path) -> None:
    """The library then writes one text behind the other."""
    tokenizer = make_tokenizer()
    tokenizer.post_processor = processors.Sequence([])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert count_pair_types(tmp_path / "tokenizer.json") == 0


@pytest.mark.parametrize(
    ("types", "rows", "joined"),
    [
        (0, 2, False),
        (1, None, True),
        (1, 1, True),
        (2, 2, True),
        (2, 0, True),
        (2, 1, False),
        (2, None, False),
        (3, 2, False),
    ],
)
def test_a_network_reads_pairs_whose_types_it_tells_apart(types: int, rows: int | None, joined: bool) -> None:
    """Or of which it is not told at all, as it was trained."""
    assert joins_pairs(types, rows) == joined


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_what_embeds_single_texts_is_told_of_no_types(family: str, tmp_path: Path) -> None:
    """As sentence-transformers reads them: a plain request pays for nothing."""
    folder = write_sentence_folder(tmp_path / "net", pooling("mean_tokens"), family=family, package=NEW)
    make_tokenizer(BERT).save(str(folder / "tokenizer.json"))
    source = load_folder(folder)
    assert (source.pairs, len(source.traits.inputs)) == (False, 2)
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").unlink()
    alone = load_folder(folder)
    assert (alone.pairs, len(alone.traits.inputs)) == (True, 3)


def test_a_tokenizer_that_knows_no_letters_joins_nothing(tmp_path: Path) -> None:
    """Of proteins, say, and without an unknown token; its own texts are read as before."""
    words = Tokenizer(models.WordLevel({"MK": 0, "LV": 1}))
    words.save(str(tmp_path / "tokenizer.json"))
    assert count_pair_types(tmp_path / "tokenizer.json") == 0
