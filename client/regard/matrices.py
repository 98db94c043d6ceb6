"""An answer's attention as matrices with names, whatever was chosen or reduced.

Numbers that were not sent (keys beyond the largest, or left out) are NaN.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from regard.attention import AttentionRequest, HeadReduction, LayerAttention, PatchGrid, Token
from regard.windows import key_cells

_MEASURES = {"entropy": "entropy", "distance": "attention distance"}


@dataclass(frozen=True, eq=False)
class Matrix:
    """Who attends to whom: one head's weights, or what was made of several.

    Attributes:
        name: "head 3", or "mean of 12 heads".
        queries: Query positions, one a row.
        keys: Key positions, one a column.
        weights: float32 [Q, K].
    """

    name: str
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    weights: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeadNumbers:
    """One layer's dots: heads, empty where they were reduced, and a number each."""

    layer: int
    heads: tuple[int, ...]
    values: NDArray[np.float64]


def matrices(layer: LayerAttention, num_keys: int, asked: AttentionRequest | None = None) -> list[Matrix]:
    """Return one matrix for each head that was sent, or the one of their reduction.

    Keys of a layer that attends in windows are the cells of its grid: 0 outside the query's window, and padding left
    out.

    Args:
        layer: Weights or a rollout, [H, Q, K] or [Q, K]; K may be chosen keys, or the largest of each row.
        num_keys: Positions that can be attended to; of a layer with windows its own grid counts.
        asked: What was asked for, to name a reduction; a mean unless it says otherwise.

    Raises:
        ValueError: The layer holds no weights of one input, or their shape does not fit the positions.
    """
    lay_out = _layout(layer)
    return [lay_out(matrix) for matrix in _as_sent(layer, num_keys, asked)]


def one_matrix(layer: LayerAttention, num_keys: int, asked: AttentionRequest | None = None) -> Matrix:
    """Return the only matrix there is, or that of all heads reduced: their mean, unless asked for otherwise.

    Args and raises: as `matrices`.
    """
    return _layout(layer)(_reduced(_as_sent(layer, num_keys, asked), asked))


def averaged_matrices(layer: LayerAttention, patches: PatchGrid, asked: AttentionRequest | None = None) -> list[Matrix]:
    """Return the matrices of a photo's heads, each averaged where its rows are those of all patches; see `averaged`.

    Args:
        layer: As for `matrices`.
        patches: The grid of the layer.
        asked: As for `matrices`.
    """
    lay_out, sent = _layout(layer), _as_sent(layer, positions(patches), asked)
    return [averaged(lay_out(matrix), patches) for matrix in sent]  # one at a time on a whole grid


def _as_sent(layer: LayerAttention, num_keys: int, asked: AttentionRequest | None) -> list[Matrix]:
    """Return one matrix a head, whose keys are those of the layer; in windows, numbers of positions in one."""
    _check_axes(layer)
    keys = layer.keys or tuple(range(layer.window.height * layer.window.width if layer.window else num_keys))
    weights = np.asarray(layer.weights, dtype=np.float32)
    by_head = weights if "head" in layer.axes else weights[np.newaxis]
    if layer.indices is not None:
        by_head = _spread(by_head, layer.indices.reshape(by_head.shape), keys)
    names = head_names(layer, asked)
    shape = (len(names), len(layer.queries), len(keys))
    if by_head.shape != shape:
        raise ValueError(f"attention of shape {list(by_head.shape)}; expected {list(shape)}: heads, queries, keys")
    return [Matrix(name, layer.queries, keys, matrix) for name, matrix in zip(names, by_head, strict=True)]


def _reduced(by_head: Sequence[Matrix], asked: AttentionRequest | None) -> Matrix:
    if len(by_head) == 1:
        return by_head[0]
    reduction = reduction_of(asked)
    # A key that is not among the largest of one head counts as 0 there.
    stacked = np.stack([np.nan_to_num(matrix.weights) for matrix in by_head])
    reduced: NDArray[np.float32] = getattr(stacked, reduction)(axis=0)
    missing = np.all([np.isnan(matrix.weights) for matrix in by_head], axis=0)
    first = by_head[0]
    name = f"{reduction} of {len(by_head)} heads"
    return Matrix(name, first.queries, first.keys, np.where(missing, np.float32(np.nan), reduced))


def _layout(layer: LayerAttention) -> Callable[[Matrix], Matrix]:
    """Return what lays keys that are positions in the windows of queries out as cells of the grid, [Q, cells]."""
    window = layer.window
    if window is None:
        return lambda matrix: matrix
    of_query = key_cells(window, layer.queries)  # the same for every head
    return partial(_on_grid, of_query=of_query, num_cells=window.rows * window.cols)


def _on_grid(matrix: Matrix, of_query: NDArray[np.int64], num_cells: int) -> Matrix:
    weights = np.zeros((len(of_query), num_cells + 1), dtype=np.float32)  # the last column is padding's
    lines = np.arange(len(of_query))[:, np.newaxis]
    weights[lines, of_query] = np.nan  # of these, what was not sent is not known
    weights[lines, of_query[:, list(matrix.keys)]] = matrix.weights
    cells = weights[:, :-1]
    return Matrix(matrix.name, matrix.queries, tuple(range(cells.shape[1])), cells)


def head_numbers(layer: LayerAttention) -> HeadNumbers:
    """Return one number a head: an entropy's mean over its rows, or a distance.

    Raises:
        ValueError: The layer holds another measure.
    """
    if layer.measure not in ("entropy", "distance") or "batch" in layer.axes:
        raise ValueError(f"{layer.measure} along {', '.join(layer.axes)}; expected the entropy or distance of an input")
    values = np.asarray(layer.weights, dtype=np.float64)
    values = values.mean(-1) if "query" in layer.axes else values
    return HeadNumbers(layer.layer, layer.heads if "head" in layer.axes else (), np.atleast_1d(values))


def in_shares(matrix: Matrix) -> Matrix:
    """Divide each row by the sum of its absolute numbers, for numbers that are no shares by themselves."""
    sums = np.maximum(np.nansum(np.abs(matrix.weights), axis=1, keepdims=True), np.float32(1e-12))
    return dataclasses.replace(matrix, weights=matrix.weights / sums)


def head_names(layer: LayerAttention, asked: AttentionRequest | None = None) -> list[str]:
    """Name what lies along the axis of heads, or the one thing that they were reduced to."""
    if "head" in layer.axes:
        return [f"head {head}" for head in layer.heads]
    if layer.measure in ("contribution", "contribution_rollout"):
        return ["all heads"]
    one = f"head {layer.heads[0]}" if layer.heads else "all heads"
    return [f"{reduction_of(asked)} of {len(layer.heads)} heads" if len(layer.heads) > 1 else one]


def layer_name(layer: LayerAttention) -> str:
    """Name a layer, or the layers that a rollout covers."""
    if is_product(layer):
        what = "rollout" if layer.measure == "rollout" else "rollout of contributions"
        return f"{what} over {counted('layer', layer.covered_layers or (layer.layer,))}"
    return f"contributions in layer {layer.layer}" if layer.measure == "contribution" else f"layer {layer.layer}"


def is_product(layer: LayerAttention) -> bool:
    """Tell whether several layers were multiplied into this one."""
    return layer.measure in ("rollout", "contribution_rollout")


def counted(noun: str, numbers: Sequence[int]) -> str:
    """Name some of a row: "layer 3", "layers 1 and 5", "layers 0 to 11"."""
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    if len(numbers) > 2 and tuple(numbers) == tuple(range(numbers[0], numbers[0] + len(numbers))):
        return f"{noun}s {numbers[0]} to {numbers[-1]}"
    return f"{noun}s {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def unit_name(layer: LayerAttention, asked: AttentionRequest | None = None) -> str:
    """Say what the numbers of weights or of a rollout are, for a scale."""
    if is_product(layer):
        return "share in the rollout" + (", by value length" if asked and asked.value_weighted else "")
    if layer.measure == "contribution":
        return "length of what is added"
    name = "attention weight" + (" x value length" if asked and asked.value_weighted else "")
    return f"{name} (below 0 as 0)" if np.nanmin(layer.weights, initial=0) < 0 else name


def positions(patches: PatchGrid) -> int:
    """Return how many positions an image has: prefix tokens, then patches."""
    return patches.prefix_tokens + patches.rows * patches.cols


def tokens_at(tokens: Sequence[Token], positions: Iterable[int]) -> list[Token]:
    """Return the tokens at some positions.

    Raises:
        ValueError: There are fewer tokens than that: the positions are not those of the text.
    """
    chosen = list(positions)
    if chosen and max(chosen) >= len(tokens):
        raise ValueError(f"attention of position {max(chosen)} for {len(tokens)} tokens")
    return [tokens[position] for position in chosen]


def attended(tokens: Sequence[Token], key_tokens: Sequence[Token] | None) -> Sequence[Token]:
    """Return what keys stand for: tokens of their own, as in cross-attention, or those of the queries."""
    return tokens if key_tokens is None else key_tokens


def averaged(matrix: Matrix, patches: PatchGrid) -> Matrix:
    """Return the mean of all rows where no row is a class token's and every position attends; else the matrix itself.

    A mean has no queries: `query_phrase` and the pictures know by that what was averaged.
    """
    if patches.prefix_tokens or len(matrix.queries) < 2 or len(matrix.queries) < positions(patches):
        return matrix
    missing = np.isnan(matrix.weights).all(axis=0)
    mean: NDArray[np.float32] = np.nan_to_num(matrix.weights).mean(axis=0, dtype=np.float32)
    return dataclasses.replace(matrix, queries=(), weights=np.where(missing, np.float32(np.nan), mean)[np.newaxis])


def rows_of(matrix: Matrix) -> list[tuple[int | None, NDArray[np.float32]]]:
    """Return each row with its query: None for the mean of all."""
    return list(zip(matrix.queries or (None,), matrix.weights, strict=True))


def query_phrase(query: int | None, layer: LayerAttention, patches: PatchGrid) -> str:
    """Say which query attends, as the end of a title."""
    if query is None:
        return "what all patches attend to on average"
    of_others = layer.kind == "cross" and not layer.class_attention
    who = f"query {query} of the cross-attention" if of_others else query_name(query, patches)
    return f"what {who} attends to"


def query_name(query: int, patches: PatchGrid) -> str:
    """Name a query: the class token, a register, or a patch."""
    if query == 0 and patches.prefix_tokens:
        return "the class token"
    if query < patches.prefix_tokens:
        return f"register {query}"
    row, column = divmod(query - patches.prefix_tokens, patches.cols)
    return f"the patch in row {row}, column {column}"


def reduction_of(asked: AttentionRequest | None) -> HeadReduction:
    """Return what heads are reduced by."""
    return (asked.reduce_heads if asked else None) or "mean"


def _check_axes(layer: LayerAttention) -> None:
    if layer.measure in ("entropy", "distance"):
        raise ValueError(f"these numbers are an {_MEASURES[layer.measure]}, which has no keys; expected weights")
    if "batch" in layer.axes:
        raise ValueError(f"attention with the axes {', '.join(layer.axes)}; expected that of one row of the batch")


def _spread(largest: NDArray[np.float32], indices: NDArray[np.int32], keys: Sequence[int]) -> NDArray[np.float32]:
    """Put the largest weights of each row where they belong; [H, Q, top] becomes [H, Q, K]."""
    places = {key: place for place, key in enumerate(keys)}
    columns = np.vectorize(places.__getitem__, otypes=[np.int64])(indices) if indices.size else indices
    spread = np.full((*largest.shape[:2], len(keys)), np.nan, dtype=np.float32)
    np.put_along_axis(spread, columns, largest, axis=-1)
    return spread
