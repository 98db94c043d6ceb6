"""What the classes of a classifier are called, where exactly one of them is right, and what makes scores of logits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto

from artifact.contract import Activation
from export.sentence_transformers import SETTINGS_FILE, read_settings, torch_class
from model.checkpoint import CheckpointError

_ACTIVATIONS: dict[str, Activation] = {"Identity": "identity", "Sigmoid": "sigmoid", "Softmax": "softmax"}
# Scores of these are no logits of classes that exclude each other: the server's softmax would be wrong of them.
_OTHER_PROBLEMS = ("regression", "multi_label_classification")


def name_classes(config: dict[str, Any], count: int) -> tuple[str, ...]:
    """Return the names in the order of the logits; none for a single score, or classes of which several may be right.

    Args:
        config: Of a checkpoint, with id2label and problem_type or without.
        count: Of the logits; 0 where there are none.
    """
    if count == 1 or config.get("problem_type") in _OTHER_PROBLEMS:
        return ()
    names = {int(index): str(label) for index, label in (config.get("id2label") or {}).items()}
    return tuple(names.get(index, f"LABEL_{index}") for index in range(count))


def read_activation(folder: Path, config: Mapping[str, Any], count: int) -> Activation | None:
    """Tell what makes scores of logits, as sentence-transformers does for cross-encoders.

    Args:
        folder: Of the checkpoint, whose newer files of sentence-transformers have it beside config.json.
        config: The content of config.json.
        count: Of the logits; 0 where there are none.

    Raises:
        CheckpointError: It is one that is not known, or makes 1 of every score.
    """
    if not count:
        return None
    told = read_settings(folder).get("activation_fn") or (config.get("sentence_transformers") or {}).get(
        "activation_fn"
    )
    if told := told or config.get("sbert_ce_default_activation_function"):
        field = f"{folder / 'config.json'} or {SETTINGS_FILE}: activation_fn"
        activation = _ACTIVATIONS[torch_class(told, _ACTIVATIONS, field)]
        if count == 1 and activation == "softmax":
            raise CheckpointError(f"{field}: {told} of a single score, which is always 1; expected Sigmoid or Identity")
        return activation
    if config.get("problem_type") == "regression":
        return "identity"
    return "sigmoid" if count == 1 or config.get("problem_type") == "multi_label_classification" else "softmax"


def count_classes(graph: ModelProto) -> int:
    """Width of the logits [batch, classes]; 0 where there are none, or some of every token."""
    logits = next((value for value in graph.graph.output if value.name == "logits"), None)
    match list(logits.type.tensor_type.shape.dim) if logits else []:
        case [_, classes]:
            return int(classes.dim_value)
    return 0
