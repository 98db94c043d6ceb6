"""How a body is read, without a connection."""

import asyncio
import gzip
from collections.abc import Mapping
from typing import Any

from server.api.rest.json_bounds import JsonBounds
from server.transport.gateway.body import Body
from server.transport.wire import MaxBytes


async def test_others_have_their_turns_while_what_is_inflated_is_looked_at() -> None:
    """As while it comes, whatever it was compressed to: four for each MiB, and one for inflating it."""
    content = gzip.compress(bytes(8 * 2**20).replace(b"\0", b" "))

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    body = Body(receive, {"content-encoding": "gzip"})  # type: ignore[arg-type]
    read = await body.read(MaxBytes(2**24, "of this test"), lambda size: None, JsonBounds(10))
    counting.cancel()
    assert read.isspace()
    assert turns >= 8 * (4 + 1)
