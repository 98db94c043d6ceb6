"""A picture's numbers as tables, and the picture in words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from regard.attention import Attention, AttentionRequest, LayerAttention, PatchGrid, Token
from regard.matrices import (
    Matrix,
    attended,
    averaged_matrices,
    head_numbers,
    layer_name,
    matrices,
    query_phrase,
    rows_of,
    tokens_at,
)
from regard.windows import layer_grid


@dataclass(frozen=True)
class Table:
    """Numbers with names.

    Attributes:
        caption: What they are.
        columns: One name each.
        names: One for each row.
        rows: One number for each column, None where there is none.
    """

    caption: str
    columns: Sequence[str]
    names: Sequence[str]
    rows: Sequence[Sequence[float | None]]


def tables(attention: Attention, *, model: str, asked: AttentionRequest | None = None) -> list[Table]:
    """Return an answer's numbers: tokens against tokens, patches as they lie on the photo, or layers against heads.

    Args:
        attention: Of one input.
        model: Name for the captions.
        asked: What was asked for, to name a reduction; a mean unless it says otherwise.

    Returns:
        One table a head of a text's layer, one a head and row of an image's, or one of an entropy or a distance.

    Raises:
        ValueError: The answer says neither tokens nor patches, or is of tensors.
    """
    if attention.layers and attention.layers[0].measure in ("entropy", "distance"):
        return [_head_table(attention.layers, model)]
    if attention.tokens is not None:
        keys = attended(attention.tokens, attention.key_tokens)
        return list(_token_tables(attention.layers, attention.tokens, keys, model, asked))
    if attention.patches is not None:
        return list(_patch_tables(attention.layers, attention.patches, model, asked))
    raise ValueError("the answer does not say what the positions stand for")


def in_words(attention: Attention, *, model: str, asked: AttentionRequest | None = None) -> str:
    """Describe a picture by the largest number of each of its tables, of the first twelve.

    Args:
        attention: Of one input.
        model: Name for the captions.
        asked: What was asked for, to name a reduction; a mean unless it says otherwise.

    Raises:
        ValueError: The answer says neither tokens nor patches, or is of tensors.
    """
    return " ".join(_largest(table) for table in tables(attention, model=model, asked=asked)[:12])


def _head_table(layers: Sequence[LayerAttention], model: str) -> Table:
    numbers = [head_numbers(layer) for layer in layers]
    measure = "entropy in nats" if layers[0].measure == "entropy" else "attention distance"
    heads = sorted({head for layer in numbers for head in layer.heads})
    columns = [f"head {head}" for head in heads] or ["all heads"]
    rows = []
    for layer in numbers:
        by_head = dict(zip(layer.heads or [0], map(float, layer.values), strict=True))
        rows.append([by_head.get(head) for head in heads or [0]])
    return Table(f"{model}: {measure}", columns, [f"layer {layer.layer}" for layer in numbers], rows)


def _token_tables(
    layers: Sequence[LayerAttention],
    tokens: Sequence[Token],
    keys: Sequence[Token],
    model: str,
    asked: AttentionRequest | None,
) -> Iterator[Table]:
    for layer in layers:
        for matrix in matrices(layer, len(keys), asked):
            sides = ((tokens, matrix.queries), (keys, matrix.keys))
            names, columns = ([token.text for token in tokens_at(*side)] for side in sides)
            caption = f"{model}, {layer_name(layer)}, {matrix.name}: rows attend to columns"
            yield Table(caption, columns, names, _numbers(matrix))


def _patch_tables(
    layers: Sequence[LayerAttention], patches: PatchGrid, model: str, asked: AttentionRequest | None
) -> Iterator[Table]:
    for layer in layers:
        grid = layer_grid(layer, patches)
        columns = [f"column {column}" for column in range(grid.cols)]
        names = [f"row {row}" for row in range(grid.rows)]
        for matrix in averaged_matrices(layer, grid, asked):
            for (query, _), row in zip(rows_of(matrix), _numbers(matrix), strict=True):
                dense = dict(zip(matrix.keys, row, strict=True))
                numbers = [
                    [dense.get(grid.prefix_tokens + line * grid.cols + at) for at in range(grid.cols)]
                    for line in range(grid.rows)
                ]
                caption = f"{model}, {layer_name(layer)}, {matrix.name}: {query_phrase(query, layer, grid)}"
                yield Table(caption, columns, names, numbers)


def _numbers(matrix: Matrix) -> list[list[float | None]]:
    return [[None if math.isnan(value) else float(value) for value in row] for row in matrix.weights]


def _largest(table: Table) -> str:
    numbers = np.array([[np.nan if value is None else value for value in row] for row in table.rows], dtype=np.float64)
    if not np.isfinite(numbers).any():
        return f"{table.caption}."
    row, column = divmod(int(np.nanargmax(numbers)), numbers.shape[1])
    return f"{table.caption}; most: {table.names[row]}, {table.columns[column]}, {numbers[row, column]:.2g}."
