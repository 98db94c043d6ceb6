"""Reads and rewrites where an ONNX file's weights lie, without the onnx package.

Of an ONNX file only the places of its external weights are declared here, by their field numbers; protobuf carries
everything else through unread. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
# Message: its fields, each a name, a number, whether it repeats, and the message it holds ("" for text).
_SCHEMA = {
    "Model": [("graph", 7, False, "Graph")],
    "Graph": [("node", 1, True, "Node"), ("initializer", 5, True, "Tensor")],
    "Node": [("attribute", 5, True, "Attribute")],
    "Attribute": [("g", 6, False, "Graph"), ("graphs", 11, True, "Graph")],  # the bodies of If, Loop and Scan
    "Tensor": [("name", 8, False, ""), ("external_data", 13, True, "Entry")],
    "Entry": [("key", 1, False, ""), ("value", 2, False, "")],
}
_PACKAGE = "regard.external_data"
_PREPACKED = "prepacked_"


@dataclass(frozen=True)
class Piece:
    """A run of bytes in the weights file: a tensor, or what a kernel has made of it beforehand."""

    offset: int
    length: int


class ExternalData:
    """The external weights of one ONNX file."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._path = path
        self._model: Any = _model_class().FromString(path.read_bytes())

    def tensors(self) -> Iterator[tuple[str, list[Piece]]]:
        """Yield each external tensor's name and pieces: its own bytes first.

        Names of tensors in the body of an If, Loop or Scan have the body's place before them.
        """
        for name, tensor in _external(self._model.graph):
            yield name, _read(tensor.external_data)

    def locations(self) -> set[str]:
        """Names of the files that hold them."""
        entries = (entry for _, tensor in _external(self._model.graph) for entry in tensor.external_data)
        return {entry.value for entry in entries if entry.key == "location"}

    @property
    def in_bodies(self) -> bool:
        """Whether the body of an If, Loop or Scan has external weights of its own."""
        return any(True for body in _bodies(self._model.graph) for _ in _external(body))

    def move(self, places: dict[str, list[int]]) -> None:
        """Write new offsets of every tensor's pieces, by name, into the file."""
        for name, tensor in _external(self._model.graph):
            _write(tensor.external_data, places[name])
        self._path.write_bytes(self._model.SerializeToString())


def _external(graph: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the external tensors of a graph and of the graphs inside it; two bodies may use one name."""
    for tensor in graph.initializer:
        if tensor.external_data:
            yield prefix + tensor.name, tensor
    for number, body in enumerate(_bodies(graph)):
        yield from _external(body, f"{prefix}{number}/")


def _bodies(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _read(entries: Any) -> list[Piece]:
    values = {entry.key: entry.value for entry in entries}
    pieces = [Piece(int(values["offset"]), int(values["length"]))]
    for entry in entries:
        if entry.key.startswith(_PREPACKED):
            blobs = (blob.split(";") for blob in entry.value.split("|")[1:])
            pieces += [Piece(int(offset), int(length)) for offset, length, *_ in blobs]
    return pieces


def _write(entries: Any, offsets: list[int]) -> None:
    waiting = iter(offsets)
    for entry in entries:
        if entry.key == "offset":
            entry.value = str(next(waiting))
    for entry in entries:
        if entry.key.startswith(_PREPACKED):
            kernel, *blobs = entry.value.split("|")
            moved = (f"{next(waiting)};{blob.split(';', 1)[1]}" for blob in blobs)
            entry.value = "|".join([kernel, *moved])


@cache
def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="regard/external_data.proto", package=_PACKAGE, syntax="proto2")
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, number, repeats, holds in fields:
            described.field.add(
                name=name,
                number=number,
                label=_FIELD.LABEL_REPEATED if repeats else _FIELD.LABEL_OPTIONAL,
                type=_FIELD.TYPE_MESSAGE if holds else _FIELD.TYPE_STRING,
                type_name=f".{_PACKAGE}.{holds}" if holds else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))
