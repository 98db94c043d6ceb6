"""How much of the server one model takes at a time, against its own limits."""

from collections.abc import Callable

from server.errors import TooBusy
from server.repository.settings import ModelSettings

_RETRY_SECONDS = 0.1


class Usage:
    """Requests for a model, all its versions together; lives in the event loop."""

    def __init__(self, settings: ModelSettings, when_idle: Callable[[], None] = lambda: None) -> None:
        """Count from nothing.

        Args:
            settings: The limits; may be replaced.
            when_idle: Called when the last request has left.
        """
        self.settings = settings
        self._when_idle = when_idle
        self.requests = 0
        self._input_bytes = 0

    def enter(self) -> None:
        """Count one request until `leave`.

        Raises:
            TooBusy: There are as many as the model's max_requests.
        """
        most = self.settings.max_requests
        if most is not None and self.requests >= most:
            raise TooBusy(
                f"the model is full: {most} requests (its max_requests); retry later", _RETRY_SECONDS, "model"
            )
        self.requests += 1

    def leave(self) -> None:
        """Count it no more."""
        self.requests -= 1
        if not self.requests:
            self._when_idle()

    def hold(self, size_bytes: int) -> None:
        """Count a request's inputs until `release`; one request alone may always be as large as it is.

        Raises:
            TooBusy: With others they are more than the model's max_input_bytes.
        """
        most = self.settings.max_input_bytes
        if most is not None and self._input_bytes and self._input_bytes + size_bytes > most:
            held = f"{self._input_bytes + size_bytes} bytes of inputs"
            raise TooBusy(f"the model is full: {held} (its max_input_bytes); retry later", _RETRY_SECONDS, "model")
        self._input_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Count them no more."""
        self._input_bytes -= size_bytes
