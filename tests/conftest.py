"""Leaves out what needs an extra that is not installed: a server installation has no torch and draws no pictures."""

import gc
import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes import TRANSPORTS, StartProcess, serving

# Before torch and numpy are imported: two workers' threads on two cores would spend most of their time waiting for each
# other, spinning. Nothing that is tested is large enough to gain by a second one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says nothing about whether it is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_NEEDS = {
    "export": "torch",
    "model": "torch",
    "training": "torch",
    "bench/test_faithfulness.py": "torch",
    "bench/test_families.py": "torch",
    "bench/test_relevance.py": "torch",
    "bench/test_whisper_folder.py": "torch",
    "client/test_attending.py": "matplotlib",
    "client/test_bulk_commands.py": "typer",
    "client/test_cli.py": "matplotlib",
    "client/test_compare.py": "matplotlib",
    "client/test_explained_tokens.py": "matplotlib",
    "client/test_generate_command.py": "matplotlib",
    "client/test_growing.py": "rich",
    "client/test_lettering.py": "matplotlib",
    "client/test_matches.py": "matplotlib",
    "client/test_orientation.py": "matplotlib",
    "client/test_pictures.py": "matplotlib",
    "client/test_pictures_pages.py": "matplotlib",
    "client/test_pictures_relevance.py": "matplotlib",
    "client/test_pictures_texts.py": "matplotlib",
    "client/test_scales.py": "matplotlib",
    "client/test_start.py": "typer",
    "client/test_terminal.py": "rich",
    "client/test_towers.py": "matplotlib",
    "client/test_why.py": "typer",
    "client/test_windows.py": "matplotlib",
    "docs/test_reference.py": "typer",
    "e2e/test_notebook.py": "nbclient",
    "examples/test_demo.py": "matplotlib",
    "examples/test_late.py": "torch",
    "explorer": "starlette",
    "server/api/rest": "uvicorn",
    "server/transport/gateway": "uvicorn",
}
# What make test-fast leaves out: fuzzing, attacks, reloads under load, pictures, and what starts many servers.
_SLOW = (
    *(
        "client/test_attending",
        "client/test_pictures",
        "client/test_refusals",
        "client/test_photos",
        "deploy/test_balancing",
        "deploy/test_release",
    ),
    *("server/api/open_inference/test_fuzz", "server/api/open_inference/test_infer"),
    *("server/api/open_inference/test_reload", "server/api/open_inference/test_tritonclient"),
    *("server/engine/test_prepacked_weights", "server/scheduling/test_accounting", "server/transport"),
    *("server/api/open_inference/test_models", "server/api/open_inference/test_shared_memory"),
    *("deploy/test_pins", "e2e/test_notebook", "model/test_checkpoint"),
    *("deploy/test_files", "server/repository/test_start", "server/telemetry/test_tracing", "server/test_app"),
)
collect_ignore = [path for path, package in _NEEDS.items() if find_spec(package) is None]


def pytest_report_header() -> list[str]:
    """Say what is left out, so that nobody takes silence for success."""
    return [f"{_NEEDS[path]} is not installed: tests/{path} is left out" for path in collect_ignore]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).as_posix().startswith(_SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Do not look for garbage among what was imported, half a million objects, which takes half a second each time.

    Nor so often: torch's exporter makes objects by the million, and a twelfth of its time went into looking.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture
def start_process() -> StartProcess:
    """Start a server process; it is killed if the test leaves it running."""
    return serving


@pytest.fixture(params=TRANSPORTS)
def start_each(request: pytest.FixtureRequest) -> StartProcess:
    """Start a server process that each transport carries calls to."""
    return partial(serving, "--transport", request.param)
