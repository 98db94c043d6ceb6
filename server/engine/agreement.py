"""Compares what a contract says with its graphs: one that lies is refused at load, not at its callers' requests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from artifact.contract import CONTRACT_FILE, SEQUENCE_AXIS, Contract
from artifact.dtypes import Array, name_of
from server.engine.device_ops import Weights
from server.errors import StartError, first_line

Axes = tuple[int | str | None, ...]
Declared = Mapping[str, tuple[str, Axes]]  # by name: ONNX Runtime's element type, and the axes

# ONNX Runtime's names of element types, and the contract's.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
} | {f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")}
_CHANNELS = {"RGB": 3, "L": 1}


def check_contract(folder: Path, contract: Contract) -> None:
    """Look for what contradicts itself.

    Raises:
        StartError: Names the field, what it says and what was expected.
    """
    for place, layer in enumerate(contract.attention):
        if layer.layer != place:
            raise _lie(folder, f"attention[{place}].layer", layer.layer, f"expected {place}, its place in the graph")
    for place, state in enumerate(contract.hidden_states):
        if state.layer != place:
            raise _lie(folder, f"hidden_states[{place}].layer", state.layer, f"expected {place}, its place in the list")
    text, image, limit = contract.text, contract.image, contract.limits.get(SEQUENCE_AXIS)
    if text and limit is not None and text.max_tokens > limit:
        raise _lie(folder, "text.max_tokens", text.max_tokens, f"limits say {limit} positions")
    if text and text.pad_token is not None:
        ids = contract.inputs[0]
        if ids.axes[1:] != (text.max_tokens,):
            raise _lie(folder, "text.pad_token", text.pad_token, f"{ids.name} has no {text.max_tokens} positions")
        _check_added(folder, contract, "text", ("pad_token",))
    if contract.late:
        _check_added(folder, contract, "late", ("query_prefix", "document_prefix", "filler"))
    for field in ("mean", "std") if image else ():
        numbers = getattr(image, field)
        if image and len(numbers) != _CHANNELS[image.mode]:
            raise _lie(folder, f"image.{field}", f"{len(numbers)} numbers", f"expected {_CHANNELS[image.mode]}")
    for spec in contract.inputs:
        low, high = spec.minimum, spec.maximum
        if (low is not None and spec.pad_value < low) or (high is not None and spec.pad_value > high):
            bounds = " and ".join(f"{bound:g}" for bound in (low, high) if bound is not None)
            raise _lie(folder, f"inputs[{spec.name}].pad_value", spec.pad_value, f"its bounds are {bounds}")


def _check_added(folder: Path, contract: Contract, part: str, fields: Sequence[str]) -> None:
    """Compare tokens that are added to texts with what the graph takes."""
    ids = contract.inputs[0]
    for field in fields:
        token = getattr(getattr(contract, part), field)
        if token is not None and ids.maximum is not None and token > ids.maximum:
            raise _lie(folder, f"{part}.{field}", token, f"the largest of {ids.name} is {ids.maximum:.12g}")


def check_tokens(folder: Path, contract: Contract, largest_id: int, largest_type: int) -> None:
    """Compare the largest token, and token type of a pair, that the tokenizer gives with what the graph takes.

    Raises:
        StartError: They are larger.
    """
    for spec in contract.inputs:
        largest = largest_type if spec.token_types else largest_id
        if not spec.mask and spec.maximum is not None and largest > spec.maximum:
            found = f"the tokenizer's largest is {largest}"
            raise _lie(folder, f"inputs[{spec.name}].maximum", f"{spec.maximum:.12g}", found)


def check_declared(folder: Path, contract: Contract, graph: str, declared: Declared) -> None:
    """Compare types, numbers of axes and fixed sizes with what a graph says of itself.

    Raises:
        StartError: Names the field, what it says and what the graph has.
    """
    inputs = {spec.name for spec in contract.inputs}
    for name, dtype in _dtypes(contract).items():
        if name in declared and DTYPES.get(declared[name][0]) != dtype:
            raise _lie(folder, f"{name}, its dtype", dtype, f"{graph} has {declared[name][0]}")
    for field, name, axes in _axes(contract):
        if name in declared and not _may_be(axes, declared[name][1], fixed=name in inputs):
            raise _lie(folder, field, _show(axes), f"{graph} has {_show(declared[name][1])}")


def check_given(
    folder: Path, contract: Contract, graph: str, inputs: Mapping[str, Array], found: Mapping[str, Weights]
) -> None:
    """Compare what a run gave.

    Raises:
        StartError: Names the field, what it says and what came.
    """
    sizes = contract.axis_sizes(inputs)
    for name, dtype in _dtypes(contract).items():
        if name in found and name_of(found[name].dtype) != dtype:
            raise _lie(folder, f"{name}, its dtype", dtype, f"{graph} gives {name_of(found[name].dtype)}")
    for field, name, axes in _axes(contract):
        expected = tuple(sizes.get(axis) if isinstance(axis, str) else axis for axis in axes)
        if name in found and not _may_be(expected, found[name].shape):
            raise _lie(folder, field, _show(axes), f"{graph} gives {_show(found[name].shape)} for {_show_sizes(sizes)}")


def check_runs(folder: Path, field: str, value: float, run: Callable[[], object]) -> None:
    """Run a graph at a bound that the contract gives.

    Raises:
        StartError: It cannot be run so.
    """
    try:
        run()
    except StartError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise _lie(folder, field, f"{value:.12g}", f"the graph cannot run that: {first_line(error)}") from error


def _dtypes(contract: Contract) -> dict[str, str]:
    named: dict[str, str] = {spec.name: spec.dtype for spec in (*contract.inputs, *contract.outputs)}
    return named | dict.fromkeys(contract.further_axes, "float32")


def _axes(contract: Contract) -> Iterator[tuple[str, str, Axes]]:
    """Yield what is said of shapes: the field, the tensor's name, the axes."""
    for kind, specs in (("inputs", contract.inputs), ("outputs", contract.outputs)):
        yield from ((f"{kind}[{spec.name}].axes", spec.name, spec.axes) for spec in specs)
    if image := contract.image:
        edges = (image.crop_size, image.crop_size)
        rows = contract.inputs[0].axes[0]
        yield "image.crop_size", contract.inputs[0].name, (rows, _CHANNELS[image.mode], *edges)
    for spec in contract.outputs:
        if contract.embedding and spec.name == contract.embedding.output:
            yield "embedding.dim", spec.name, (*spec.axes[:-1], contract.embedding.dim)
        if contract.labels and spec.name == "logits":
            yield "labels", spec.name, (*spec.axes[:-1], len(contract.labels))
    states = {state.output for state in contract.hidden_outputs}
    for name, axes in contract.further_axes.items():
        yield f"{'hidden_states' if name in states else 'attention'}: {name}", name, axes


def _may_be(axes: Axes, found: Axes, *, fixed: bool = False) -> bool:
    """Whether axes agree as far as both are known; a name where the graph has a size is wrong if that is fixed."""
    return len(axes) == len(found) and all(
        one == other or not isinstance(other, int) or (not isinstance(one, int) and not fixed)
        for one, other in zip(axes, found, strict=True)
    )


def _show(axes: Axes) -> str:
    return f"[{', '.join('?' if axis is None else str(axis) for axis in axes)}]"


def _show_sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items()) or "its inputs"


def _lie(folder: Path, field: str, value: object, found: str) -> StartError:
    return StartError(f"{folder / CONTRACT_FILE}: {field}: {value}; {found}")
