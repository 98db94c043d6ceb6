"""Which paths there are: an ASGI application that has each request answered by its own."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from server.api.rest.exchange import HttpAnswer, Route
from server.api.rest.fields import write_json
from server.api.rest.openapi import PATH, describe
from server.transport.gateway.body import Body, Receive
from server.transport.gateway.exchange import Exchange, Scope, Send

Answer = Callable[[Route, Scope, Receive, Send], Awaitable[None]]


def make_router(routes: Iterable[Route], origins: Sequence[str], answer: Answer) -> Any:
    """Make the application.

    Args:
        routes: What is asked by which path.
        origins: Whose pages may ask; browsers are told so.
        answer: Answers a request.
    """
    routes = list(routes)
    page = HttpAnswer(describe(routes))

    async def answer_page(scope: Scope, receive: Receive, send: Send) -> None:
        """Describe the paths, to everybody: they are no secret."""
        await Exchange(scope, Body(receive, {}), receive, send).send(page)

    found = [StarletteRoute(route.path, _Endpoint(partial(answer, route)), methods=[route.verb]) for route in routes]
    unknown: Any = _answer_unknown
    router = Router(
        [StarletteRoute(PATH, _Endpoint(answer_page), methods=["GET"]), *found], redirect_slashes=False, default=unknown
    )
    if not origins:
        return router
    return CORSMiddleware(
        router,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
    )


class _Endpoint:
    """An ASGI application for Starlette, which calls functions otherwise."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)


async def _answer_unknown(scope: Scope, receive: Receive, send: Send) -> None:
    """Say that there is nothing by this path."""
    path = str(scope["path"])[:100]
    answer = write_json({"error": f"path: {path!r} is not known; expected one of {PATH}"}, 404)
    await Exchange(scope, Body(receive, {}), receive, send).send(answer)
