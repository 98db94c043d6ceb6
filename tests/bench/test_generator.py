"""What h2load prints is read."""

import pytest

from bench.generator import _missing

PRINTED = """finished in 1.00s, 100.00 req/s, 9.00KB/s
requests: 132 total, 132 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 100 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 19.53KB (20000) total, 4.39KB (4500) headers (space savings 90.00%), 6.25KB (6400) data
"""


@pytest.mark.parametrize(("answer_bytes", "missing"), [(64, 0), (65, 2), (128, 50)])
def test_answers_without_content_are_missed(answer_bytes: int, missing: int) -> None:
    """By the content alone: errors of gRPC have headers, too."""
    assert _missing(PRINTED, answer_bytes) == missing
