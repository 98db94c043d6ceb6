"""regard.v1 as the Connect protocol has it: a method's one message as JSON, or as it is, and its one answer likewise.

https://connectrpc.com/docs/protocol#unary-request
"""

from collections.abc import Iterator
from typing import Any, Self

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from regard.v1 import regard_pb2 as api
from server.api.rest.exchange import JSON, Asked, Headers, HttpAnswer, HttpRequest, Refusal, Route, content_type_of
from server.api.rest.fields import read_object, write_json
from server.errors import InvalidInput, MalformedMessage

_PROTO = "application/proto"
_SERVICE: Any = api.DESCRIPTOR.services_by_name["RegardService"]


def connect_routes() -> Iterator[Route]:
    """Yield a path for each method."""
    for name in _SERVICE.methods_by_name:
        path = f"/{_SERVICE.full_name}/{name}"
        yield Route("POST", path, path, Method.by_path(path).read, write_error, _json_bytes)


def write_error(refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer."""
    return write_json({"code": code_name(refusal.code), "message": refusal.message}, refusal.http_status)


def code_name(code: grpc.StatusCode) -> str:
    """Return what Connect calls a code."""
    return "canceled" if code is grpc.StatusCode.CANCELLED else code.name.lower()


def _json_bytes(headers: Headers) -> int | None:
    return 0 if content_type_of(headers) == _PROTO else None


class _Bytes:
    """A message that is not parsed here."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def SerializeToString(self) -> bytes:  # noqa: N802 -- protobuf's name
        """Return it."""
        return self._content


class Method:
    """Reads what asks a method."""

    def __init__(self, method: Any) -> None:
        self._asked, self._answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        self._is_stream: bool = method.server_streaming

    @classmethod
    def by_path(cls, path: str) -> Self:
        """Find a method of regard.v1 by /SERVICE/METHOD."""
        return cls(_SERVICE.methods_by_name[path.rpartition("/")[2]])

    def read(self, request: HttpRequest) -> Asked:
        """Read a request.

        Raises:
            MalformedMessage: It is neither JSON nor says that it is a message.
            InvalidInput: A field is not known, or has another type.
        """
        if self._is_stream:
            raise MalformedMessage(
                "content-type: of one answer; expected application/connect+json, application/grpc-web"
            )
        kind = content_type_of(request.headers)
        if kind == _PROTO:
            return Asked(_Bytes(request.body), lambda content: HttpAnswer(content, _PROTO))
        if kind != JSON:
            raise MalformedMessage(f"content-type: {kind[:100]!r}; expected {JSON} or {_PROTO}")
        return Asked(self.read_json(request.body), self._write_json)

    def read_json(self, body: bytes) -> Message:
        """Read a message.

        Raises:
            MalformedMessage: It is no JSON.
            InvalidInput: A field is not known, or has another type.
        """
        message: Message = self._asked()
        try:
            return json_format.ParseDict(read_object(body), message)
        except (json_format.ParseError, ValueError, TypeError) as error:
            raise InvalidInput("body", str(error).splitlines()[0], "what the method's .proto says") from None

    def parse_answer(self, content: bytes) -> Message:
        """Parse an answer."""
        return self._answered.FromString(content)

    def _write_json(self, content: bytes) -> HttpAnswer:
        return write_json(json_format.MessageToDict(self.parse_answer(content)))
