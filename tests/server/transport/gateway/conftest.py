"""Says what came of an HTTP request that no library would make."""

import asyncio
import ssl

import pytest

pytest.importorskip("uvicorn", reason="HTTP needs the extra http")


class Raw:
    """A connection that a test writes bytes to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def dial(cls, address: str, context: ssl.SSLContext | None = None) -> "Raw":
        """Connect."""
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), ssl=context))

    async def send(self, content: bytes) -> None:
        """Send bytes."""
        self.writer.write(content)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Return a status, and all that comes until the server closes."""
        content = await asyncio.wait_for(self.reader.read(), 60)
        return int(content.split(b" ", 2)[1]) if content else 0, content

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()


def head(path: str, *headers: str, verb: str = "POST") -> bytes:
    """The headers of a request."""
    return "\r\n".join([f"{verb} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()
