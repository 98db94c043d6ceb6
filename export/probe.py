"""Finds out by running a graph what its outputs' axes are, and who attends to whom."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx import ModelProto

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, DerivedAxis
from artifact.dtypes import Array
from export.derived import find_derived
from export.errors import ProbeError, TapError
from export.session import open_session, run_session
from export.traits import Feed, Traits
from server.errors import first_line

Axes = tuple[int | str | None, ...]
Kind = Literal["self", "causal", "cross"]
Run = Callable[[Feed], dict[str, Array]]

# Two runs with every symbolic axis of another size: what stays the same is fixed, what follows an axis is that axis.
_BATCHES = (2, 3)
_ATTENTION = re.compile(r"attention\.\d+")  # names of the tapped outputs; a graph's own may be "attention.mean"


@dataclass(frozen=True)
class Found:
    """What runs of a graph tell.

    Attributes:
        axes: Of each output, by name: a size where fixed, the name of an input's axis or of one derived from it, or
            None where it is neither.
        kinds: Of each output with four axes, whether it holds self-, causal or cross-attention.
        derived: The axes derived from inputs'.
    """

    axes: dict[str, Axes]
    kinds: dict[str, Kind]
    derived: tuple[DerivedAxis, ...]


def find_axes(run: Run, traits: Traits) -> Found:
    """Run a graph twice, and more often where an axis has to be derived.

    Args:
        run: Returns every output by name.
        traits: Of the inputs.

    Raises:
        ProbeError: It cannot be loaded or run.
    """
    runs = [
        (sizes | {BATCH_AXIS: batch}, _look(run(traits.example(batch, sizes))))
        for batch, sizes in zip(_BATCHES, choose_sizes(traits), strict=True)
    ]
    (sizes, outputs), (other_sizes, other_outputs) = runs
    namer = _Namer(sizes, other_sizes)
    axes = {name: tuple(map(namer, seen.shape, other_outputs[name].shape)) for name, seen in outputs.items()}
    unknown = [(name, place) for name, own in axes.items() for place, axis in enumerate(own) if axis is None]
    derived = _derive(run, traits, sizes, unknown)
    for axis in derived:
        namer.add(axis)
    axes = {name: tuple(map(namer, seen.shape, other_outputs[name].shape)) for name, seen in outputs.items()}
    kinds = {name: _kind(axes[name], seen) for name, seen in other_outputs.items() if len(seen.shape) == 4}
    return Found(axes, kinds, derived)


@dataclass(frozen=True)
class _Seen:
    """What is kept of an output, as all the attention of some images is gigabytes."""

    shape: tuple[int, ...]
    looks_ahead: bool  # of weights, whether a query attends to what is behind it


def _look(outputs: Mapping[str, Array]) -> dict[str, _Seen]:
    return {name: _Seen(array.shape, array.ndim == 4 and _looks_ahead(array)) for name, array in outputs.items()}


def _looks_ahead(weights: Array) -> bool:
    return any(weights[:, :, query, query + 1 :].any() for query in range(weights.shape[2]))


def _derive(
    run: Run, traits: Traits, sizes: Mapping[str, int], unknown: Sequence[tuple[str, int]]
) -> tuple[DerivedAxis, ...]:
    """Find out how axes follow from those of inputs, but the sequence: padding of that is cut off by its own length."""
    own = {axis: sizes[axis] for axis in traits.axes}

    @functools.cache
    def shapes(of: str, size: int) -> dict[str, tuple[int, ...]]:
        try:
            return {name: array.shape for name, array in run(traits.example(1, {**own, of: size})).items()}
        except ProbeError:
            return {}

    def count(name: str, place: int, of: str, size: int) -> int:
        return shapes(of, size)[name][place] if shapes(of, size) else 0

    rules = (
        find_derived(of, functools.partial(count, name, place, of), own[of], traits.limit(of))
        for name, place in unknown
        for of in traits.axes
        if of != SEQUENCE_AXIS
    )
    return tuple(dict.fromkeys(rule for rule in rules if rule))


def find_longest(run: Run, traits: Traits) -> int:
    """Find the most positions that a graph runs on, up to what is said; a table of positions may have gone unseen."""
    return _most(run, traits, lambda length: traits.fit(dict.fromkeys(traits.axes, length)), traits.longest)


def find_limits(run: Run, traits: Traits) -> dict[str, int]:
    """Find the same for each symbolic axis, while the others are short."""
    short, _ = choose_sizes(traits)
    return {
        axis: _most(run, traits, lambda length, axis=axis: {**short, axis: length}, traits.limit(axis))  # type: ignore[misc]
        for axis in traits.axes
    }


def _most(run: Run, traits: Traits, sizes: Callable[[int], dict[str, int]], limit: int) -> int:
    low, high = 1, limit
    length = high
    while low < high:
        try:
            run(traits.example(1, sizes(length)))
            low = length
        except ProbeError:
            high = length - 1
        length = (low + high + 1) // 2
    return high


def declare_axes(model: ModelProto, axes: Mapping[str, Axes]) -> None:
    """Write axes into a graph's outputs; an unknown one stays without a name.

    Raises:
        TapError: Attention is not [batch, heads, query, key]; names the node.
    """
    batch = _first_axis(model)
    for value in model.graph.output:
        if is_attention(value.name) and (len(axes[value.name]) != 4 or axes[value.name][0] != batch):
            found = ", ".join(str(axis or "?") for axis in axes[value.name])
            raise TapError(
                f"{value.doc_string or value.name}: its weights are [{found}]; expected [{batch}, heads, query, key] "
                "(windows in the batch, or no batch, cannot be served)"
            )
        tensor = value.type.tensor_type
        tensor.ClearField("shape")
        tensor.shape.SetInParent()
        for axis in axes[value.name]:
            dim = tensor.shape.dim.add()
            if isinstance(axis, int):
                dim.dim_value = axis
            elif axis:
                dim.dim_param = axis


def is_attention(output: str) -> bool:
    """Whether an output of the tapped graph holds a layer's weights."""
    return _ATTENTION.fullmatch(output) is not None


def _first_axis(model: ModelProto) -> int | str:
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    return dim.dim_param or dim.dim_value


class _Namer:
    """Tells what an axis is from its sizes in both runs."""

    def __init__(self, sizes: Mapping[str, int], other_sizes: Mapping[str, int]) -> None:
        self._sizes = (sizes, other_sizes)
        self._names = {(size, other_sizes[name]): name for name, size in sizes.items()}

    def add(self, axis: DerivedAxis) -> None:
        """Know a further axis."""
        size, other_size = (axis.size(sizes[axis.of]) for sizes in self._sizes)
        self._names.setdefault((size, other_size), axis.name)

    def __call__(self, size: int, other_size: int) -> int | str | None:
        return self._names.get((size, other_size), size if size == other_size else None)


def choose_sizes(traits: Traits) -> tuple[dict[str, int], dict[str, int]]:
    """Choose two sizes for each symbolic axis that no other axis has, within its limit."""
    first, second = dict[str, int](), dict[str, int]()
    for place, axis in enumerate(traits.axes):
        larger = min(7 + 5 * place, traits.limit(axis) // traits.unit(axis))
        first[axis], second[axis] = max(1, min(5 + 3 * place, larger - 1)), larger
    return traits.fit(first), traits.fit(second)


def run_graph(path: Path) -> Run:
    """Make a function that runs a graph and returns all of its outputs.

    Raises:
        ProbeError: It cannot be loaded; the function raises it where it does not run.
    """
    session = open_session(path)

    def run(feed: Feed) -> dict[str, Array]:
        try:
            return run_session(session, feed)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            shapes = {name: array.shape for name, array in feed.items()}
            raise ProbeError(f"{path.name}: does not run on inputs of {shapes}: {first_line(error)}") from error

    return run


def _kind(axes: Axes, seen: _Seen) -> Kind:
    """Cross-attention has other keys than queries; in a causal one no query attends behind itself."""
    if axes[2] != axes[3] or seen.shape[2] != seen.shape[3]:
        return "cross"
    return "causal" if seen.shape[2] > 1 and not seen.looks_ahead else "self"
