"""Windows in which layers of the transformers library attend: found by what their attention is given, and its weights.

The library keeps windows in the batch axis. Which position of which window is which cell of a layer's grid is read off
a run: the vectors that enter the attention are those of the grid, moved, or the zeros of padding. What a layer says of
its window and shift must put them at the same places.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from artifact.contract import PatchContract, WindowContract
from artifact.windows import PADDING, window_cells
from export.transformers_traits import resizing
from model.checkpoint import CheckpointError


@dataclass(frozen=True)
class _Kind:
    """A class of layers: paths of the module that attends, and of the norm whose result is cut into windows."""

    attention: str
    norm: str = ""
    """Empty where the layer's own input is."""


_KINDS = {
    "SwinLayer": _Kind("attention", "layernorm_before"),
    "DonutSwinLayer": _Kind("attention", "layernorm_before"),
    "Swinv2Layer": _Kind("attention.self"),
    "SamVisionLayer": _Kind("attn", "layer_norm1"),
    "SamHQVisionLayer": _Kind("attn", "layer_norm1"),
    "VitDetLayer": _Kind("attention", "norm1"),
}


@dataclass(frozen=True, eq=False)
class WindowedLayer:
    """A layer of a network that has windows.

    Attributes:
        attention: What computes its weights.
        cells: [windows, keys], the cell of its grid at each position of each window, or PADDING.
        window: None where it attends to its whole grid.
    """

    attention: nn.Module
    cells: NDArray[np.int64]
    window: WindowContract | None

    def unwindow(self, weights: Tensor) -> Tensor:
        """Bring weights [B * windows, H, K, K], or [B * windows * H, K, K], into the grid's order, [B, H, N, K]."""
        windows, keys = self.cells.shape
        real = np.argwhere(self.cells != PADDING)
        count = int(np.prod(weights.shape[:-2]))
        heads = weights.shape[1] if weights.ndim == 4 else int(self.attention.num_attention_heads)  # type: ignore[arg-type]
        by_window = weights.reshape(count // (windows * heads), windows, heads, keys, keys)
        ordered = weights.new_empty(len(by_window), heads, len(real), keys)
        ordered[:, :, self.cells[*real.T]] = by_window[:, real[:, 0], :, real[:, 1]].permute(1, 2, 0, 3)
        return ordered


def find_windows(network: nn.Module, family: str, axes: Sequence[int | str]) -> tuple[WindowedLayer, ...]:
    """Find the windows of every layer, in their order.

    Args:
        network: With eager attention.
        family: Named in messages.
        axes: Of its pixels.

    Returns:
        None of a network that has no windows.

    Raises:
        CheckpointError: A layer moves its positions in another way than it says.
    """
    layers = [one for one in network.modules() if type(one).__name__ in _KINDS]
    if not any(int(one.window_size) for one in layers):  # type: ignore[arg-type]
        return ()
    given = [_Given() for _ in layers]
    with ExitStack() as stack:
        for layer, one in zip(layers, given, strict=True):
            for handle in one.watch(layer, _KINDS[type(layer).__name__]):
                stack.callback(handle.remove)
        pixels = torch.randn(1, *map(int, axes[1:]), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            network(pixel_values=pixels, **resizing(network, pixels.shape[-1]))
    cell_size, before = _patch_size(network), given[0].grid
    found = list[WindowedLayer]()
    for number, (layer, one) in enumerate(zip(layers, given, strict=True)):
        if one.grid != before:
            cell_size, before = cell_size * 2, one.grid  # patches were merged, two by two
        window, cells = _window(layer, one.grid, cell_size), one.cells()
        if not np.array_equal(cells, np.arange(cells.size)[np.newaxis] if window is None else window_cells(window)):
            raise CheckpointError(
                f"{family}: layer {number} puts its positions into windows in a way that is not known"
            )
        found.append(WindowedLayer(layer.get_submodule(_KINDS[type(layer).__name__].attention), cells, window))
    return tuple(found)


def find_window_grid(layers: Sequence[WindowedLayer], edge: int) -> PatchContract | None:
    """Say how the first layer's positions lie on a square image; None where they end elsewhere than the image."""
    first = next(one.window for one in layers if one.window)
    if first.rows != first.cols or first.rows * first.cell_size != edge:
        return None
    return PatchContract(prefix_tokens=0, rows=first.rows, cols=first.cols, patch_size=first.cell_size)


@contextmanager
def told_in_windows(layers: Sequence[WindowedLayer]) -> Iterator[list[Tensor]]:
    """Collect each layer's weights meanwhile, float [B, H, N, K], in the order of its grid."""
    weights = list[Tensor]()
    with ExitStack() as stack:
        for one in layers:

            def tell(module: nn.Module, taken: Any, made: Any, layer: WindowedLayer = one) -> None:
                weights.append(layer.unwindow(made[1]))

            stack.callback(one.attention.register_forward_hook(tell).remove)
        yield weights


class _Given:
    """What one layer and its attention are given in a run."""

    grid: tuple[int, int]
    """Rows and columns of the layer's positions."""

    def watch(self, layer: nn.Module, kind: _Kind) -> Iterator[Any]:
        """Look on while a network runs; yields what ends it."""
        yield layer.register_forward_pre_hook(self._see_layer)
        if kind.norm:
            yield layer.get_submodule(kind.norm).register_forward_hook(self._see_norm)
        yield layer.get_submodule(kind.attention).register_forward_pre_hook(self._see_attention, with_kwargs=True)

    def cells(self) -> NDArray[np.int64]:
        """Find each vector of the windows among those of the grid, [windows, keys]; zeros are padding."""
        numbers = {vector.tobytes(): cell for cell, vector in enumerate(self._positions)}
        numbers[np.zeros_like(self._positions[0]).tobytes()] = PADDING
        found = [[numbers.get(vector.tobytes(), -2) for vector in window] for window in self._windows]
        return np.array(found, dtype=np.int64)

    def _see_layer(self, module: nn.Module, taken: Any) -> None:
        if len(taken) > 1 and isinstance(taken[1], tuple):
            self.grid = (int(taken[1][0]), int(taken[1][1]))
        self._see_positions(taken[0])

    def _see_norm(self, module: nn.Module, taken: Any, made: Tensor) -> None:
        self._see_positions(made)

    def _see_positions(self, positions: Tensor) -> None:
        if positions.ndim == 4:
            self.grid = (positions.shape[1], positions.shape[2])
        self._positions = _vectors(positions)

    def _see_attention(self, module: nn.Module, taken: Any, named: dict[str, Any]) -> None:
        states = taken[0] if taken else named["hidden_states"]
        self._windows = _vectors(states).reshape(len(states), -1, states.shape[-1])


def _vectors(states: Tensor) -> NDArray[np.float32]:
    """Return the vectors of all positions, [.., D]; without negative zeros, whose bytes differ."""
    vectors: NDArray[np.float32] = states.reshape(-1, states.shape[-1]).numpy() + np.float32(0)
    return vectors


def _window(layer: Any, grid: tuple[int, int], cell_size: int) -> WindowContract | None:
    """Describe a layer's windows as it says itself; None where it attends to its whole grid."""
    edge, shift = int(layer.window_size), int(getattr(layer, "shift_size", 0))
    if not edge:
        return None
    return WindowContract(
        rows=grid[0],
        cols=grid[1],
        height=edge,
        width=edge,
        shift_rows=shift,
        shift_cols=shift,
        cell_size=cell_size,
    )


def _patch_size(network: Any) -> int:
    size = getattr(network.config, "vision_config", network.config).patch_size
    return int(size[0] if isinstance(size, list | tuple) else size)
