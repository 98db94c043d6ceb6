"""Leaves this folder out, with the reason, where torch is not installed: a server needs none."""

from importlib.util import find_spec

import pytest

if find_spec("torch") is None:

    def pytest_collect_file() -> None:
        """Skip the folder before its modules import torch."""
        pytest.skip("torch is not installed (the extra `export` brings it)")
