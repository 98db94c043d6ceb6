"""A loop that stands is seen from outside; one that is only slow, or was paused with the process, is not killed."""

import asyncio
import threading
import urllib.error
import urllib.request

import pytest

from server.telemetry import heartbeat
from server.telemetry.heartbeat import Heartbeat
from tests.faults.callers import wait_until
from tests.server.asking import get, samples
from tests.server.conftest import Serve


def status(address: str, path: str) -> int:
    """What a page answers with."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_a_loop_that_stands_is_told_by_healthz_and_by_a_metric(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 while it stands; alive again when it goes on."""
    monkeypatch.setattr(heartbeat, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.01)
    async with start() as running:
        address = running.started.metrics_address
        assert await get(running, "/healthz") == (200, "alive\n")
        asking = threading.Thread(target=wait_until, args=(lambda: status(address, "/healthz") == 503,))
        asking.start()
        asking.join()  # in the loop, which stands meanwhile
        await asyncio.to_thread(wait_until, lambda: status(address, "/healthz") == 200)
        found = await samples(running)
    late = found[("regard_event_loop_lag_seconds_count",)] - found[("regard_event_loop_lag_seconds_bucket", "0.1")]
    assert late >= 1


async def test_looks_are_counted_and_no_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine looks without a beat are load; after a pause of any length there has been one."""
    monkeypatch.setattr(heartbeat, "_LOOK_SECONDS", 3600)
    beaten = asyncio.get_running_loop().create_future()
    watched = Heartbeat(beaten.set_result)
    watched._missed = 9
    assert watched.is_alive
    watched._missed = 10
    assert not watched.is_alive
    beating = asyncio.create_task(watched.beat())
    assert 0 <= await beaten < 10
    assert watched.is_alive
    beating.cancel()
    watched.close()
