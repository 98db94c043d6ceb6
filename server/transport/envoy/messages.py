"""Messages of gRPC as HTTP/2 carries them: a flag, a length, and the bytes.

gRPC over HTTP/2, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".
"""

import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from server.transport.inflating import COMPRESSIONS, inflate
from server.transport.wire import BadMessage, MaxBytes

PREFIX_BYTES = 5
ENCODINGS = ("identity", *COMPRESSIONS)  # that are read; answers are sent as they are


def prefixed(content: bytes) -> bytes:
    """Return a message with its prefix, not compressed."""
    return b"\0" + len(content).to_bytes(4) + content


def only_message(content: bytes, most: MaxBytes) -> bytes | None:
    """Return the message that is all of a request's bytes; None where they are anything else."""
    size = len(content) - PREFIX_BYTES
    if 0 <= size <= most.value and content[0] == 0 and int.from_bytes(content[1:PREFIX_BYTES]) == size:
        return content[PREFIX_BYTES:]
    return None


async def read_messages(
    chunks: AsyncIterator[bytes], most: MaxBytes, encoding: str, arriving: Callable[[int], None]
) -> AsyncGenerator[bytes]:
    """Part a request's bytes into messages, and inflate them.

    Args:
        chunks: As they come.
        most: Of a message: one that says that it is larger is refused unread.
        encoding: Of messages whose flag says that they are compressed.
        arriving: Told how many bytes have come that are not yet given; may raise.

    Raises:
        BadMessage: A message is too large, cut off, or compressed in a way that is not read.
    """
    parts, found = list[bytes](), 0  # what has come of the next message, and of those behind it
    needed, flag = PREFIX_BYTES, -1  # the flag once it has come
    async for chunk in chunks:
        parts.append(chunk)
        found += len(chunk)
        if found >= needed:
            content, begin = parts[0] if len(parts) == 1 else b"".join(parts), 0
            parts.clear()
            while found >= needed:
                if flag < 0:
                    flag, size = struct.unpack_from(">BI", content, begin)
                    _check_prefix(flag, size, most)
                    needed = PREFIX_BYTES + size
                    continue
                message = content[begin + PREFIX_BYTES : begin + needed]
                begin, found = begin + needed, found - needed
                if not found:
                    del content, chunk  # which may be large, and whoever takes the message may take long
                arriving(found)
                yield await inflate(message, most, encoding) if flag else message
                del message
                needed, flag = PREFIX_BYTES, -1
            if found:
                parts.append(content[begin:])
                del content
        arriving(found)
    if found:
        raise BadMessage(f"the request ends inside a message, after {found} bytes of it")


def _check_prefix(flag: int, size: int, most: MaxBytes) -> None:
    if size > most.value:
        raise most.exceeded_by(f"{size} bytes")
    if flag > 1:
        raise BadMessage(f"a message begins with {flag}; expected 0, or 1 where it is compressed")
