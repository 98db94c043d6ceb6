"""What is said of a request by its headers alone: whether a page may ask, which body comes, and by when to answer."""

import ipaddress
from urllib.parse import urlsplit

from server.address import is_loopback
from server.api.rest.exchange import Headers
from server.config import Config
from server.errors import InvalidInput, MalformedMessage, PermissionDenied
from server.transport.wire import seconds_of

_TIMEOUTS_MS = ("x-request-timeout-ms", "connect-timeout-ms")
_MAX_DIGITS = 10  # of milliseconds, as Connect has it


class Admission:
    """Refuses requests by their headers, before who calls is looked at."""

    def __init__(self, config: Config) -> None:
        """Take the settings.

        A page can have its own name lead to this machine (DNS rebinding): then a browser takes it for one of the
        server's own, and sends no Origin with GET. Where nobody is asked for a token, its name gives it away.
        """
        self._origins = origins_of(config)
        self._is_open = "*" in self._origins
        assert config.http is not None  # noqa: S101 -- or there is no gateway
        names = {urlsplit(origin).hostname for origin in self._origins} | {"localhost"}
        self._hosts = names if is_loopback(config.http) and not config.clients else None

    def check(self, headers: Headers) -> float | None:
        """Look at a request's headers; returns in how many seconds the answer is wanted, None where nobody says.

        Raises:
            PermissionDenied: A page asks that may not.
            MalformedMessage: The body's length is given in two ways.
            InvalidInput: The time is no number of milliseconds.
        """
        self._check_page(headers)
        if "transfer-encoding" in headers and "content-length" in headers:  # which a proxy may read otherwise
            raise MalformedMessage("content-length: given beside transfer-encoding; expected one of both")
        return _read_timeout(headers)

    def _check_page(self, headers: Headers) -> None:
        if self._is_open:
            return
        origin, host = headers.get("origin"), str(headers.get("host", ""))
        if origin is not None and origin not in self._origins:
            what = f"origin: {str(origin)[:100]!r} is not named by --http-cors"
            raise PermissionDenied(f"{what}; expected one that is, or a caller that is no page")
        if self._hosts is not None and host and not _is_own(host, self._hosts):
            what = f"host: {host[:100]!r} is no name of this server; expected localhost, an IP address"
            raise PermissionDenied(f"{what}, or the host of an origin that --http-cors names")


def origins_of(config: Config) -> list[str]:
    """List the origins whose pages may ask."""
    return [origin.strip() for origin in config.http_cors.split(",") if origin.strip()]


def _is_own(host: str, names: "set[str | None]") -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in names or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _read_timeout(headers: Headers) -> float | None:
    for name in _TIMEOUTS_MS:
        if (said := headers.get(name)) is not None:
            text = str(said)
            if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
                raise InvalidInput(name, said, f"whole milliseconds, at most {_MAX_DIGITS} digits")
            return int(text) / 1e3
    timeout = headers.get("grpc-timeout")
    return None if timeout is None else seconds_of(str(timeout))
