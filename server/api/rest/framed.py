"""regard.v1's methods in messages that each have a flag and a length before them: gRPC-Web, and Connect's streams.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md and https://connectrpc.com/docs/protocol#streaming-rpcs
"""

import base64
import binascii
import json
from typing import Any
from urllib.parse import quote

from google.protobuf import json_format

from server.api.rest.connect import Method, code_name
from server.api.rest.exchange import Refusal
from server.errors import MalformedMessage, Trailers

_WEB, _WEB_TEXT, _CONNECT = "application/grpc-web", "application/grpc-web-text", "application/connect+"
PREFIX_BYTES = 5  # of each message
_TRAILERS, _END = 0x80, 0x02  # flags: of gRPC-Web's last frame, and of Connect's


class Framing:
    """How one call's messages travel."""

    def __init__(self, content_type: str, path: str) -> None:
        """Take a content type that `is_framed`.

        Args:
            content_type: The request's, and so the answer's.
            path: /SERVICE/METHOD.
        """
        self.content_type = content_type
        self._is_text, self._is_connect = content_type.startswith(_WEB_TEXT), content_type.startswith(_CONNECT)
        self._method = Method.by_path(path) if content_type == f"{_CONNECT}json" else None

    @property
    def is_binary(self) -> bool:
        """Whether messages are no JSON."""
        return self._method is None

    def read(self, body: bytes) -> bytes:
        """Return the one message of a request.

        Raises:
            MalformedMessage: The body is none, or is compressed.
            InvalidInput: It is JSON with a field that is not known.
        """
        if self._is_text:
            try:
                body = base64.b64decode(body, validate=True)
            except binascii.Error:
                raise MalformedMessage(f"body: no base64; expected it for {self.content_type}") from None
        size = len(body) - PREFIX_BYTES
        if size < 0 or body[0] or int.from_bytes(body[1:PREFIX_BYTES]) != size:
            raise MalformedMessage("body: expected a 0, the length in 4 bytes, and one message that is not compressed")
        content = body[PREFIX_BYTES:]
        return self._method.read_json(content).SerializeToString() if self._method else content

    def frame(self, content: bytes) -> bytes:
        """Return a message of an answer as it is sent."""
        if self._method:
            content = json.dumps(json_format.MessageToDict(self._method.parse_answer(content))).encode()
        return self._write(0, content)

    def end(self, refusal: Refusal | None, trailers: Trailers) -> bytes:
        """Return what comes last.

        Args:
            refusal: Why the call has failed; None where it has not.
            trailers: What goes with the end.
        """
        told = [(name, value) for name, value in trailers if isinstance(value, str)]
        if self._is_connect:
            said: dict[str, Any] = {"metadata": {name: [value] for name, value in told}} if told else {}
            if refusal:
                said["error"] = {"code": code_name(refusal.code), "message": refusal.message}
            return self._write(_END, json.dumps(said).encode())
        lines = [("grpc-status", str(refusal.code.value[0] if refusal else 0))]
        lines += [("grpc-message", quote(refusal.message, safe=" !#$&'()*+,/:;<=>?@[]"))] if refusal else []
        return self._write(_TRAILERS, "".join(f"{name}: {value}\r\n" for name, value in [*lines, *told]).encode())

    def _write(self, flag: int, content: bytes) -> bytes:
        frame = bytes([flag]) + len(content).to_bytes(4) + content
        return base64.b64encode(frame) if self._is_text else frame


def is_framed(content_type: str) -> bool:
    """Whether a content type is one of gRPC-Web's or of Connect's streams."""
    kinds = [kind + end for kind in (_WEB, _WEB_TEXT) for end in ("", "+proto")]
    return content_type in (*kinds, f"{_CONNECT}proto", f"{_CONNECT}json")
