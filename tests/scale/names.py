"""A name server that knows one name, as a cluster's knows that of the replicas: its addresses come and go."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_A, _IN = 1, 1
_ANSWERED = 0x8180  # a response, with recursion
_TTL_SECONDS = 1


class Names:
    """Answers every question for an IPv4 address alike.

    Attributes:
        addresses: What it answers, IPv4.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = tuple(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.place = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _answer(self) -> None:
        while True:
            asked, caller = self._socket.recvfrom(512)
            if not asked:
                return
            self._socket.sendto(reply(asked, self.addresses), caller)


def reply(asked: bytes, addresses: Sequence[str]) -> bytes:
    """Answer a question (RFC 1035, 4.1); for other types than A there is nothing."""
    (number,) = struct.unpack_from("!H", asked)
    end = asked.index(b"\0", 12) + 5  # the name ends with an empty label; type and class follow
    (kind,) = struct.unpack_from("!H", asked, end - 4)
    found = addresses if kind == _A else ()
    head = struct.pack("!6H", number, _ANSWERED, 1, len(found), 0, 0)
    name = b"\xc0\x0c"  # which stands at byte 12
    records = [name + struct.pack("!HHIH", _A, _IN, _TTL_SECONDS, 4) + socket.inet_aton(one) for one in found]
    return head + asked[12:end] + b"".join(records)


@contextmanager
def serving_names(addresses: Sequence[str]) -> Iterator[Names]:
    """Start a name server."""
    names = Names(addresses)
    try:
        yield names
    finally:
        names.close()
