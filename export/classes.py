"""What the classes of a classifier are called, where exactly one of them is right."""

from typing import Any

from onnx import ModelProto

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


def count_classes(graph: ModelProto) -> int:
    """Width of the logits [batch, classes]; 0 where there are none, or some of every token."""
    logits = next((value for value in graph.graph.output if value.name == "logits"), None)
    match list(logits.type.tensor_type.shape.dim) if logits else []:
        case [_, classes]:
            return int(classes.dim_value)
    return 0
