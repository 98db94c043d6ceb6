"""Networks that are traced once a run: what is traced again is read from a file that all workers see.

Torch's exporter takes two or three seconds for the smallest network, and many tests export the same one.
"""

import contextlib
import functools
import hashlib
import io
import os
import pickle
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

Trace = Callable[..., ModelProto]
_NO_MATTER = {
    "__abstractmethods__",
    "__annotations__",
    "__dict__",
    "__doc__",
    "__weakref__",
    "_abc_impl",
    "T_destination",
}
"""What classes have besides, which changes nothing that their modules compute."""


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
            written = file.with_suffix(f".{os.getpid()}")
            written.write_bytes(model.SerializeToString())
            written.replace(file)
        return model

    def _file(self, *traced: Any) -> Path | None:
        try:
            return self._folder / f"{fingerprint(*traced)}.onnx"
        except Unknown:
            return None


def fingerprint(*traced: Any) -> str:
    """Hash what is traced: all attributes of its modules and of their classes, weights, and the code of methods.

    What code names is not seen: a test that replaces a global which a method calls, such as a function of
    `torch.nn.functional` or a class that is no module, has to take `traced_anew`.

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
        if isinstance(obj, str):  # not by its identity, which differs from process to process
            return "folder" if obj and obj == self._folder else f"={obj}"
        if isinstance(obj, set | frozenset):  # nor in the order of hashes
            return "set", sorted(obj, key=repr)
        if isinstance(obj, nn.Module):
            self._folder = str(getattr(getattr(obj, "config", None), "_name_or_path", "")) or self._folder
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return str, (_describe(obj),)
        if isinstance(obj, torch.export.Dim):
            return str, (f"{obj.__name__} {obj.min} {obj.max}",)
        if isinstance(obj, type) and issubclass(obj, nn.Module):
            return types.SimpleNamespace, (), _class(obj)
        if isinstance(obj, nn.Module):
            return types.SimpleNamespace, (), {"is": type(obj), **_attributes(obj)}
        parts = _code(obj)
        return NotImplemented if parts is None else (types.SimpleNamespace, (), {"is": type(obj).__name__, **parts})


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All of them; hooks without the numbers that torch counts them by."""
    named = vars(module).items()
    return {name: list(one.values()) if "_hooks" in name and isinstance(one, dict) else one for name, one in named}


def _describe(tensor: Tensor) -> str:
    """Its content, hashed."""
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {hashlib.sha256(content).hexdigest()}"


def _class(module: type) -> dict[str, Any]:
    """What it and all that it inherits from hold, methods among it."""
    if "<locals>" in module.__qualname__:
        raise Unknown(f"{module.__qualname__} may know more than its attributes")
    return {
        f"{one.__module__}.{one.__qualname__}": {
            name: vars(one)[name] for name in sorted(vars(one).keys() - _NO_MATTER)
        }
        for one in module.__mro__[:-1]
    }


def _code(obj: Any) -> dict[str, Any] | None:
    """Where code stands, and what it knows from there; None for what is no code."""
    if isinstance(obj, types.FunctionType):
        known = [cell.cell_contents for cell in obj.__closure__ or ()]
        return {"at": _place(obj.__code__), "knows": known, "defaults": (obj.__defaults__, obj.__kwdefaults__)}
    if isinstance(obj, types.MethodType):
        return {"does": obj.__func__, "to": obj.__self__}
    if isinstance(obj, staticmethod | classmethod):
        return {"does": obj.__func__}
    if isinstance(obj, property):
        return {"gets": obj.fget, "sets": obj.fset, "deletes": obj.fdel}
    if isinstance(obj, functools.cached_property):
        return {"gets": obj.func}
    if isinstance(obj, contextlib._GeneratorContextManager):  # which decorates methods
        return {"does": obj.func, "to": (obj.args, obj.kwds)}
    return None


def _place(code: types.CodeType) -> str:
    constants = [_constant(one) for one in code.co_consts]
    return f"{code.co_filename} {code.co_firstlineno} {code.co_names} {constants} {code.co_code.hex()}"


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return _place(value)
    if isinstance(value, tuple | frozenset):
        parts = [_constant(one) for one in value]
        return f"{type(value).__name__} {parts if isinstance(value, tuple) else sorted(parts)}"
    return repr(value)
