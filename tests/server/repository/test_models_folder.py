"""The models folder may be a single model's, or an artifact: whatever a URI pointed at that was fetched into it."""

import asyncio
import json
import shutil
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from regard.v1 import regard_pb2 as api
from server.errors import StartError
from server.repository import models_folder
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS, GOLDEN_TOWERS
from tests.server.conftest import Serve
from tests.server.repository.folders import add_version, load, make

TINY = "tiny-text"


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """Where models are fetched to; its own name says nothing of them."""
    return tmp_path / "mnt" / "models"


def names(folder: Path) -> list[str]:
    """What is served of a folder, the newest version first."""
    return [f"{model.name}/{model.version}" for model in load(folder).all()]


def test_the_folder_of_one_model_is_served_by_the_models_own_name(mounted: Path) -> None:
    """Its newest version, as its config.toml says."""
    shutil.copytree(GOLDEN_MODELS, mounted.parent / "whole")
    add_version(mounted.parent / "whole", 2)
    shutil.move(mounted.parent / "whole" / TINY, mounted)
    assert names(mounted) == ["tiny-text/2"]
    (mounted / "config.toml").write_text('versions = "all"\n')
    assert names(mounted) == ["tiny-text/2", "tiny-text/1"]


def test_an_artifact_itself_is_served_by_its_own_name_and_version(mounted: Path) -> None:
    """Also two towers, whose folders are artifacts, too."""
    shutil.copytree(GOLDEN_MODELS / TINY / "1", mounted)
    assert names(mounted) == ["tiny-text/1"]
    shutil.rmtree(mounted)
    shutil.copytree(GOLDEN_TOWERS / "tiny-clip" / "1", mounted)
    assert names(mounted) == ["tiny-clip/1"]


def test_a_bare_onnx_model_has_the_names_of_its_folders(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no other, from wherever one looks; where its folder is no version, nobody knows any."""
    shutil.copytree(BARE_ONNX_MODELS / "plus", mounted / "plus")
    assert names(mounted / "plus") == ["plus/1"]
    assert names(mounted / "plus" / "1") == ["plus/1"]
    for place, folder in ((mounted / "plus", "."), (mounted / "plus" / "1", "."), (mounted / "plus" / "1", "..")):
        monkeypatch.chdir(place)
        assert names(Path(folder)) == ["plus/1"]
    shutil.copytree(BARE_ONNX_MODELS / "plus" / "1", mounted.parent / "graph")
    with pytest.raises(StartError, match=r"holds no artifact; expected NAME/VERSION/contract.json, VERSION/contract"):
        load(mounted.parent / "graph")


def test_what_is_wrong_with_the_only_artifact_is_told(mounted: Path) -> None:
    """Not that there is none."""
    shutil.copytree(GOLDEN_MODELS / TINY / "1", mounted)
    (mounted / "contract.json").write_text("{")
    with pytest.raises(StartError, match=r"contract\.json: content: Invalid JSON"):
        load(mounted)
    shutil.rmtree(mounted)
    shutil.copytree(GOLDEN_MODELS / TINY, mounted)
    (mounted / "1" / "contract.json").write_text("[]")
    with pytest.raises(StartError, match=r"1/contract\.json: "):
        load(mounted)


def test_a_folder_of_models_is_one_whatever_else_lies_in_it(mounted: Path) -> None:
    """Versions or a contract beside models are nobody's."""
    shutil.copytree(GOLDEN_MODELS, mounted)
    shutil.copytree(GOLDEN_MODELS / TINY / "1", mounted / "1")
    shutil.copy(GOLDEN_MODELS / TINY / "1" / "contract.json", mounted)
    assert names(mounted) == ["tiny-text/1"]
    assert asyncio.run(make(mounted).is_of_one()) is False


async def test_the_folder_of_one_model_is_followed(mounted: Path, start: Serve) -> None:
    """A version that comes is served, and one that goes is not; each is tried in a process of its own."""
    shutil.copytree(GOLDEN_MODELS / TINY, mounted)
    async with start(models=mounted, watch=True, trial_load=True) as running:

        async def served() -> str:
            return str((await running.stub.GetModel(api.GetModelRequest(model=TINY))).model.version)

        assert await served() == "1"
        content = json.loads((mounted / "1" / "contract.json").read_text())
        shutil.copytree(mounted / "1", mounted / ".2")
        (mounted / ".2" / "contract.json").write_text(json.dumps(content | {"version": 2}))
        (mounted / ".2").rename(mounted / "2")
        while await served() != "2":
            pass
        shutil.rmtree(mounted / "2")
        while await served() != "1":
            pass


@pytest.mark.parametrize(("platform", "is_one"), [(PurePosixPath, True), (PureWindowsPath, False)])
def test_a_name_that_leads_to_a_drive_is_none(
    platform: type[PurePath], is_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are drives; callers give names."""
    monkeypatch.setattr(models_folder, "PurePath", platform)
    assert models_folder.is_name("c:secret") is is_one
    assert models_folder.is_name("tiny-text")
