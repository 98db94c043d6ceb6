import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from export.build import build
from export.classes import count_classes, name_classes, read_activation
from export.sources import load_folder
from model.checkpoint import CheckpointError
from tests.export.families import FAMILIES, shallow, write_folder

TOLD = "sbert_ce_default_activation_function"  # before release 4 of sentence-transformers


def test_classes_are_named_in_the_order_of_the_logits() -> None:
    """Those without a name are numbered."""
    assert name_classes({"id2label": {"1": "good", "0": "bad"}}, 3) == ("bad", "good", "LABEL_2")
    assert name_classes({}, 0) == ()


@pytest.mark.parametrize(
    ("config", "count"),
    [({}, 1), ({"problem_type": "regression"}, 2), ({"problem_type": "multi_label_classification"}, 3)],
)
def test_scores_that_do_not_exclude_each_other_have_no_classes(config: dict[str, Any], count: int) -> None:
    """A reranker's score would be certain of itself; of several tags that are right none would be likely."""
    assert name_classes(config | {"id2label": {0: "a", 1: "b", 2: "c"}}, count) == ()


@pytest.mark.parametrize(
    ("name", "axes", "expected"),
    [
        ("logits", ["batch", 3], 3),
        ("logits", ["batch", "classes"], 0),
        ("logits", ["batch", "seq_len", 3], 0),  # of every token
        ("logits", None, 0),
        ("scores", ["batch", 3], 0),
    ],
)
def test_classes_are_counted_by_the_logits_of_a_row(name: str, axes: Any, expected: int) -> None:
    """Where the file says how many there are."""
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
    assert count_classes(helper.make_model(helper.make_graph([], "graph", [], [output]))) == expected


@pytest.mark.parametrize(
    ("config", "count", "expected"),
    [
        ({}, 1, "sigmoid"),
        ({}, 3, "softmax"),
        ({}, 0, None),
        ({"problem_type": "regression"}, 1, "identity"),
        ({"problem_type": "multi_label_classification"}, 3, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, 1, "identity"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, 3, "sigmoid"),
        ({TOLD: "torch.nn.modules.linear.Identity"}, 1, "identity"),
        ({TOLD: None}, 1, "sigmoid"),
    ],
)
def test_what_makes_scores_of_logits_is_read(
    config: dict[str, Any], count: int, expected: str | None, tmp_path: Path
) -> None:
    """A cross-encoder's own, else the library's default."""
    assert read_activation(tmp_path, config, count) == expected


def test_the_newest_cross_encoders_tell_it_in_a_file_of_their_own(tmp_path: Path) -> None:
    """Which goes before config.json; what torch does not bring, or nobody here has, is refused by name."""
    file = tmp_path / "config_sentence_transformers.json"
    for name, count, expected in (("linear.Identity", 1, "identity"), ("activation.Softmax", 3, "softmax")):
        file.write_text(json.dumps({"activation_fn": f"torch.nn.modules.{name}"}))
        assert read_activation(tmp_path, {TOLD: "torch.nn.modules.activation.Sigmoid"}, count) == expected
    for name in ("torch.nn.modules.activation.Tanh", "mine.Sigmoid"):
        file.write_text(json.dumps({"activation_fn": name}))
        with pytest.raises(CheckpointError, match=f"activation_fn {name}; expected torch's Identity, Sigmoid, Softmax"):
            read_activation(tmp_path, {}, 1)


@pytest.mark.parametrize("name", ["bert, text classifier", "distilbert, text classifier"])
def test_a_cross_encoders_contract_says_what_makes_its_scores(name: str, tmp_path: Path) -> None:
    """One logit, and no classes; whether the network is read by model/ or by the library, as new files list it."""
    family = shallow(FAMILIES["distilbert, text classifier" if name.startswith("distil") else "bert"])
    one = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    family = dataclasses.replace(family, task="SequenceClassification", config=family.config | one)
    folder = write_folder(family, tmp_path / "net")
    (folder / "modules.json").write_text(
        '[{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]'
    )
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    contract = build(load_folder(folder), tmp_path / "models").contract
    assert (contract.activation, contract.labels) == ("identity", ())
    (logits,) = (spec for spec in contract.outputs if spec.name == "logits")
    assert logits.axes == ("batch", 1)
