"""Descriptors: as many as connections need, or a line that says what is missing."""

import asyncio
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from server.telemetry import descriptors
from server.telemetry.descriptors import watch_descriptors
from tests.processes import ROOT, environment

RAISING = """
import logging, resource, sys
from server.telemetry.descriptors import raise_limit
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
raise_limit(400)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("hard", "raised", "said"),
    [
        (4096, "528", ""),
        (
            64,
            "64",
            "descriptors: at most 64 (ulimit -n); 400 connections (--max-connections) need 528: further ones will",
        ),
    ],
)
def test_the_limit_is_raised_as_far_as_the_system_lets(hard: int, raised: str, said: str) -> None:
    """With a line where that is not enough."""
    command = [sys.executable, "-c", RAISING, str(hard)]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == raised
    assert ran.stderr.startswith(said)
    assert bool(ran.stderr) == bool(said)


def highest_descriptor() -> int:
    """Of this process."""
    return max(int(path.name) for path in Path("/proc/self/fd").iterdir())


async def test_descriptors_that_are_used_up_are_counted_and_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is said while there are some."""
    monkeypatch.setattr(descriptors, "_LOOK_SECONDS", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    missed, seen = asyncio.Event(), list[None]()

    def count() -> None:
        seen.append(None)
        if len(seen) == 61:
            missed.set()

    with caplog.at_level(logging.ERROR):
        watching = asyncio.create_task(watch_descriptors(count))
        await asyncio.sleep(0)
        assert not seen
        fill = [os.dup(2) for _ in range(highest_descriptor())]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fill) + 1, hard))
        try:
            await asyncio.wait_for(missed.wait(), 30)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in fill:
                os.close(one)
        watching.cancel()
    lines = [record for record in caplog.records if "none is left" in record.message]
    assert len(lines) == 2
