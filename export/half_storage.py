"""Stores weights in half the bytes where that loses nothing: as float16, which graphs cast back to float32."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, external_data_helper, helper

from artifact.contract import WEIGHTS_FILE
from artifact.dtypes import Array
from export.graph import append_weights

_HALF = ".float16"  # behind a tensor's name


def store_halves(folder: Path, graphs: Sequence[str]) -> None:
    """Write the weights that several graphs share again, each tensor as float16 if all its numbers are some.

    ONNX Runtime casts constants once, when it loads a graph: runs compute and take the same.

    Args:
        folder: Holds graphs and weights.
        graphs: File names of all that use the weights.
    """
    models = {name: onnx.load(folder / name, load_external_data=False) for name in graphs}
    old, new = folder / WEIGHTS_FILE, folder / f"{WEIGHTS_FILE}.new"
    stored, places = np.memmap(old, np.uint8, "r"), dict[tuple[int, int], tuple[int, int]]()
    with new.open("wb") as file:
        for model in models.values():
            for tensor in list(model.graph.initializer):
                if not external_data_helper.uses_external_data(tensor):
                    continue
                info = external_data_helper.ExternalDataInfo(tensor)
                place = (info.offset or 0, info.length or 0)
                content = stored[place[0] : sum(place)]
                half = _halve(tensor, content)
                if place not in places:
                    data = content.tobytes() if half is None else half.tobytes()
                    places[place] = (append_weights(file, data), len(data))
                offset, length = places[place]
                tensor.raw_data = b""  # which is what set_external_data replaces
                external_data_helper.set_external_data(tensor, WEIGHTS_FILE, offset=offset, length=length)
                tensor.ClearField("raw_data")
                if half is not None:
                    _cast(model, tensor)
    for name, model in models.items():
        onnx.save_model(model, folder / name)
    del stored
    new.replace(old)


def _halve(tensor: TensorProto, content: Array) -> Array | None:
    """The numbers of a tensor as float16; None where one would change."""
    if tensor.data_type != TensorProto.FLOAT:
        return None
    numbers = np.frombuffer(content, np.float32)
    with np.errstate(over="ignore"):
        half = numbers.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), numbers) else None


def _cast(model: ModelProto, tensor: TensorProto) -> None:
    """Let a graph make a tensor of a float16 one."""
    name = tensor.name
    tensor.name, tensor.data_type = f"{name}{_HALF}", TensorProto.FLOAT16
    model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
