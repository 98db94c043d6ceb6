"""Counts what a JSON text has while it comes: two bytes can make an object of a hundred, and brackets a deep stack."""

import re

from server.errors import MalformedMessage

_MAX_DEPTH = 32
# A string as a whole, or the rest of a text that ends inside one, of which the quotation mark stays. Possessive:
# nothing is looked at again and again, whatever it holds.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"|(")(?:[^"\\]++|\\.)*+\\?\Z', re.DOTALL)
_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class JsonBounds:
    """Looks at the pieces of a JSON text, up to its bounds; others are refused before they are read whole."""

    def __init__(self, max_values: int, prefix_bytes: int = 0) -> None:
        """Begin before the text.

        Args:
            max_values: Most numbers, strings and names, lists and objects.
            prefix_bytes: That stand before it and are not looked at.
        """
        self.values = 1
        self._prefix_bytes = prefix_bytes
        self._max_values = max_values
        self._depth = 0
        self._open = b""  # what a piece begins with that begins inside a string

    def look(self, piece: bytes) -> None:
        """Look at the next piece.

        Raises:
            MalformedMessage: There are too many values, or one lies too deep.
        """
        if self._prefix_bytes:
            prefix = min(self._prefix_bytes, len(piece))
            self._prefix_bytes, piece = self._prefix_bytes - prefix, piece[prefix:]
        rest = _STRING.sub(rb"\1", self._open + piece)
        if rest.endswith(b'"'):
            slashes = len(piece) - len(piece.rstrip(b"\\"))
            if slashes == len(piece) and self._open.endswith(b"\\"):
                slashes += 1
            self._open = b'"\\' if slashes % 2 else b'"'
        else:
            self._open = b""
        self.values += rest.count(b",") + rest.count(b":") + rest.count(b"[") + rest.count(b"{")
        if self.values > self._max_values:
            expected = (
                "the server's --max-message-fields and --max-message-integers together; tensors may travel binary"
            )
            message = f"body: more than {self._max_values} values; expected at most so many ({expected})"
            raise MalformedMessage(message, "fields")
        self._go_deeper(rest.translate(None, _BRACKETS))

    def _go_deeper(self, brackets: bytes) -> None:
        depth = self._depth
        for bracket in brackets:
            depth += 1 if bracket in b"[{" else -1
            if depth > _MAX_DEPTH:
                raise MalformedMessage(
                    f"body: lists and objects lie deeper than {_MAX_DEPTH}; expected fewer", "fields"
                )
        self._depth = depth
