"""A model whose weights are noise: a measure that draws the same map for it does not depend on what was learned.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.1. The numbers of every matrix are shuffled within it,
so that their distribution stays; what the artifact keeps outside its weights file, short vectors, stays as well.
"""

import shutil
from collections.abc import Iterator, Set
from pathlib import Path

import numpy as np
import onnx

from artifact.contract import CONTRACT_FILE, HIDDEN_GRAPH, WEIGHTS_FILE, Contract, read_contract
from artifact.files import hash_file

_EXTERNAL, _FLOAT = onnx.TensorProto.EXTERNAL, onnx.TensorProto.FLOAT
_SEED = 0

Span = tuple[int, int]
"""Where a tensor lies in the weights file: offset and length in bytes."""


def randomise(artifact: Path, target: Path, chosen: Set[Span] | None = None) -> None:
    """Copy an artifact with the weights shuffled.

    Args:
        artifact: Folder of one version of a model in float32.
        target: Folder to be made.
        chosen: Which tensors; by default all. One is shuffled alike whichever others are.

    Raises:
        ValueError: It has no weights file that could be shuffled.
    """
    shutil.copytree(artifact, target)
    file = target / WEIGHTS_FILE
    spans = sorted({span for graph in artifact.glob("*.onnx") for span in _spans(graph)})
    if not spans:
        raise ValueError(f"{artifact}: no float32 matrices in {WEIGHTS_FILE}")
    weights, random = np.fromfile(file, dtype=np.uint8), np.random.default_rng(_SEED)
    for offset, length in spans:
        numbers = weights[offset : offset + length].view(np.float32)
        shuffled = random.permutation(numbers)
        if chosen is None or (offset, length) in chosen:
            numbers[:] = shuffled
    weights.tofile(file)
    contract = read_contract(target / CONTRACT_FILE)
    files = {**contract.files, WEIGHTS_FILE: hash_file(file)}
    (target / CONTRACT_FILE).write_text(contract.model_copy(update={"files": files}).model_dump_json())


def cascade(artifact: Path, contract: Contract) -> Iterator[tuple[str, Set[Span] | None]]:
    """The depths of a cascading randomisation (the same, section 3.1): from the top down, one layer more each time.

    A tensor belongs to the lowest layer whose output rests on it; what no layer's output rests on is the head.

    Yields:
        Down to where it goes, and the tensors; in the end all: None.

    Raises:
        ValueError: The artifact does not tell what enters and leaves its layers.
    """
    if not contract.hidden_states:
        raise ValueError(
            f"{contract.name}: has no {HIDDEN_GRAPH}; --cascade expects a model that tells its layers apart"
        )
    graph = onnx.load(artifact / HIDDEN_GRAPH, load_external_data=False).graph
    spans = _named_spans(graph)
    makers = {output: node for node in graph.node for output in node.output}
    chosen = set(spans.values())
    for state in reversed(contract.hidden_states):
        waiting, seen = [state.output], {state.output}
        while waiting:
            if (maker := makers.get(waiting.pop())) is not None:
                new = set(maker.input) - seen
                waiting += new
                seen |= new
        kept = {span for name, span in spans.items() if name in seen}
        yield f"layer {state.layer + 1}" if state is not contract.hidden_states[-1] else "head", chosen - kept
    yield "all", None


def _spans(graph: Path) -> list[Span]:
    return list(_named_spans(onnx.load(graph, load_external_data=False).graph).values())


def _named_spans(graph: onnx.GraphProto) -> dict[str, Span]:
    """Where the float32 tensors of a graph lie in the weights file."""
    found = {}
    for tensor in graph.initializer:
        if tensor.data_location == _EXTERNAL and tensor.data_type == _FLOAT:
            told = {entry.key: entry.value for entry in tensor.external_data}
            found[tensor.name] = (int(told.get("offset", 0)), int(told["length"]))
    return found
