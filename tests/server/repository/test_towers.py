"""Two towers as one model of the folder: loaded, replaced, unloaded and refused as a whole."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact.files import hash_file
from server.errors import NotFound, StartError
from server.repository.catalog import State
from tests.golden import GOLDEN_TOWERS
from tests.server.repository.folders import damage, load, make, states


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a copy of the small CLIP."""
    shutil.copytree(GOLDEN_TOWERS / "tiny-clip", tmp_path / "models" / "tiny-clip")
    return tmp_path / "models"


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None], *, hashes: bool = True) -> None:
    """Change a JSON file of version 1; and, unless it is to lie, the hashes of both contracts."""
    version = folder / "tiny-clip" / "1"
    content = json.loads((version / name).read_text())
    change(content)
    (version / name).write_text(json.dumps(content))
    if hashes and name != "towers.json":
        edit(folder, "towers.json", lambda whole: whole["files"].update({name: hash_file(version / name)}))


def test_one_model_reads_both(folder: Path) -> None:
    """A request goes to the tower that its inputs are of."""
    model = load(folder).find("tiny-clip", "1")
    assert model.towers
    assert (model.name, model.version) == ("tiny-clip", "1")
    text, image = model.towers.text, model.towers.image
    for names, tower in (
        (("text",), text),
        (("texts",), text),
        (("image",), image),
        (("images",), image),
        (("input_ids", "attention_mask"), text),
        (("pixel_values",), image),
        ((None,), text),
        ((), text),
    ):
        assert model.of_inputs(names) is tower
        assert tower.of_inputs(names) is tower
    assert text.usage is image.usage is model.usage


async def test_both_are_freed_together(folder: Path) -> None:
    """When the model is unloaded, and no request holds it."""
    repository = make(folder)
    await repository.start()
    towers = repository.find("tiny-clip", "").towers
    assert towers
    engines = [weakref.ref(one.engine) for one in (towers.text, towers.image)]
    del towers
    await repository.unload("tiny-clip")
    gc.collect()
    assert [engine() for engine in engines] == [None, None]
    with pytest.raises(NotFound):
        repository.find("tiny-clip", "")
    assert (await states(repository))[1] == (State.UNAVAILABLE, "unloaded")


async def test_a_change_in_either_tower_is_loaded(folder: Path) -> None:
    """Like that of any file of a version."""
    repository = make(folder)
    await repository.start()
    first = repository.find("tiny-clip", "")
    await repository.load("tiny-clip")
    assert repository.find("tiny-clip", "") is first
    edit(folder, "text/contract.json", lambda text: text.update(description="another"))
    await repository.load("tiny-clip")
    second = repository.find("tiny-clip", "").towers
    assert second
    assert second.text.contract.description == "another"


def test_what_is_damaged_is_refused(folder: Path) -> None:
    """A tower's weights, its contract, or that of both."""
    for name, match in (
        ("text/weights.bin", "text/weights.bin: sha256 .* its contract says"),
        ("image/contract.json", "image/contract.json: sha256 .* towers.json says .*: changed or damaged"),
        ("towers.json", "towers.json"),
    ):
        path = folder / "tiny-clip" / "1" / name
        content = path.read_bytes()
        damage(path)
        with pytest.raises(StartError, match=match):
            load(folder)
        path.write_bytes(content)
    assert load(folder).all()


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("towers.json", lambda whole: whole.update(name="other"), "text is of tiny-clip/1; expected other/1"),
        ("towers.json", lambda whole: whole.update(dim=13), "text: expected vectors of 13 numbers and of length 1"),
        ("towers.json", lambda whole: whole.update(template="a photo"), "template: .*a photo.*; expected one {}"),
        ("towers.json", lambda whole: whole.update(logit_scale=0), "logit_scale"),
        ("towers.json", lambda whole: whole["files"].pop("text/contract.json"), "files: "),
        ("text/contract.json", lambda text: text.update(version=2), "text is of tiny-clip/2; expected tiny-clip/1"),
        ("text/contract.json", lambda text: text.update(text=None), "text: its contract takes no texts"),
        (
            "image/contract.json",
            lambda image: image.update(embedding=None, similarity=None),
            "image: expected vectors of 12 numbers",
        ),
        ("image/contract.json", lambda image: image["files"].pop("hidden.onnx"), "hidden.onnx: not in files"),
        (
            "image/contract.json",
            lambda image: (image["embedding"].update(output="last_hidden_state"), image.update(similarity=None)),
            "vectors are the outputs embedding and last_hidden_state; expected one name",
        ),
        (
            "image/contract.json",
            lambda image: image["projected"].update(dim=16),
            "projected vectors have 12 and 16 numbers; expected as many of both",
        ),
        (
            "text/contract.json",
            lambda text: text["text"].update(prompts={"q": "query: "}),
            "text: has prompts; expected none, which would stand before labels",
        ),
    ],
)
def test_towers_that_do_not_fit_are_refused(
    folder: Path, name: str, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    """With the file, what it says and what was expected."""
    edit(folder, name, change)
    with pytest.raises(StartError, match=match):
        load(folder)


def test_what_a_link_leads_to_is_no_tower(folder: Path) -> None:
    """Nobody would see it change."""
    place = folder / "tiny-clip" / "1" / "text"
    place.rename(folder.parent / "elsewhere")
    place.symlink_to(folder.parent / "elsewhere", target_is_directory=True)
    with pytest.raises(StartError, match="text: is a link; expected a folder"):
        load(folder)


def test_a_filled_up_text_must_have_the_networks_length(tmp_path: Path) -> None:
    """Else every request would fail."""
    version = tmp_path / "models" / "tiny-siglip" / "1"
    shutil.copytree(GOLDEN_TOWERS / "tiny-siglip" / "1", version)
    contract, whole = (json.loads((version / name).read_text()) for name in ("text/contract.json", "towers.json"))
    for change, match in (
        ({"max_tokens": 31}, "text.pad_token: 0; .* does not have 31 positions|has no 31 positions"),
        ({"pad_token": 1000}, "text.pad_token: 1000"),
    ):
        told = contract | {"text": contract["text"] | change}
        (version / "text/contract.json").write_text(json.dumps(told))
        files = whole["files"] | {"text/contract.json": hash_file(version / "text/contract.json")}
        (version / "towers.json").write_text(json.dumps(whole | {"files": files}))
        with pytest.raises(StartError, match=match):
            load(tmp_path / "models")
