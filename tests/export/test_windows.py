"""Networks whose layers attend in windows (Swin, SAM), from a folder to the weights of every query."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionLayer
from transformers.models.swin.modeling_swin import window_partition
from typer.testing import CliRunner

from artifact.contract import PatchContract, WindowContract
from artifact.windows import PADDING, window_cells
from export.__main__ import app
from export.build import Built, build
from export.errors import TapError, VerificationError
from export.graph_source import load_graph
from export.sources import load_folder
from export.traits import own_traits
from export.transformers_folder import TransformersNetwork
from export.transformers_windows import find_windows
from model.checkpoint import CheckpointError
from model.encoder import EncoderConfig
from model.vit import VisionTransformer, ViTConfig
from tests.export.families import FAMILIES, write_folder
from tests.export.small.family import Config

SHIFTED: Config = {"depths": [2, 2]}
# By name: a family and how it differs from its small network. Windows of 3 do not fit grids of 8, 4 and 5 cells.
NETWORKS: dict[str, tuple[str, Config]] = {
    "swin": ("swin, image classifier", SHIFTED | {"window_size": 3}),
    "swinv2": ("swinv2", SHIFTED | {"image_size": 40, "window_size": 3}),
    "sam": ("sam_vision_model", {"window_size": 3, "num_hidden_layers": 2}),
}
GRIDS: dict[str, list[tuple[int, int, int, int] | None]] = {
    "swin": [(8, 3, 0, 4), (8, 3, 1, 4), (4, 3, 0, 8), (4, 3, 1, 8)],
    "swinv2": [(10, 3, 0, 4), (10, 3, 1, 4), (5, 3, 0, 8), (5, 3, 1, 8)],
    "sam": [(4, 3, 0, 8), None],
}
Maker = Callable[[str], tuple[TransformersNetwork, Built]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Write a network's folder and export it, each once."""
    made: dict[str, tuple[TransformersNetwork, Built]] = {}

    def one(name: str) -> tuple[TransformersNetwork, Built]:
        if name not in made:
            scratch = tmp_path_factory.mktemp("windows")
            source = load_folder(folder_of(name, scratch / name))
            assert isinstance(source.network, TransformersNetwork)
            made[name] = source.network, build(source, scratch / "models")
        return made[name]

    return one


def folder_of(name: str, folder: Path) -> Path:
    """Write a network's folder."""
    family, own = NETWORKS[name]
    return write_folder(replace(FAMILIES[family], config=FAMILIES[family].config | own), folder)


def squares(name: str) -> list[WindowContract | None]:
    """The windows that a network's layers have."""
    return [
        one
        and WindowContract(
            rows=one[0],
            cols=one[0],
            height=one[1],
            width=one[1],
            shift_rows=one[2],
            shift_cols=one[2],
            cell_size=one[3],
        )
        for one in GRIDS[name]
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_contract_says_how_each_layer_lies_in_windows(name: str, make: Maker) -> None:
    """Queries are the cells of the layer's own grid, keys the positions of a window; a global layer has no window."""
    _, built = make(name)
    layers, windows = built.contract.attention, squares(name)
    assert [layer.window for layer in layers] == windows
    for layer, window in zip(layers, windows, strict=True):
        expected = (window.queries, window.keys) if window else (16, 16)
        assert (layer.query_axis, layer.key_axis, layer.kind) == (*expected, "self")
    first = windows[0]
    assert first
    assert built.contract.patches
    assert built.contract.patches.model_dump() == {
        "prefix_tokens": 0,
        "rows": first.rows,
        "cols": first.cols,
        "patch_size": first.cell_size,
    }
    assert built.contract.image


@pytest.mark.parametrize("name", NETWORKS)
def test_every_querys_row_is_that_of_its_window_in_the_library(name: str, make: Maker) -> None:
    """Row by row and key by key, of three different images in one batch, and of each alone."""
    network, built = make(name)
    edge = int(built.contract.inputs[0].axes[-1])
    pixels = np.random.default_rng(1).standard_normal((3, 3, edge, edge), dtype=np.float32)
    session = onnxruntime.InferenceSession(built.folder / "attention.onnx", providers=["CPUExecutionProvider"])
    names = [layer.output for layer in built.contract.attention]
    together = session.run(names, {"pixel_values": pixels})
    alone = [session.run(names, {"pixel_values": pixels[row : row + 1]}) for row in range(3)]
    for layer, (weights, window) in enumerate(zip(ask_library(network, pixels), squares(name), strict=True)):
        heads, keys = together[layer].shape[1], together[layer].shape[3]
        cells = cells_of_the_library(window) if window else np.arange(keys)[np.newaxis]
        by_window = weights.reshape(3, len(cells), heads, keys, keys)
        for which, places in enumerate(cells):
            for place, cell in enumerate(places):
                if cell != PADDING:
                    expected = by_window[:, which, :, place]
                    np.testing.assert_allclose(together[layer][:, :, cell], expected, atol=1e-5)
                    for row in range(3):
                        np.testing.assert_allclose(alone[row][layer][0, :, cell], expected[row], atol=1e-5)


def ask_library(network: TransformersNetwork, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What every layer of the library's own network gives as it has it, in windows."""
    weights: list[NDArray[np.float32]] = []
    handles = [
        layer.attention.register_forward_hook(lambda module, taken, made: weights.append(made[1].numpy()))
        for layer in network.windows
    ]
    with torch.inference_mode():
        network.explained(pixel_values=torch.from_numpy(pixels), output_attentions=True)
    for handle in handles:
        handle.remove()
    return weights


def cells_of_the_library(window: WindowContract) -> NDArray[np.int64]:
    """Cut the numbers of cells into windows as the library does it."""
    below, beside = -window.rows % window.height, -window.cols % window.width
    numbers = torch.arange(window.queries).reshape(1, window.rows, window.cols, 1)
    filled = torch.nn.functional.pad(numbers, (0, 0, 0, beside, 0, below), value=PADDING)
    rolled = torch.roll(filled, (-window.shift_rows, -window.shift_cols), dims=(1, 2))
    windows: Tensor = window_partition(rolled, window.height)  # type: ignore[no-untyped-call]
    return np.asarray(windows.reshape(-1, window.keys))


@pytest.mark.parametrize(("rows", "cols", "edge", "shift"), [(8, 8, 4, 2), (7, 9, 3, 1), (4, 4, 4, 0), (5, 5, 7, 0)])
def test_windows_are_those_of_the_library(rows: int, cols: int, edge: int, shift: int) -> None:
    """Swin's partition of a rolled grid, and SAM's, which rolls nothing."""
    window = WindowContract(
        rows=rows, cols=cols, height=edge, width=edge, shift_rows=shift, shift_cols=shift, cell_size=1
    )
    np.testing.assert_array_equal(window_cells(window), cells_of_the_library(window))
    if not shift:
        numbers = torch.arange(rows * cols).reshape(1, rows, cols, 1) + 1  # SAM fills up with zeros
        windows, _ = SamVisionLayer.window_partition(None, numbers, edge)  # type: ignore[arg-type]
        np.testing.assert_array_equal(window_cells(window), windows.reshape(-1, edge * edge).numpy() - 1)


def test_a_layer_that_moves_otherwise_than_it_says_is_refused(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number; drawn wrongly, its attention would look as good."""
    explained = make("swin")[0].explained
    shifted = [one for one in explained.modules() if getattr(one, "shift_size", 0)]
    own = type(shifted[1]).cyclic_shift

    def more(self: Any, states: Any, reverse: bool = False) -> Any:
        return torch.roll(own(self, states, reverse), 1, 1) if self is shifted[1] else own(self, states, reverse)

    monkeypatch.setattr(type(shifted[1]), "cyclic_shift", more)
    with pytest.raises(CheckpointError, match="swin: layer 3 puts its positions into windows in a way that is not kn"):
        find_windows(explained, "swin", ("batch", 3, 32, 32))


def test_a_network_without_windows_has_none() -> None:
    """SAM's with global attention alone, and any other."""
    from transformers import SamVisionConfig, SamVisionModel, ViTConfig, ViTModel

    sizes: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32}
    everywhere = SamVisionModel(SamVisionConfig(**sizes, patch_size=8, global_attn_indexes=[0, 1], output_channels=8))
    networks: list[nn.Module] = [everywhere, ViTModel(ViTConfig(**sizes, patch_size=8))]
    assert [find_windows(network.eval(), "any", ("batch", 3, 32, 32)) for network in networks] == [(), ()]


def test_values_and_contributions_of_windows_are_not_given(make: Maker) -> None:
    """They stay in windows; a global layer beside them has its value norms."""
    for name in NETWORKS:
        layers = make(name)[1].contract.attention
        assert not any(layer.value_norms or layer.contribution for layer in layers if layer.window)


def test_a_graph_that_does_not_say_its_windows_is_refused(make: Maker, tmp_path: Path) -> None:
    """An ONNX file of the same network: nothing in it tells which rows are windows of one image."""
    _, built = make("swin")
    graph = onnx.load(built.folder / "model.onnx")
    file = tmp_path / "swin.onnx"
    onnx.save_model(graph, file)
    with pytest.raises(
        TapError, match=r"its weights are \[\?, 2, 9, 9\]; expected \[batch, heads, query, key\] \(windows"
    ):
        build(load_graph(file), tmp_path / "models")


@pytest.mark.parametrize(("name", "size", "cell"), [("swin", 30, 4), ("sam", 36, 8)])
def test_images_that_patches_do_not_fill_are_said_not_to_be_taken(
    name: str, size: int, cell: int, tmp_path: Path
) -> None:
    """In one line: what lies over the edge, or is left free there, could not be drawn on the image."""
    family, own = NETWORKS[name]
    config = FAMILIES[family].config | own | {"image_size": size}
    source = load_folder(write_folder(replace(FAMILIES[family], config=config), tmp_path / "odd"))
    assert source.image is None
    reason = f"patches of {cell} pixels do not fill images of {size}; expected --image-size with a multiple of {cell}"
    assert source.assumed == f"it takes tensors alone, no images: {reason}"


def test_an_image_size_that_patches_do_not_fill_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Before anything is exported."""
    folder, out = folder_of("swin", tmp_path / "swin"), tmp_path / "models"
    done = CliRunner().invoke(app, [str(folder), "--out", str(out), "--image-size", "30"])
    assert done.exit_code == 1
    assert "--image-size: 30; it takes tensors alone, no images: patches of 4 pixels do not" in done.output
    assert not list(out.rglob("*.onnx"))


def test_own_networks_refuse_images_that_patches_do_not_fill() -> None:
    """Where the last pixels are seen by no patch, pictures would be drawn beside what they show."""
    encoder = EncoderConfig(8, 1, 2, 8)
    network = VisionTransformer(ViTConfig(encoder=encoder, image_size=16, patch_size=8, num_classes=2))
    with pytest.raises(CheckpointError, match="image size: 30; expected a multiple of the patch size, 8"):
        own_traits(network, 30)


def test_a_contract_that_contradicts_itself_is_not_published(tmp_path: Path) -> None:
    """The reason is one line, as of any export that fails."""
    source = load_folder(folder_of("swin", tmp_path / "swin"))
    lying = PatchContract(prefix_tokens=0, rows=64, cols=1, patch_size=4)
    with pytest.raises(VerificationError, match=r"^contract: .*patches.rows: 64 cells of 4 pixels on 32 pixels"):
        build(replace(source, traits=replace(source.traits, patches=lying)), tmp_path / "models")
    assert not list((tmp_path / "models").rglob("contract.json"))
