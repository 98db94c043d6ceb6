"""Everything here starts clusters of Ray: left out unless asked for, and where Ray is not installed."""

from pathlib import Path

import pytest

from tests.ray.cluster import MISSING


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark it, and say what is missing."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.scale)
            if MISSING:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(MISSING)}"))
