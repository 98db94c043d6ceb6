"""The example notebook, run in a kernel against a real server."""

import base64
import io
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from tests.processes import ROOT, StartProcess, environment

NOTEBOOK = ROOT / "examples" / "attention.ipynb"
_CELL_SECONDS = 120
# ipykernel 7 warns of a method of its own while it shuts down.
_WARNINGS = "error,ignore::PendingDeprecationWarning"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with a network for images and one for texts."""
    shutil.copytree(ROOT / "server" / "embedded" / "fashion", tmp_path / "models" / "fashion")
    shutil.copytree(ROOT / "tests" / "golden" / "models" / "tiny-text", tmp_path / "models" / "tiny-text")
    return tmp_path / "models"


def test_the_notebook_runs_and_draws_a_picture_for_each_of_its_views(
    start_process: StartProcess, models: Path, tmp_path: Path
) -> None:
    """Heads, queries, two side by side, matrices, arcs, a chart; a warning would be an error."""
    with start_process("--models", str(models)) as server:
        ran = _run(server.address, sockets=tmp_path / "kernel")
    outputs = [output for cell in ran.cells for output in cell.get("outputs", [])]
    said = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert [line.split()[0] for line in said.splitlines()] == ["tiny-text", "fashion"]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 6
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert len(image.convert("RGB").getcolors(image.width * image.height) or ()) > 20


def test_the_notebook_is_stored_without_outputs() -> None:
    """So that a change of a picture is no change of the file."""
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in _read().cells)


def _read() -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(NOTEBOOK.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def _run(address: str, sockets: Path) -> NotebookNode:
    """Run every cell in the notebook's own folder; the kernel takes no port."""
    client = NotebookClient(
        _read(),
        timeout=_CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        config=Config({"KernelManager": {"transport": "ipc", "ip": str(sockets)}}),
    )
    return client.execute(env=environment() | {"REGARD_SERVER": address, "PYTHONWARNINGS": _WARNINGS})
