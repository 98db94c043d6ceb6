"""What is small is done at once, what is large in a thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.inference.workers import Workers


@pytest.mark.parametrize(
    ("job", "size_bytes", "here"),
    [
        ("decode", 4096, True),
        ("decode", 4097, False),
        ("decode", float("inf"), False),
        ("encode", 65536, True),
        ("encode", 65537, False),
    ],
)
async def test_a_job_goes_where_its_size_sends_it(job: str, size_bytes: float, here: bool) -> None:
    """Reading up to 4 KiB and writing up to 64 KiB stay on the event loop."""
    with ThreadPoolExecutor(1) as executor:
        ran = await getattr(Workers(executor), job)(threading.current_thread, size_bytes)
    assert (ran is threading.current_thread()) == here
