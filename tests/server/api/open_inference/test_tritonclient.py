"""NVIDIA's own client against a server, in a process of its own: its stubs and the server's cannot share one."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.server.api.programs import run_cases
from tests.server.conftest import Running

CASES = Path(__file__).with_name("triton_cases.py")


@pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed")
async def test_tritonclient_works_unchanged(running: Running) -> None:
    """Every case of triton_cases.py."""
    await run_cases(CASES, running.started.address, 120)
