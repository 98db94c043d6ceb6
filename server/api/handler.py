"""What every call goes through, whichever protocol: counted, refused where the server is full, its errors told."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc

from server.auth.clients import Access, current
from server.errors import InternalFault, ServerError, ShuttingDown, TooBusy
from server.telemetry.logs import REQUEST_ID, Record, begin, end, record
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing, set_outcome

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response")


class Calls:
    """The calls in flight; lives in the event loop."""

    def __init__(
        self,
        most: int,
        metrics: Metrics,
        label: Callable[[str], str],
        suggest_retry: Callable[[], float],
        access: Access,
        tracing: Tracing,
    ) -> None:
        """Count from nothing.

        Args:
            most: How many calls may be in the server, waiting ones and those being decoded.
            metrics: Where they are counted.
            label: Turns what a caller named into a model's name, or nothing: what callers invent is no label.
            suggest_retry: In how many seconds one that was refused has a chance.
            access: Who may call.
            tracing: Where they are traced.
        """
        self._access = access
        self._tracing = tracing
        self._most = most
        self._metrics = metrics
        self._label = label
        self._suggest_retry = suggest_retry
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: float(self._in_flight))
        self._idle = asyncio.Event()
        self._idle.set()
        self.refusing = False

    def refuse(self) -> None:
        """Answer every call that comes from now on UNAVAILABLE."""
        self.refusing = True

    async def wait_idle(self) -> None:
        """Wait until no call is in flight."""
        await self._idle.wait()

    async def answer(
        self, method: str, model: str, context: Context, handle: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Run a call; what it raises ends it with a code and a message."""
        try:
            answer = await self.run(method, model, context, handle)
            if (own := record.get()) and own.given:
                context.set_trailing_metadata(((REQUEST_ID, own.id),))
            return answer
        except ServerError as raised:
            error = raised.with_traceback(None)  # whose frames hold the request, and this error
        own = record.get()
        trailers = ((REQUEST_ID, own.id),) if own else ()
        await context.abort(error.code, str(error), (*error.trailers, *trailers))
        raise AssertionError("abort always raises")

    async def run(
        self, method: str, model: str, context: Context, handle: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Count a call, and see who makes it.

        Args:
            method: The RPC's name.
            model: As the caller named it.
            context: Says who calls.
            handle: Does the work.

        Raises:
            ServerError: As it came, or InternalFault for anything else.
        """
        metadata = dict(context.invocation_metadata() or ())
        own, code, message = begin(method, model, metadata), grpc.StatusCode.OK, ""
        self._metrics.received.labels(method).inc()
        self._in_flight += 1
        self._idle.clear()
        with self._tracing.request(method, metadata) as span:
            try:
                self._admit(own, metadata, context)
                return await handle()
            except ServerError as error:
                code, message = error.code, str(error)
                if isinstance(error, TooBusy):
                    self._metrics.refused.labels(error.reason).inc()
                raise
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as error:
                _log.exception("%s failed, request %s", method, own.id)
                code = InternalFault.code
                raise InternalFault from error
            finally:
                seconds = (time.perf_counter_ns() - own.started_ns) / 1e9
                self._metrics.observe_end(method, self._label(model), code.name, own.client, seconds)
                end(own, code.name, message)
                set_outcome(span, code.name, own.client)
                self._in_flight -= 1
                if not self._in_flight:
                    self._idle.set()

    def _admit(self, own: Record, metadata: Mapping[str, str | bytes], context: Context) -> None:
        """Refuse at the door; requests that are being decoded count as waiting, since they hold memory too."""
        client = self._access.identify(metadata, certificate_names(context))
        own.client = client.name
        self._access.check(client, own.method)
        if self.refusing:
            raise ShuttingDown("the server is stopping")
        if self._in_flight > self._most:
            message = f"the server is full: {self._most} requests are in it (--max-queue-size); retry later"
            raise TooBusy(message, self._suggest_retry(), "requests")
        client.quota.admit()
        current.set(client)


def certificate_names(context: Context) -> list[str]:
    """Names on the caller's certificate; TLS has checked that its authority is known."""
    peer = context.auth_context() or {}
    kinds = ("x509_common_name", "x509_subject_alternative_name")
    return [name.decode(errors="replace") for kind in kinds for name in peer.get(kind, ())]
