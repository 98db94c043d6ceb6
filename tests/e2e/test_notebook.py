"""The example notebooks, each run in a kernel against a real server, as a user would."""

import base64
import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image
from traitlets.config import Config

from tests.processes import ROOT, StartProcess, environment

EXAMPLES = ROOT / "examples"
SHORT = EXAMPLES / "notebooks"
NOTEBOOKS = [EXAMPLES / "attention.ipynb", *sorted(SHORT.glob("*.ipynb"))]
EMBEDDED = ROOT / "server" / "embedded"
TEXT = ROOT / "tests" / "golden" / "models" / "tiny-text"
_CELL_SECONDS = 120
# ipykernel 7 warns of a method of its own while it shuts down.
_WARNINGS = "error,ignore::PendingDeprecationWarning"
_OWN = ("REGARD_TEXT_MODEL", "REGARD_IMAGE_MODEL", "REGARD_IMAGE", "REGARD_PHOTOS", "REGARD_CORPUS", "REGARD_TEXT")
Run = Callable[..., "Ran"]


class Ran:
    """What a notebook has shown.

    Attributes:
        said: Its printed lines.
        pictures: In PNG.
        pages: In HTML.
        shown: The plain text of what cells end with.
    """

    def __init__(self, notebook: NotebookNode) -> None:
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        found = [output["data"] for output in outputs if "data" in output]
        streams = [output for output in outputs if output["output_type"] == "stream"]
        assert {output["name"] for output in streams} <= {"stdout"}
        self.said = "".join(output["text"] for output in streams).splitlines()
        self.pictures = [base64.b64decode(data["image/png"]) for data in found if "image/png" in data]
        self.pages: list[str] = [data["text/html"] for data in found if "text/html" in data]
        self.shown: list[str] = [data["text/plain"] for data in found if "image/png" not in data]


@pytest.fixture
def run(start_process: StartProcess, tmp_path: Path) -> Run:
    """Run every cell in the notebook's own folder; the kernel takes no port, and a warning is an error."""

    def run(path: Path, *models: Path, variables: Mapping[str, str] | None = None) -> Ran:
        for model in models:
            shutil.copytree(model, tmp_path / "models" / model.name)
        client = NotebookClient(
            _read(path),
            timeout=_CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            config=Config({"KernelManager": {"transport": "ipc", "ip": str(tmp_path / "kernel")}}),
        )
        others = {name: value for name, value in environment().items() if name not in _OWN}
        with start_process(*(("--models", str(tmp_path / "models")) if models else ())) as server:
            own = {"REGARD_SERVER": server.address, "PYTHONWARNINGS": _WARNINGS, **(variables or {})}
            ran = Ran(client.execute(env=others | own))
        for picture in ran.pictures:
            with Image.open(io.BytesIO(picture)) as image:
                assert len(image.convert("RGB").getcolors(image.width * image.height) or ()) > 20
        return ran

    return run


def test_every_view_is_drawn(run: Run) -> None:
    """Heads, queries, two side by side, matrices, arcs, a chart."""
    ran = run(EXAMPLES / "attention.ipynb", EMBEDDED / "fashion", TEXT)
    assert [line.split()[0] for line in ran.said] == ["tiny-text", "fashion"]
    assert len(ran.pictures) == 6


def test_quickstart(run: Run) -> None:
    """On what `regard serve` brings: an answer, its maps to point at, a figure."""
    ran = run(SHORT / "quickstart.ipynb")
    assert ran.said[:2] == [
        "fashion: takes images, attention of 4 layers",
        "g2p: takes texts, attention of 3 layers",
    ]
    assert ran.said[2].endswith("a row sums to 1.0")
    assert ran.shown[0].startswith("Classification(fashion 1: Sandal")
    assert (len(ran.pages), ran.pages[0].count(" title="), len(ran.pictures)) == (1, 49, 1)


def test_previous_token_heads(run: Run) -> None:
    """The strongest is far from chance."""
    ran = run(SHORT / "previous_token_heads.ipynb")
    assert ran.said[0] == "g2p 8 texts"
    chance, best = (float(line.rsplit(maxsplit=1)[-1]) for line in ran.said[1:])
    assert best > 2 * chance
    assert len(ran.pictures) == 2


def test_another_corpus_is_read(run: Run, tmp_path: Path) -> None:
    """A text a line, of which one is empty, which is told."""
    (tmp_path / "lines.txt").write_text("the cat sat\n\na dog ran on the mat\n")
    given = {"REGARD_CORPUS": str(tmp_path / "lines.txt"), "REGARD_TEXT_MODEL": "tiny-text"}
    ran = run(SHORT / "previous_token_heads.ipynb", TEXT, variables=given)
    assert ran.said[0] == "tiny-text 3 texts"
    assert ran.said[1].startswith("INVALID_ARGUMENT: ")
    assert len(ran.pictures) == 2


def test_two_models_are_compared(run: Run) -> None:
    """Those that read the same tokens."""
    ran = run(
        SHORT / "compare_two_models.ipynb", TEXT, ROOT / "tests" / "golden" / "pairs" / "tiny-nli", EMBEDDED / "g2p"
    )
    assert ran.said[0].startswith("tiny-nli and tiny-text read 18 tokens: [CLS] the film")
    cosine = float(ran.said[-1].split()[1].rstrip(";"))
    assert 0 < cosine <= 1
    assert len(ran.pictures) == 2


def test_a_folder_is_a_sheet(run: Run) -> None:
    """Ten photographs; and the weights by photograph, largest first."""
    ran = run(SHORT / "photo_sheet.ipynb")
    assert ran.said[:2] == ["10 photographs", "10 answered"]
    weights = [float(line.split()[-1]) for line in ran.said[2:]]
    assert (len(weights), weights == sorted(weights, reverse=True)) == (10, True)
    assert len(ran.pictures) == 1


def test_layers_are_streamed(run: Run) -> None:
    """One line a layer; then as many as are wanted."""
    ran = run(SHORT / "stream_layers.ipynb")
    assert [line.split(":")[0] for line in ran.said[:4]] == [f"layer {number}" for number in range(4)]
    assert ran.said[4].endswith(" of 4")
    assert len(ran.pictures) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    """So that a change of a picture is no change of the file."""
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in _read(path).cells)


def _read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    return notebook
