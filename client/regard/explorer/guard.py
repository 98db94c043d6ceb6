"""Keeps other web pages from using this one: checks where each request comes from.

The explorer asks nobody for a password. So it answers only under names that are its own (another page may point a
name of its own to 127.0.0.1, "DNS rebinding"), and only to its own page.
"""

from collections.abc import Set
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regard.explorer.problems import refuse

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """An ASGI application around another: refuses requests of other pages, and adds HEADERS to every answer.

    Args:
        app: What is guarded.
        host_names: Names under which the page is reached, beside localhost and any IP address (which no other page
            can make its own).
    """

    def __init__(self, app: ASGIApp, host_names: frozenset[str]) -> None:
        self._app = app
        self._host_names = {name.lower() for name in host_names} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reason = refusal(Headers(scope=scope), scope["method"], self._host_names)
        app = self._app if reason is None else refuse(403, "PERMISSION_DENIED", reason)
        await app(scope, receive, _with_headers(send))


def refusal(headers: Headers, method: str, host_names: Set[str]) -> str | None:
    """Say why a request comes from elsewhere than the explorer's own page, or None where it does not."""
    host = headers.get("host", "")
    if not _is_own(host, host_names):
        return f"the page was asked for as {host!r}; expected an IP address, localhost, or a name given by --host-name"
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return f"the request comes from {origin!r}; expected the explorer's own page"
    site = headers.get("sec-fetch-site", "none")
    follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("same-origin", "none") and not follows_link:
        return f"the request comes from a page that is {site}; expected the explorer's own page"
    return None


def _is_own(host: str, host_names: Set[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in host_names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _with_headers(send: Send) -> Send:
    async def send_more(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            headers.setdefault("cache-control", "no-cache")  # pages of another version would not fit together
        await send(message)

    return send_more
