"""CaiT from a file, served: talking heads between patches, and the class token's attention to them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import regard
from regard import pictures
from regard.matrices import unit_name
from regard.sources import InputError
from regard.views import ViewOptions, request_for
from tests.export.cait import Cait
from tests.export.command_line import export
from tests.export.networks import spread, write_images
from tests.export.tapping import numbers
from tests.processes import PHOTOS

CHELSEA = PHOTOS / "chelsea.jpg"
UNSHARED = "which mixes its heads: its rows need not sum to 1, and may hold negative numbers"


def test_cait_is_exported_and_served(out: Path, tmp_path: Path, start_process: Any) -> None:
    """Numbers as torch computes them, what is said of each layer, and pictures of the class token's row."""
    network = spread(Cait())
    onnx.save_model(write_images(network, 17), tmp_path / "cait.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "cup"}}))
    contract = export(tmp_path / "cait.onnx", out)
    assert contract.patches
    assert (contract.patches.prefix_tokens, contract.patches.rows) == (0, 4)
    assert [(one.kind, one.query_axis, one.key_axis) for one in contract.attention] == [
        ("self", 16, 16),
        ("self", 16, 16),
        ("cross", 1, 17),
        ("cross", 1, 17),
    ]
    checks = {line.tensor: set[str]() for line in contract.verification}
    for line in contract.verification:
        checks[line.tensor].add(line.check)
    assert "rows sum alike" in checks["attention.0"]
    assert "rows sum to 1" in checks["attention.2"]
    pixels = numbers(3, 3, 32, 32)
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        model = client.model("cait")
        given = client.predict({"pixel_values": pixels}, attention=regard.AttentionRequest())
        photo = client.classify(image=CHELSEA, attention=regard.AttentionRequest())
        last = client.classify(image=CHELSEA, attention=regard.AttentionRequest(layers=(-1,), cls_only=True))
        added = client.classify(image=CHELSEA, attention=regard.AttentionRequest(layers=(1,), measure="contribution"))
        for asked in ({"measure": "rollout"}, {"measure": "entropy"}, {"renormalize": True}, {"dtype": "uint8"}):
            with pytest.raises(regard.RegardError, match=f"of layer 0, {UNSHARED}"):
                client.classify(image=CHELSEA, attention=regard.AttentionRequest(layers=(0,), **asked))
        with pytest.raises(regard.RegardError, match=r"attention.cls_only: layer 1 of cait has no class token"):
            client.classify(image=CHELSEA, attention=regard.AttentionRequest(layers=(1, 2), cls_only=True))
    assert [(one.mixes_heads, one.class_attention) for one in model.attention_layers] == [
        (True, False),
        (True, False),
        (False, True),
        (False, True),
    ]
    with torch.inference_mode():
        logits, weights = network.explain(torch.from_numpy(pixels))
    np.testing.assert_allclose(given.outputs["logits"], logits.numpy(), atol=1e-4)
    assert given.attention
    for found, expected in zip(given.attention.layers, weights, strict=True):
        np.testing.assert_allclose(found.weights, expected.numpy(), atol=1e-4)
    assert photo.attention and last.attention and added.attention and photo.attention.patches
    assert [one.weights.shape for one in photo.attention.layers] == [(4, 16, 16)] * 2 + [(4, 1, 17)] * 2
    np.testing.assert_allclose(last.attention.layers[0].weights, photo.attention.layer(-1).weights, atol=1e-5)
    assert (added.attention.layers[0].weights >= 0).all()
    patches_alone, of_class = photo.attention.layer(1), last.attention.layers[0]
    assert unit_name(patches_alone) == "attention weight (below 0 as 0)"
    assert unit_name(of_class) == "attention weight"
    opened = pictures.open_photo(CHELSEA.read_bytes())
    drawn = pictures.overlay(opened, of_class, photo.attention.patches, model="cait")
    assert "what the class token attends to" in drawn.axes[0].get_title().replace("\n", " ")
    pictures.head_grid(opened, patches_alone, photo.attention.patches, model="cait")


def test_what_is_asked_for_by_the_command_line_is_what_layers_have() -> None:
    """Charts are of layers whose rows are shares; where none are, it says why."""
    mixed = regard.AttentionLayer(0, "self", 4, has_contributions=True, mixes_heads=True)
    usual, of_class = regard.AttentionLayer(1, "self", 4), regard.AttentionLayer(2, "cross", 4, class_attention=True)
    grid = regard.PatchGrid(0, 4, 4, 8)

    def model(*layers: regard.AttentionLayer) -> regard.Model:
        return regard.Model(
            *("cait", "1", "onnx", "", (), (), "image", True, (), False, 0, False, layers, grid),
            max_tokens=0,
            max_batch_size=1,
            max_inputs=1,
            device="cpu",
            precision="float32",
        )

    assert request_for("entropy", ViewOptions(), model(mixed, usual, of_class)).layers == (1, 2)
    assert request_for("distance", ViewOptions(), model(mixed, usual, of_class)).layers == (1,)
    assert request_for("overlay", ViewOptions(measure="rollout"), model(mixed, usual)).layers == (1,)
    assert request_for("overlay", ViewOptions(measure="contribution_rollout"), model(mixed, usual)).layers == (0,)
    for view, options in (("entropy", ViewOptions()), ("overlay", ViewOptions(measure="rollout"))):
        with pytest.raises(InputError, match="cait mixes its heads, so that rows need not sum to 1"):
            request_for(view, options, model(mixed))  # type: ignore[arg-type]
    dropped = request_for("overlay", ViewOptions(drop_special=True, layers=(-1,)), model(usual, of_class))
    assert dropped.keys == tuple(range(1, 17))
    with pytest.raises(InputError, match="--drop-special: some layers see the class token, others do not"):
        request_for("overlay", ViewOptions(drop_special=True, layers=(0, 1)), model(usual, of_class))
    with pytest.raises(InputError, match="--drop-special: layer 0 of cait mixes its heads, so that rows need not"):
        request_for("heads", ViewOptions(drop_special=True, layers=(1, 0)), model(mixed, usual))
    added = ViewOptions(drop_special=True, measure="contribution", layers=(0,))
    assert request_for("overlay", added, model(mixed, usual)).renormalize
