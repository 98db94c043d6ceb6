"""What is refused by a request's headers, whoever calls."""

import httpx2
import pytest

from tests.server.conftest import Running, Serve
from tests.server.transport.gateway.conftest import Raw, head

INFER, MODELS = "/v2/models/tiny-text/infer", "/v1/models"
HTTP = "127.0.0.1:0"


def client_of(running: Running, host: str = "localhost") -> httpx2.AsyncClient:
    """What asks a server by a name."""
    return httpx2.AsyncClient(base_url=f"http://{running.started.http_address}", headers={"Host": host}, timeout=60)


async def statuses(running: Running, *hosts: str) -> list[int]:
    """What is answered by each name."""
    found = []
    for host in hosts:
        async with client_of(running, host) as client:
            found.append((await client.get(MODELS)).status_code)
    return found


async def test_a_page_whose_name_leads_here_is_refused(start: Serve) -> None:
    """DNS rebinding: for its browser it asks its own server, and so sends no Origin."""
    async with start(http=HTTP) as running:
        own = ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "192.0.2.1"]
        assert await statuses(running, *own) == [200] * len(own)
        assert await statuses(running, "evil.example", "evil.example:8000", "127.0.0.1.evil.example") == [403] * 3
        async with client_of(running, "evil.example") as page:
            assert "host: 'evil.example' is no name of this server" in (await page.get(MODELS)).text
    async with start(http=HTTP, http_cors="https://app.example.com:8443") as running:
        assert await statuses(running, "app.example.com", "evil.example") == [200, 403]
    for settings in ({"http_cors": "*"}, {"http": "0.0.0.0:0", "allow_insecure": True}):
        async with start(**{"http": HTTP} | settings) as running:
            assert await statuses(running, "regard.example") == [200]


async def test_a_length_beside_chunks_is_refused(start: Serve) -> None:
    """Of which a proxy in front may believe the other; nothing behind them is read."""
    async with start(http=HTTP) as running:
        raw = await Raw.dial(running.started.http_address)
        smuggled = head("/v2/health/live", verb="GET")
        await raw.send(head(INFER, f"Content-Length: {5 + len(smuggled)}", "Transfer-Encoding: chunked"))
        await raw.send(b"0\r\n\r\n" + smuggled)
        status, content = await raw.answer()
        assert (status, content.count(b"HTTP/1.1")) == (400, 1)
        assert b"content-length: given beside transfer-encoding" in content
        await raw.close()


@pytest.mark.parametrize("digits", ["9" * 11, "0" * 12 + "9" * 400, "0" * 12 + "9" * 5000, "-1", "\u0665"])
async def test_a_time_is_a_number_of_ten_digits(start: Serve, digits: str) -> None:
    """A longer one is refused, however long it is."""
    async with start(http=HTTP) as running, client_of(running) as client:
        headers = {"Connect-Timeout-Ms": digits.encode()}
        found = await client.get(MODELS, headers=headers)  # type: ignore[arg-type]
        assert (found.status_code, "connect-timeout-ms" in found.text) == (400, True)
