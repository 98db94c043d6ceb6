"""Inflates what callers send compressed, never beyond what a message may have."""

import asyncio
import zlib

import grpc

from server.transport.wire import BadMessage, MaxBytes

_WINDOW_BITS = {"deflate": 15, "gzip": 31}  # zlib's, with its own header and with gzip's
COMPRESSIONS = tuple(_WINDOW_BITS)
_STEP_BYTES = 2**20  # read or made at a time: a millisecond or two


async def inflate(content: bytes, most: MaxBytes, encoding: str) -> bytes:
    """Inflate a message, never beyond what one may have; others have their turns meanwhile.

    Raises:
        BadMessage: It is too large, damaged, or compressed in a way that is not read.
    """
    if encoding not in _WINDOW_BITS:
        what = f"grpc-encoding: {encoding[:100]!r} of a compressed message"
        raise BadMessage(f"{what}; expected {' or '.join(_WINDOW_BITS)}", grpc.StatusCode.UNIMPLEMENTED)
    inflating = zlib.decompressobj(_WINDOW_BITS[encoding])
    parts, found = list[bytes](), 0
    try:
        for begin in range(0, len(content), _STEP_BYTES):
            piece = content[begin : begin + _STEP_BYTES]
            while not inflating.eof:
                part = inflating.decompress(piece, min(_STEP_BYTES, most.value + 1 - found))
                piece = inflating.unconsumed_tail
                found += len(part)
                if found > most.value:
                    raise most.exceeded_by(f"more than {most.value} bytes, inflated")
                if not (part or piece):
                    break
                parts.append(part)
                await asyncio.sleep(0)
    except zlib.error as error:
        raise BadMessage(f"a message is no {encoding}: {error}") from error
    if not inflating.eof:
        raise BadMessage(f"a message ends inside its {encoding}")
    return b"".join(parts)
