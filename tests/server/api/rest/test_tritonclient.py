"""NVIDIA's own client for HTTP against a server, unchanged."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.server.api.programs import run_cases
from tests.server.conftest import Running

CASES = Path(__file__).with_name("triton_cases.py")


@pytest.mark.skipif(find_spec("geventhttpclient") is None, reason="tritonclient[http] is not installed")
async def test_tritonclient_works_unchanged(running: Running) -> None:
    """Every case of triton_cases.py."""
    await run_cases(CASES, running.started.http_address, 240)
