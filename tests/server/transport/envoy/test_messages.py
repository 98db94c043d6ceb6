"""Messages of gRPC in the bytes of a request, however these are parted, compressed or broken."""

import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import TooBusy
from server.transport.envoy.messages import only_message, prefixed, read_messages
from server.transport.inflating import inflate
from server.transport.wire import BadMessage, MaxBytes

MOST = MaxBytes(1000, "the test's")
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


async def coming(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Chunks as they come."""
    for chunk in chunks:
        yield chunk


async def read(*chunks: bytes, most: MaxBytes = MOST, encoding: str = "identity") -> list[bytes]:
    """All messages of chunks."""
    told = list[int]()
    found = [message async for message in read_messages(coming(chunks), most, encoding, told.append)]
    assert told[-1] == 0
    return found


def compressed(content: bytes, encoding: str) -> bytes:
    """A message whose flag says that it is."""
    small = COMPRESS[encoding](content)
    return b"\1" + len(small).to_bytes(4) + small


@given(messages=st.lists(st.binary(max_size=40), max_size=8), size=st.integers(1, 60))
async def test_chunks_of_any_size_give_the_same_messages(messages: list[bytes], size: int) -> None:
    """Borders within a prefix, within a message, and several messages in a chunk."""
    content = b"".join(map(prefixed, messages))
    chunks = [content[begin : begin + size] for begin in range(0, len(content), size)]
    assert await read(*chunks, b"") == messages


@given(content=st.binary(max_size=3000), encoding=st.sampled_from(sorted(COMPRESS)), size=st.integers(1, 500))
async def test_what_is_compressed_is_inflated(content: bytes, encoding: str, size: int) -> None:
    """Beside what is not."""
    most = MaxBytes(3000, "the test's")
    whole = compressed(content, encoding) + prefixed(b"plain") + compressed(content, encoding)
    chunks = [whole[begin : begin + size] for begin in range(0, len(whole), size)]
    assert await read(*chunks, most=most, encoding=encoding) == [content, b"plain", content]


@pytest.mark.parametrize("encoding", sorted(COMPRESS))
@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
async def test_inflating_in_steps_gives_all(encoding: str, size: int) -> None:
    """Around the borders of its steps, of what is made as of what is read."""
    most = MaxBytes(2**22, "the test's")
    for content in (bytes(size), bytes(range(251)) * (size // 251)):
        assert await inflate(COMPRESS[encoding](content), most, encoding) == content
    stored = zlib.compressobj(0, wbits=31 if encoding == "gzip" else 15)
    assert await inflate(stored.compress(bytes(size)) + stored.flush(), most, encoding) == bytes(size)


@pytest.mark.parametrize("encoding", sorted(COMPRESS))
async def test_a_bomb_is_refused_at_its_limit(encoding: str) -> None:
    """A byte more than there may be, and a thousand times as much; exactly as much is no bomb."""
    assert await read(compressed(bytes(1000), encoding), encoding=encoding) == [bytes(1000)]
    for size in (1001, 200_000):
        with pytest.raises(BadMessage, match="more than 1000 bytes, inflated; expected at most 1000") as refused:
            await read(compressed(bytes(size), encoding), encoding=encoding)
        assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "bytes")


async def test_a_bomb_is_never_inflated_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """By more than the byte that says so."""
    inflate_some, made = zlib.decompressobj, list[int]()

    class Inflating:
        def __init__(self, bits: int) -> None:
            self._inflating = inflate_some(bits)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inflating, name)

        def decompress(self, content: bytes, most: int) -> bytes:
            made.append(len(found := self._inflating.decompress(content, most)))
            return found

    monkeypatch.setattr(zlib, "decompressobj", Inflating)
    with pytest.raises(BadMessage, match="inflated"):
        await inflate(gzip.compress(bytes(10**7)), MOST, "gzip")
    assert sum(made) == MOST.value + 1


async def test_a_large_message_is_refused_by_its_prefix() -> None:
    """Before any of it has come; what came before it was given."""
    found = list[bytes]()
    with pytest.raises(BadMessage, match=r"a message of 1001 bytes; expected at most 1000 \(the test's\)") as refused:
        async for message in read_messages(
            coming([prefixed(b"one") + b"\0" + (1001).to_bytes(4)]), MOST, "identity", lambda size: None
        ):
            found.append(message)
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert found == [b"one"]
    assert await read(prefixed(bytes(1000))) == [bytes(1000)]


@pytest.mark.parametrize(
    ("content", "encoding", "code", "message"),
    [
        (b"\2\0\0\0\0", "identity", "INTERNAL", "a message begins with 2; expected 0, or 1"),
        (b"\xff\0\0\0\0", "gzip", "INTERNAL", "a message begins with 255"),
        (b"\0\0\0\0\5abc", "identity", "INTERNAL", "ends inside a message, after 8 bytes of it"),
        (b"\0\0\0", "identity", "INTERNAL", "ends inside a message, after 3 bytes of it"),
        (b"\1\0\0\0\0", "identity", "UNIMPLEMENTED", "grpc-encoding: 'identity' of a compressed message"),
        (b"\1\0\0\0\0", "snappy" * 50, "UNIMPLEMENTED", f"grpc-encoding: '{('snappy' * 50)[:100]}' of a"),
        (b"\1\0\0\0\0", "gzip", "INTERNAL", "a message ends inside its gzip"),
        (b"\1\0\0\0\3abc", "gzip", "INTERNAL", "a message is no gzip: "),
        (b"\1\0\0\0\3abc", "deflate", "INTERNAL", "a message is no deflate: "),
    ],
)
async def test_what_is_no_message_is_refused(content: bytes, encoding: str, code: str, message: str) -> None:
    """In gRPC's codes."""
    with pytest.raises(BadMessage, match=message) as refused:
        await read(content, encoding=encoding)
    assert refused.value.code.name == code


@given(content=st.binary(max_size=60), encoding=st.sampled_from(["identity", "gzip", "deflate", "br"]))
async def test_any_bytes_are_messages_or_refused(content: bytes, encoding: str) -> None:
    """Never anything else."""
    with suppress(BadMessage):
        await read(content, encoding=encoding)


async def test_what_has_come_is_told_and_may_be_refused() -> None:
    """Of a message that is not whole, and of those behind one that is given."""
    told = list[int]()

    def tell(size: int) -> None:
        told.append(size)
        if size > 30:
            raise TooBusy("full", 1.0, "held")

    chunks = [b"\0\0\0\0\x0a", b"12345", b"67890" + prefixed(b"next"), b"\0\0\0\1\0" + bytes(26)]
    found = list[bytes]()
    with pytest.raises(TooBusy):
        async for message in read_messages(coming(chunks), MOST, "identity", tell):
            found.append(message)
    assert found == [b"1234567890", b"next"]
    assert told == [5, 10, 9, 0, 0, 31]


class Counted(bytes):
    """Bytes that count what is copied of them."""

    copied = 0

    def __getitem__(self, where: Any) -> Any:
        found = super().__getitem__(where)
        if isinstance(found, bytes):
            Counted.copied += len(found)
            return Counted(found)
        return found


async def test_of_many_messages_in_a_chunk_each_is_copied_once() -> None:
    """Not all that is behind it each time."""
    chunk, Counted.copied = Counted(prefixed(b"12345") * 1000), 0
    assert await read(chunk) == [b"12345"] * 1000
    assert Counted.copied == 5000


@given(content=st.binary(max_size=30), flag=st.integers(0, 2), size=st.integers(0, 30))
def test_the_quick_way_gives_what_the_other_would(content: bytes, flag: int, size: int) -> None:
    """Or nothing."""
    whole = bytes([flag]) + size.to_bytes(4) + content
    expected = content if flag == 0 and size == len(content) else None
    assert only_message(whole, MOST) == expected
    assert only_message(whole, MaxBytes(len(content) - 1, "")) is None
    assert only_message(whole[:4], MOST) is None
