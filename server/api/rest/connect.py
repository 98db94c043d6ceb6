"""regard.v1 as the Connect protocol has it: a method's one message as JSON, or as it is, and its one answer likewise.

https://connectrpc.com/docs/protocol#unary-request
"""

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from regard.v1 import regard_pb2 as api
from server.api.rest.exchange import JSON, Asked, HttpAnswer, HttpRequest, Refusal, Route
from server.api.rest.fields import read_object, write_json
from server.errors import InvalidInput, MalformedMessage

PROTO = "application/proto"
_SERVICE: Any = api.DESCRIPTOR.services_by_name["RegardService"]


def connect_routes() -> Iterator[Route]:
    """Yield a path for each method that has one answer."""
    for method in _SERVICE.methods:
        if not (method.client_streaming or method.server_streaming):
            path = f"/{_SERVICE.full_name}/{method.name}"
            yield Route("POST", path, path, _Method(method).read, write_error)


def write_error(refusal: Refusal) -> HttpAnswer:
    """Say why there is no answer."""
    code = "canceled" if refusal.code is grpc.StatusCode.CANCELLED else refusal.code.name.lower()
    return write_json({"code": code, "message": refusal.message}, refusal.http_status)


class _Bytes:
    """A message that is not parsed here."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def SerializeToString(self) -> bytes:  # noqa: N802 -- protobuf's name
        """Return it."""
        return self._content


class _Method:
    """Reads what asks a method."""

    def __init__(self, method: Any) -> None:
        self._asked, self._answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

    def read(self, request: HttpRequest) -> Asked:
        """Read a request.

        Raises:
            MalformedMessage: It is neither JSON nor says that it is a message.
            InvalidInput: A field is not known, or has another type.
        """
        kind = str(request.headers.get("content-type", "")).partition(";")[0].strip().lower()
        if kind == PROTO:
            return Asked(_Bytes(request.body), lambda content: HttpAnswer(content, PROTO))
        if kind != JSON:
            raise MalformedMessage(f"content-type: {kind[:100]!r}; expected {JSON} or {PROTO}")
        return Asked(self._read_json(request.body), self._write_json)

    def _read_json(self, body: bytes) -> Message:
        message: Message = self._asked()
        try:
            return json_format.ParseDict(read_object(body), message)
        except (json_format.ParseError, ValueError, TypeError) as error:
            raise InvalidInput("body", str(error).splitlines()[0], "what the method's .proto says") from None

    def _write_json(self, content: bytes) -> HttpAnswer:
        return write_json(json_format.MessageToDict(self._answered.FromString(content)))
