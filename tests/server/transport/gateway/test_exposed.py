"""HTTP that other machines can reach: TLS, tokens, permissions, certificates, and pages of other origins."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import httpx2
import pytest
import trustme

from server.errors import StartError
from server.transport.gateway import connections
from tests.server.asking import samples
from tests.server.conftest import Running, Serve
from tests.server.transport.gateway.conftest import Raw, head
from tests.server.transport.pki import Pki

INFER = "/v2/models/tiny-text/infer"
HTTP = "127.0.0.1:0"
TEXT = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["the cat"]}]}
SEEN = TEXT | {"parameters": {"attention": True}}
TOKEN, OPERATOR = "the-token-of-an-app", "the-token-of-the-operator"
CLIENTS = f"""
[clients.app]
tokens = ["{TOKEN}"]
allow = ["infer"]
requests_per_second = 0.001

[clients.operator]
tokens = ["{OPERATOR}"]
allow = ["infer", "attention", "manage"]
"""


def client_of(running: Running, token: str = "", context: ssl.SSLContext | None = None) -> httpx2.AsyncClient:
    """What asks a server."""
    url = f"{'https' if context else 'http'}://{running.started.http_address}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(base_url=url, headers=headers, verify=context or False, timeout=60)


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    """An app that may ask, and an operator who may do everything."""
    (tmp_path / "clients.toml").write_text(CLIENTS)
    return tmp_path / "clients.toml"


async def test_who_is_nobody_is_turned_away_before_a_body_is_read(start: Serve, clients: Path) -> None:
    """Without a token, and with one that nobody has."""
    async with start(http=HTTP, clients=clients) as running:
        for more in ([], ["Authorization: Bearer nobody-has-this-one"]):
            raw = await Raw.dial(running.started.http_address)
            await raw.send(head(INFER, "Content-Length: 1000000", *more))
            status, content = await raw.answer()
            assert (status, b"authorization" in content) == (401, True)
            await raw.close()
        found = await samples(running)
        assert found["regard_requests_total", "UNAUTHENTICATED", "ModelInfer", ""] == 2


async def test_clients_have_their_permissions_and_quotas(start: Serve, clients: Path) -> None:
    """As over gRPC: of attention, of management, of requests a second."""
    async with start(http=HTTP, clients=clients) as running, client_of(running, TOKEN) as app:
        assert (await app.post(INFER, json=TEXT)).status_code == 200
        full = await app.post(INFER, json=TEXT)
        assert (full.status_code, int(full.headers["retry-after"]) >= 1) == (429, True)
        async with client_of(running, OPERATOR) as operator:
            assert (await operator.post(INFER, json=SEEN)).status_code == 200
            assert (await operator.post("/v2/repository/models/tiny-text/load")).status_code == 200
    async with start(http=HTTP, clients=clients) as running, client_of(running, TOKEN) as app:
        assert (await app.post(INFER, json=SEEN)).status_code == 403
        assert (await app.post("/v2/repository/models/tiny-text/unload")).status_code == 403


async def test_pages_of_other_origins_are_refused_unless_named(start: Serve) -> None:
    """Whatever they send: a browser asks nobody before it sends a form."""
    named = "https://app.example.com"
    async with start(http=HTTP) as running, client_of(running) as page:
        refused = await page.post(INFER, json=TEXT, headers={"Origin": named})
        assert (refused.status_code, "--http-cors" in refused.text) == (403, True)
        assert "access-control-allow-origin" not in refused.headers
    async with start(http=HTTP, http_cors=f"{named}, https://other.example.com") as running, client_of(running) as page:
        good = await page.post(INFER, json=TEXT, headers={"Origin": named})
        assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, named)
        asks = {"Origin": named, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-mine"}
        asked = await page.options(INFER, headers=asks)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, named)
        assert (await page.post(INFER, json=TEXT, headers={"Origin": "https://evil.com"})).status_code == 403
    async with start(http=HTTP, http_cors="*") as running, client_of(running) as page:
        assert (await page.post(INFER, json=TEXT, headers={"Origin": "https://any.com"})).status_code == 200


async def test_tls_is_that_of_grpc_and_a_renewed_certificate_is_taken(start: Serve, tmp_path: Path) -> None:
    """Without a restart."""
    first, second = trustme.CA(), trustme.CA()
    pki = Pki(first, tmp_path)
    pki.issue()
    async with start(http=HTTP, **pki.settings) as running:
        for authority in (first, second):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            async with client_of(running, context=context) as client:
                assert (await client.get("/v2/health/live")).status_code == 200
            Pki(second, tmp_path).issue()
        with pytest.raises(httpx2.TransportError):
            await client_of(running).get("/v2/health/live")


async def test_a_handshake_that_does_not_come_ends_the_connection(
    start: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As headers do, before anything is known of who calls."""
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.1)
    pki = Pki(trustme.CA(), tmp_path)
    pki.issue()
    async with start(http=HTTP, **pki.settings) as running:
        raw = await Raw.dial(running.started.http_address)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(raw.reader.read(), 30) == b""
        await raw.close()


async def test_handshakes_that_do_not_come_keep_nobody_out(start: Serve, tmp_path: Path) -> None:
    """They count as connections do, and the oldest give way; connections that are open do not."""
    pki = Pki(trustme.CA(), tmp_path)
    pki.issue()
    context = ssl.create_default_context()
    pki.authority.configure_trust(context)
    async with start(http=HTTP, max_connections=3, **pki.settings) as running:
        address = running.started.http_address
        async with client_of(running, context=context) as client:
            assert (await client.get("/v2/health/live")).status_code == 200
            silent = [await Raw.dial(address) for _ in range(10)]
            for raw in silent[:-2]:
                assert await asyncio.wait_for(raw.reader.read(), 60) == b""
            async with client_of(running, context=context) as other, client_of(running, context=context) as third:
                for one in (other, client, third, other, client):
                    assert (await one.get("/v2/health/live")).status_code == 200
                for raw in silent:
                    assert await asyncio.wait_for(raw.reader.read(), 60) == b""
                beyond = await Raw.dial(address)
                assert await asyncio.wait_for(beyond.reader.read(), 60) == b""
                assert (await client.get("/v2/health/live")).status_code == 200
        for raw in (*silent, beyond):
            await raw.close()


async def test_a_stop_waits_for_no_handshake(start: Serve, tmp_path: Path) -> None:
    """Nor are those taken that come later."""
    pki = Pki(trustme.CA(), tmp_path)
    pki.issue()
    async with start(http=HTTP, **pki.settings) as running:
        raw = await Raw.dial(running.started.http_address)
        running.stop.set()
        assert await asyncio.wait_for(raw.reader.read(), 60) == b""
        await running.task
        with pytest.raises(ConnectionError):
            await Raw.dial(running.started.http_address)
        await raw.close()


async def test_who_calls_may_be_known_by_a_certificate(start: Serve, tmp_path: Path) -> None:
    """And who has none is not let in."""
    authority = trustme.CA()
    pki = Pki(authority, tmp_path)
    pki.issue()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "clients.toml").write_text('[clients.sensor]\ncertificate = "sensor.example"\n')
    known = {"tls_client_ca": tmp_path / "ca.pem", "clients": tmp_path / "clients.toml"}
    async with start(http=HTTP, **pki.settings, **known) as running:
        statuses = []
        for name in ("sensor.example", "stranger.example"):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            authority.issue_cert(name).configure_cert(context)
            async with client_of(running, context=context) as client:
                statuses.append((await client.post(INFER, json=TEXT)).status_code)
        assert statuses == [200, 401]
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with pytest.raises(httpx2.TransportError):
            await client_of(running, context=context).get("/v2/health/live")


async def test_beyond_loopback_it_needs_what_grpc_does(start: Serve) -> None:
    """TLS and authentication, or that the operator allows it; a taken port is named."""
    everywhere = "0.0.0.0:0"
    with pytest.raises(StartError, match=r"--http: 0\.0\.0\.0:0: can be reached from other machines; expected --tls"):
        async with start(http=everywhere):
            pass
    async with start(http=everywhere, allow_insecure=True) as running, client_of(running) as client:
        url = running.started.http_address.replace(everywhere[:-2], "127.0.0.1")
        unload = await client.post(f"http://{url}/v2/repository/models/tiny-text/unload")
        assert (unload.status_code, "management is off" in unload.text) == (403, True)
        with pytest.raises(StartError, match=r"--http: .*: cannot listen"):
            async with start(http=url):
                pass
