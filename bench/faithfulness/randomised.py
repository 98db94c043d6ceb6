"""A model whose weights are noise: a measure that draws the same map for it does not depend on what was learned.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3.1. The numbers of every matrix are shuffled within it,
so that their distribution stays; what the artifact keeps outside its weights file, short vectors, stays as well.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx

from artifact.contract import CONTRACT_FILE, WEIGHTS_FILE, read_contract
from artifact.files import hash_file

_EXTERNAL, _FLOAT = onnx.TensorProto.EXTERNAL, onnx.TensorProto.FLOAT
_SEED = 0


def randomise(artifact: Path, target: Path) -> None:
    """Copy an artifact with the weights shuffled.

    Args:
        artifact: Folder of one version of a model in float32.
        target: Folder to be made.

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
        random.shuffle(weights[offset : offset + length].view(np.float32))
    weights.tofile(file)
    contract = read_contract(target / CONTRACT_FILE)
    files = {**contract.files, WEIGHTS_FILE: hash_file(file)}
    (target / CONTRACT_FILE).write_text(contract.model_copy(update={"files": files}).model_dump_json())


def _spans(graph: Path) -> list[tuple[int, int]]:
    """Where the float32 tensors of a graph lie in the weights file: offset and length in bytes."""
    found = []
    for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
        if tensor.data_location == _EXTERNAL and tensor.data_type == _FLOAT:
            told = {entry.key: entry.value for entry in tensor.external_data}
            found.append((int(told.get("offset", 0)), int(told["length"])))
    return found
