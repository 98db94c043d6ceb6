"""The reference of the protocol, made from the comments of proto/regard/v1."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2 as d
from grpc_tools import protoc

PROTO = Path(__file__).parents[2] / "proto"
_FILES = ("regard/v1/regard.proto", "regard/v1/types.proto")
_INTRODUCTION = """# Protocol

Made from the comments of `proto/regard/v1`. Standard clients use the [Open Inference
Protocol](../inference-protocol.md) instead. A field that is not set has its type's zero value unless its comment says
otherwise.
"""
_Field = d.FieldDescriptorProto


def on_files(files: Any, config: Any) -> Any:
    """Add the page to the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference/protocol.md", content=render()))
    return files


def render() -> str:
    """Return the page: the service with its methods, then messages and enums in the order of the files."""
    return "\n".join([_INTRODUCTION, *(line for file in _describe() for line in _File(file).lines())])


def _describe() -> list[d.FileDescriptorProto]:
    """Let protoc parse the files, with their comments."""
    with tempfile.NamedTemporaryFile() as out:
        flags = [f"--proto_path={PROTO}", f"--descriptor_set_out={out.name}", "--include_source_info"]
        if protoc.main(["protoc", *flags, *_FILES]):
            raise RuntimeError("protoc cannot read proto/regard/v1")
        return [*reversed(d.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file)]


class _File:
    """One .proto file, with the comment of each element by its path in the descriptor."""

    def __init__(self, file: d.FileDescriptorProto) -> None:
        self._file = file
        self._comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}

    def lines(self) -> Iterator[str]:
        for i, service in enumerate(self._file.service):
            yield f"## {service.name}\n\n{self._comment(12)}\n\n{self._comment(6, i)}\n"
            yield "| method | request | answer | |\n|---|---|---|---|"
            for j, method in enumerate(service.method):
                answer = ("stream of " if method.server_streaming else "") + _linked(method.output_type)
                comment = self._comment(6, i, 2, j)
                yield f"| `{method.name}` | {_linked(method.input_type)} | {answer} | {comment} |"
            yield ""
        for i, message in enumerate(self._file.message_type):
            yield f"## {message.name}\n\n{self._comment(4, i)}\n\n| field | type | |\n|---|---|---|"
            for j, field in enumerate(message.field):
                is_choice = field.HasField("oneof_index") and not field.proto3_optional
                choice = self._comment(4, i, 8, field.oneof_index) + " " if is_choice else ""
                comment = choice + self._comment(4, i, 2, j)
                yield f"| `{field.name}` = {field.number} | {_type(message, field)} | {comment} |"
            yield ""
        for i, enum in enumerate(self._file.enum_type):
            yield f"## {enum.name}\n\n{self._comment(5, i)}\n\n| value | |\n|---|---|"
            for j, value in enumerate(enum.value):
                yield f"| `{value.name}` = {value.number} | {self._comment(5, i, 2, j)} |"
            yield ""

    def _comment(self, *path: int) -> str:
        words = " ".join(self._comments.get(path, "").split())
        return words.replace("|", "\\|").replace("<", "&lt;")


def _type(message: d.DescriptorProto, field: _Field) -> str:
    entry = {each.name: each for each in message.nested_type}.get(field.type_name.rpartition(".")[2])
    if entry is not None and entry.options.map_entry:
        return f"map of {_type(entry, entry.field[0])} to {_type(entry, entry.field[1])}"
    name = _linked(field.type_name) if field.type_name else _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == _Field.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`" if field.HasField("oneof_index") else name


def _linked(full_name: str) -> str:
    name = full_name.rpartition(".")[2]
    return f"[{name}](#{name.lower()})"
