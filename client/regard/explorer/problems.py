"""What goes wrong, as JSON that the page shows: code, message, and when to try again."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from regard.errors import RegardError

# The closest HTTP status of each gRPC status; any other is 502, a fault of the server behind.
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Problem(Exception):
    """A request that the explorer itself refuses.

    Attributes:
        status: HTTP's.
        code: One of gRPC's names, or PHOTO_GONE, which the page knows how to mend.
        message: Names the field, its value and what was expected.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def invalid(field: str, value: object, expected: str) -> Problem:
    """Return the refusal of one field."""
    return Problem(400, "INVALID_ARGUMENT", f"{field}: {value!r:.200}; expected {expected}")


def photo_gone() -> Problem:
    """Return the refusal of a photo that is not kept."""
    return Problem(410, "PHOTO_GONE", "the explorer no longer holds this photo: it keeps the last ones while it runs")


def refuse(status: int, code: str, message: str, **more: object) -> JSONResponse:
    """Return the answer to a request that failed."""
    return JSONResponse({"code": code, "message": message, **more}, status)


async def from_problem(_: Request, error: Exception) -> Response:
    """Answer with the explorer's own refusal."""
    assert isinstance(error, Problem)  # noqa: S101 -- Starlette calls this for nothing else
    return refuse(error.status, error.code, error.message)


async def from_server(request: Request, error: Exception) -> Response:
    """Answer with what the regard server said."""
    assert isinstance(error, RegardError)  # noqa: S101 -- Starlette calls this for nothing else
    said = said_by(error, request.app.state.settings.server)
    return JSONResponse(said, _HTTP.get(error.code.name, 502))


def said_by(error: RegardError, server: str) -> dict[str, object]:
    """Return what the regard server at this address said, for JSON."""
    return {
        "code": error.code.name,
        "message": error.message,
        "retry_seconds": error.retry_seconds,
        "server": server,
    }
