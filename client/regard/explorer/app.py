"""The explorer's web application: the page, and what it asks of a regard server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from regard.aio import AsyncClient
from regard.channels import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT_SECONDS
from regard.errors import RegardError
from regard.explorer import writing
from regard.explorer.comparing import compare
from regard.explorer.explaining import explain
from regard.explorer.guard import Guard
from regard.explorer.photos import MAX_BYTES, PhotoStore, media_type, orientation
from regard.explorer.problems import Problem, from_problem, from_server, invalid, photo_gone
from regard.explorer.requests import ask, read_request
from regard.explorer.responses import MEDIA_TYPE, describe_models, encode
from regard.identity import Identity
from regard.sources import is_image

STATIC = Path(__file__).parent / "static"
_MODELS_TIMEOUT_SECONDS = 5.0
_RECONNECT = [("grpc.max_reconnect_backoff_ms", 2000)]
"""A server that is back is found when the page asks again; gRPC by itself waits up to two minutes between attempts."""
_CLOSED = 499  # as web servers log a caller who hung up; nobody reads it
_AROUND_BYTES = 2**16
_NOT_KEPT = {"cache-control": "no-store"}
_MAX_REQUEST_BYTES = 4 * 2**20
"""Sixteen times the longest text that a server takes by default."""


@dataclass(frozen=True)
class Settings:
    """What the application needs to know.

    Attributes:
        server: HOST:PORT of the regard server.
        timeout_seconds: For each call to it.
        max_photo_bytes: The largest photo taken; what a client sends at most, less what travels around it.
        host_names: Names under which the page is reached, beside localhost and IP addresses.
        identity: What the page connects to the server with, whoever opens it.
    """

    server: str
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_photo_bytes: int = min(DEFAULT_MAX_MESSAGE_BYTES, MAX_BYTES) - _AROUND_BYTES
    host_names: frozenset[str] = frozenset()
    identity: Identity = field(default_factory=Identity)


def make_app(settings: Settings, photos: PhotoStore | None = None) -> ASGIApp:
    """Build the application, with photos that it has; it connects to the regard server when it is first asked."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        credentials, token = settings.identity.credentials, settings.identity.token
        async with AsyncClient(
            settings.server,
            timeout=settings.timeout_seconds,
            credentials=credentials,
            token=token,
            options=_RECONNECT,
        ) as client:
            app.state.client = client
            yield

    app = Starlette(
        routes=[
            Route("/", _page),
            Route("/api/models", _models),
            Route("/api/photos", _keep_photo, methods=["POST"]),
            Route("/api/photos/{name}", _photo),
            Route("/api/attend", _attend, methods=["POST"]),
            Route("/api/compare", _compare, methods=["POST"]),
            Route("/api/explain", _explain, methods=["POST"]),
            Route("/api/write", _write, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={Problem: from_problem, RegardError: from_server, ClientDisconnect: _nobody_waits},
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.photos = photos or PhotoStore()
    return Guard(app, settings.host_names)


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _models(request: Request) -> Response:
    state = request.app.state
    limits = {"photo_bytes": state.settings.max_photo_bytes, "request_bytes": _MAX_REQUEST_BYTES}
    patience = min(_MODELS_TIMEOUT_SECONDS, state.settings.timeout_seconds)
    served = await _unless_gone(request, state.client.models(timeout=patience))
    models = [described for model in served for described in describe_models(model)]
    return JSONResponse({"server": state.settings.server, "limits": limits, "models": models})


async def _keep_photo(request: Request) -> Response:
    data = await _body(request, request.app.state.settings.max_photo_bytes)
    if not is_image(data):
        raise invalid("photo", f"{len(data)} bytes", "a JPEG, PNG or WebP file")
    name = await asyncio.to_thread(request.app.state.photos.put, data)
    turned = await asyncio.to_thread(orientation, data)
    return JSONResponse({"photo": name, "orientation": turned, "type": media_type(data)}, 201)


async def _photo(request: Request) -> Response:
    data = request.app.state.photos.get(request.path_params["name"])
    if data is None:
        raise photo_gone()
    turned = await asyncio.to_thread(orientation, data)
    return Response(data, media_type=media_type(data), headers={"orientation": str(turned)})


async def _attend(request: Request) -> Response:
    state = request.app.state
    asked = read_request(await _json(request), state.photos)
    response = await _unless_gone(request, ask(state.client, asked))
    return Response(encode(response), media_type=MEDIA_TYPE, headers=_NOT_KEPT)


async def _compare(request: Request) -> Response:
    state = request.app.state
    body = await _json(request)
    return JSONResponse(await _unless_gone(request, compare(state.client, body, state.photos)), headers=_NOT_KEPT)


async def _explain(request: Request) -> Response:
    state = request.app.state
    body = await _json(request)
    return JSONResponse(await _unless_gone(request, explain(state.client, body, state.photos)), headers=_NOT_KEPT)


async def _write(request: Request) -> Response:
    """Hand on tokens as they come, until the page hangs up."""
    state = request.app.state
    tokens = writing.write(state.client, await _json(request))
    lines = writing.lines(tokens, state.settings.server)
    first = await _unless_gone(request, anext(lines))
    return StreamingResponse(_from(request, first, lines), media_type=writing.MEDIA_TYPE, headers=_NOT_KEPT)


async def _from(request: Request, first: bytes, others: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """Hand on lines, and close them at the end; a page that hangs up between two is seen before the next has come."""
    async with aclosing(others):
        yield first
        with suppress(ClientDisconnect):
            while (line := await _unless_gone(request, anext(others, None))) is not None:
                yield line


async def _nobody_waits(_: Request, __: Exception) -> Response:
    return Response(status_code=_CLOSED)


async def _json(request: Request) -> bytes:
    """Read a body that is said to be JSON, which no form of another page could send without asking."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise Problem(415, "INVALID_ARGUMENT", f"content-type: {kind!r:.200}; expected application/json")
    return await _body(request, _MAX_REQUEST_BYTES)


async def _body(request: Request, max_bytes: int) -> bytes:
    """Read a body, and refuse one that is too large before it is read whole."""
    too_large = Problem(413, "RESOURCE_EXHAUSTED", f"body: more than {max_bytes} bytes; expected at most these")
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """Await a call to the server, and cancel it when the page hangs up: nobody would read the answer.

    Raises:
        ClientDisconnect: The page hung up.
    """
    call = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait([call, gone], return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            raise ClientDisconnect
        return call.result()
    finally:
        call.cancel()
        gone.cancel()
        await asyncio.gather(call, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
