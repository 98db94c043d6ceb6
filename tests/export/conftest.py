"""What the exporter's tests share."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

from export.graph import trace
from export.sources import Source, load_folder
from tests.export.forks import forking, start
from tests.export.traces import Traces
from tests.golden import GOLDEN_NETWORK


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Trace each network once, whichever worker needs it."""
    base = tmp_path_factory.getbasetemp()
    shared = Traces((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traces", trace)
    with pytest.MonkeyPatch.context() as patch:
        # torch makes its table of ONNX operators for each network anew, which takes half a second.
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        patch.setattr("export.graph.trace", shared)
        patch.setattr("export.step.trace", shared)
        yield shared


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """Fork the processes in which graphs are run as they are served, and loaded by a server."""
    start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.served.subprocess", forking())
        yield


@pytest.fixture
def traced_anew(traces: Traces) -> Iterator[None]:
    """Trace each network as often as it is exported."""
    traces.anew = True
    yield
    traces.anew = False


@pytest.fixture
def source() -> Source:
    """The golden text network."""
    return load_folder(GOLDEN_NETWORK, name="tiny-text")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold less attention than an export does, so that half a minute of sound is not tried by every test of it."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", 2**22)
    monkeypatch.setattr("export.longest.free_bytes", lambda: 2**29)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A models folder."""
    return tmp_path / "models"
