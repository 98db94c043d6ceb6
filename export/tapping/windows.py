"""Brings weights of windows, which a network keeps in the batch axis, into the order of the image's grid."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from artifact.contract import WindowContract
from artifact.windows import places_in_windows, window_cells
from export.tapping.rule import Found
from export.tapping.view import GraphView


def unwindow(view: GraphView, found: Sequence[Found], windows: Sequence[WindowContract | None]) -> Iterator[Found]:
    """Yield what was found, in layers with windows with weights [B, H, N, K] instead of [B * windows, H, K, K].

    A query stands where its cell does in the layer's grid; its keys are the positions of its window. Rolling back and
    cutting padding off are one choice of rows. Values, which stay in windows, are left out.
    """
    for one, window in zip_longest(found, windows):
        yield one if window is None else replace(one, weights=_unwindow(view, one.weights, window), values="")


def _unwindow(view: GraphView, weights: str, window: WindowContract) -> str:
    name, places = f"{weights}.grid", places_in_windows(window)
    windows, keys = window_cells(window).shape
    heads = view.size_of(weights, 1, f"{name}.heads")
    sizes = [view.add_numbers([-1, windows], f"{name}.windows"), heads, view.add_numbers([keys, keys], f"{name}.pairs")]
    axes = view.add("Concat", sizes, f"{name}.axes", axis=0)
    split = view.add("Reshape", [weights, axes], f"{name}.split")  # [B, windows, H, K, K]
    turned = view.add("Transpose", [split], f"{name}.turned", perm=[0, 2, 1, 3, 4])  # [B, H, windows, K, K]
    rows = view.add_numbers([0, 0, windows * keys, keys], f"{name}.rows")
    ordered = view.add("Reshape", [turned, rows], f"{name}.by_window")  # [B, H, windows * K, K]
    if not np.array_equal(places, np.arange(windows * keys)):
        ordered = view.add("Gather", [ordered, view.add_numbers(places, f"{name}.places")], name, axis=2)
    return view.describe(ordered, (None, None, window.queries, keys), view.dtype(weights))
