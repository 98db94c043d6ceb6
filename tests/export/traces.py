"""Networks that are traced once a run: what is traced again is read from a file that all workers see.

Torch's exporter takes two or three seconds for the smallest network, and many tests export the same one.
"""

import hashlib
import io
import pickle
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

Trace = Callable[..., ModelProto]


class Unknown(Exception):
    """What a network is cannot be told for certain."""


class Traces:
    """Traces what it has not traced yet.

    Args:
        folder: Of the run.
        trace: `export.graph.trace`.
    """

    def __init__(self, folder: Path, trace: Trace) -> None:
        self._folder, self._trace = folder, trace
        self.anew = False  # whether everything is traced
        folder.mkdir(exist_ok=True)

    def __call__(
        self, traced: nn.Module, example: tuple[Tensor, ...], axes: Any, *named: Any, **more: Any
    ) -> ModelProto:
        """Trace, or read what the same network gave."""
        file = None if self.anew else self._file(traced, example, axes, *named, more)
        if file is not None and file.exists():
            return ModelProto.FromString(file.read_bytes())
        model = self._trace(traced, example, axes, *named, **more)
        if file is not None:
            written = file.with_suffix(f".{id(self)}")
            written.write_bytes(model.SerializeToString())
            written.replace(file)
        return model

    def _file(self, *traced: Any) -> Path | None:
        try:
            return self._folder / f"{fingerprint(*traced)}.onnx"
        except Unknown:
            return None


def fingerprint(*traced: Any) -> str:
    """Hash what is traced: all attributes of its modules, their weights, and the code of their methods.

    Raises:
        Unknown: There is something that has no form to be written in, such as a class within a function.
    """
    written = io.BytesIO()
    try:
        _Pickler(written).dump(traced)
    except Exception as error:  # pickle raises whatever the objects raise
        raise Unknown(str(error)) from error
    return hashlib.sha256(written.getvalue()).hexdigest()


class _Pickler(pickle.Pickler):
    """Writes tensors as hashes, dimensions by their bounds, and where code stands with what it knows."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._folder = ""  # a network's, which differs from test to test

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, str):
            return "folder" if obj and obj == self._folder else None
        if isinstance(obj, nn.Module):
            self._folder = str(getattr(getattr(obj, "config", None), "_name_or_path", "")) or self._folder
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return str, (_describe(obj),)
        if isinstance(obj, torch.export.Dim):
            return str, (f"{obj.__name__} {obj.min} {obj.max}",)
        if isinstance(obj, type) and issubclass(obj, nn.Module):
            return str, (_code(obj),)
        if isinstance(obj, nn.Module):
            return types.SimpleNamespace, (), {"is": type(obj), **_attributes(obj)}
        if isinstance(obj, types.FunctionType) and "<locals>" in obj.__qualname__:
            known = [cell.cell_contents for cell in obj.__closure__ or ()]
            return types.SimpleNamespace, (), {"at": _place(obj), "knows": known, "defaults": obj.__defaults__}
        return NotImplemented


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All of them; hooks without the numbers that torch counts them by."""
    named = vars(module).items()
    return {name: list(one.values()) if "_hooks" in name and isinstance(one, dict) else one for name, one in named}


def _describe(tensor: Tensor) -> str:
    """Its content, hashed."""
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {hashlib.sha256(content).hexdigest()}"


def _code(module: type) -> str:
    """Where all that it does stands: a method that a test has replaced stands elsewhere."""
    if "<locals>" in module.__qualname__:
        raise Unknown(f"{module.__qualname__} may know more than its attributes")
    parts = [f"{one.__module__}.{one.__qualname__} {list(_functions(one))}" for one in module.__mro__]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _functions(owner: type) -> Iterator[str]:
    for name, value in vars(owner).items():
        for function in (value, getattr(value, "__wrapped__", None)):
            if isinstance(function, types.FunctionType):
                yield f"{name} {_place(function)}"


def _place(function: types.FunctionType) -> str:
    code = function.__code__
    return f"{code.co_filename} {code.co_firstlineno} {code.co_names} {code.co_code.hex()}"
