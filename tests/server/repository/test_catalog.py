import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.config import EMBEDDED_MODELS
from server.engine.device import Instances
from server.errors import InvalidInput, NotFound, NotPossible, StartError, TooBusy
from server.repository.catalog import State
from server.repository.lifecycle import Repository
from server.repository.limits import Usage
from server.repository.loading import LoadedModel, load_model
from tests.golden import GOLDEN_MODELS
from tests.server.repository.folders import (
    DEVICES,
    add_model,
    add_version,
    artifact,
    damage,
    edit_contract,
    load,
    make,
    nobody_cares,
    settle,
    states,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a copy of the golden model."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "models")
    return tmp_path / "models"


def test_the_newest_version_is_served_by_number_not_by_spelling(folder: Path) -> None:
    """10 is newer than 9; a hidden folder, a word and 0 are no versions."""
    add_version(folder, 9)
    add_version(folder, 10)
    for no_version in (".unfinished-x", "notes", "0", "011"):
        (folder / "tiny-text" / no_version).mkdir()
    (folder / "c\\d" / "1").mkdir(parents=True)  # callers cannot name it
    assert [model.contract.version for model in load(folder).all()] == [10]


def test_a_model_is_found_by_name_and_version(folder: Path) -> None:
    """An empty name means the only one there is."""
    repository = load(folder)
    assert repository.find("tiny-text", "1") is repository.find("", "")


@pytest.mark.parametrize(
    ("name", "version"), [("nope", ""), ("tiny-text", "2"), ("tiny-text", "v1"), ("tiny-text", "1" * 5000)]
)
def test_an_unknown_model_or_version_is_not_found(folder: Path, name: str, version: str) -> None:
    """With what there is."""
    with pytest.raises(NotFound, match="is not served; expected"):
        load(folder).find(name, version)


def test_an_empty_name_among_several_models_is_a_question(folder: Path) -> None:
    """The message lists them."""
    add_model(folder, "other")
    with pytest.raises(InvalidInput, match="model: empty; expected one of other, tiny-text"):
        load(folder).find("", "")


@pytest.mark.parametrize("idle", [False, True])
def test_an_empty_name_is_the_only_model_that_writes_or_does_not(folder: Path, idle: bool) -> None:
    """Whichever is asked for, also while it is unloaded; with two of one kind it is a question again."""
    (folder / "g2p").symlink_to(EMBEDDED_MODELS / "g2p")
    repository = load(folder)
    for writes, name in ((False, "tiny-text"), (True, "g2p")):
        assert repository.find("", "", writes=writes).name == repository.label("", writes=writes) == name
        assert repository.find("tiny-text", "", writes=writes).name == "tiny-text"
    if idle:
        model = repository._models["g2p"]
        model.served, model.is_unloaded_idle = {}, True
        assert (repository.label("", writes=True), repository.label("")) == ("g2p", "tiny-text")
    add_model(folder, "other")
    repository = load(folder)
    with pytest.raises(InvalidInput, match="model: empty; expected one of g2p, other, tiny-text"):
        repository.find("", "")
    assert repository.find("", "", writes=True).name == "g2p"


def call_itself_bare(contract: dict[str, Any]) -> None:
    """As an ONNX file without a contract, which has no hashes."""
    contract["family"] = "onnx"
    del contract["files"]["model.onnx"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "--models: .*: not a folder"),
        (lambda folder: shutil.rmtree(folder / "tiny-text"), "--models: .*: holds no artifact"),
        (lambda folder: (artifact(folder) / "contract.json").unlink(), r"contract\.json: cannot be read: No such file"),
        (lambda folder: (artifact(folder) / "contract.json").write_text("{"), r"contract\.json: content: Invalid JSON"),
        (lambda folder: damage(artifact(folder) / "weights.bin"), r"weights\.bin: sha256 .* changed or damaged"),
        (lambda folder: (artifact(folder) / "model.onnx").unlink(), r"model\.onnx: cannot be read: No such file"),
        (lambda folder: artifact(folder).rename(artifact(folder, 3)), "holds tiny-text/1; expected tiny-text/3"),
        (lambda folder: edit_contract(folder, lambda c: c.update(format=2)), r"contract\.json: format: "),
        (lambda folder: edit_contract(folder, lambda c: c.pop("inputs")), r"contract\.json: inputs: Field required"),
        (lambda folder: edit_contract(folder, lambda c: c.update(extra=1)), r"contract\.json: extra: Extra inputs"),
        (
            lambda folder: edit_contract(folder, lambda c: c["outputs"].pop(0)),
            r"model\.onnx: has the inputs and outputs",
        ),
        (lambda folder: edit_contract(folder, lambda c: c["outputs"].pop()), "labels: given without an output named"),
        (
            lambda folder: edit_contract(folder, lambda c: c["files"].update({"../secret": "0"})),
            "files: '../secret': expected names of files in the artifact's own folder",
        ),
        (
            lambda folder: edit_contract(folder, lambda c: c["embedding"].update(output="x")),
            "embedding.output: 'x' is no output",
        ),
        (
            lambda folder: edit_contract(folder, lambda c: c["text"].update(tokenizer_file="/etc/passwd")),
            "text.tokenizer_file: '/etc/passwd' is none of files",
        ),
        *(
            (
                lambda folder, name=name: edit_contract(folder, lambda c: c["files"].pop(name)),
                f"{name}: not in files",
            )
            for name in ("model.onnx", "attention.onnx", "contributions.onnx", "weights.bin")
        ),
        (
            lambda folder: edit_contract(folder, call_itself_bare),
            "model.onnx: not in files",
        ),
        (
            lambda folder: edit_contract(folder, lambda c: c["attention"].pop()),
            r"attention\.onnx: has the inputs and outputs",
        ),
    ],
)
def test_an_artifact_that_cannot_be_trusted_stops_the_start(
    folder: Path, harm: Callable[[Path], object], message: str
) -> None:
    """The line names the file and what is wrong with it."""
    harm(folder)
    with pytest.raises(StartError, match=message):
        load(folder)


def test_a_graph_that_is_no_graph_stops_the_start(folder: Path) -> None:
    """Even if its hash is right."""
    import hashlib

    (artifact(folder) / "model.onnx").write_bytes(b"not a graph")
    digest = hashlib.sha256(b"not a graph").hexdigest()
    edit_contract(folder, lambda contract: contract["files"].update({"model.onnx": digest}))
    with pytest.raises(StartError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        load(folder)


def test_what_computes_in_bfloat16_is_not_started_on_a_cpu(folder: Path) -> None:
    """ONNX Runtime has no kernels for it there; the message says what to do."""
    edit_contract(folder, lambda contract: contract.update(precision="bfloat16"))
    with pytest.raises(StartError, match="bfloat16, which ONNX Runtime cannot do on the CPU; expected --device cuda"):
        load(folder)


@pytest.mark.parametrize(
    ("settings", "served"),
    [("", [3]), ("versions = 2", [2, 3]), ('versions = "all"', [1, 2, 3]), ("versions = [1, 3]", [1, 3])],
)
def test_a_policy_says_which_versions_are_served(folder: Path, settings: str, served: list[int]) -> None:
    """So many of the newest, all, or these; a request may name one, and gets the newest otherwise."""
    add_version(folder, 2)
    add_version(folder, 3)
    settle(folder, settings)
    repository = load(folder)
    assert repository.versions_of("tiny-text") == served
    assert repository.find("", "").contract.version == 3
    assert repository.find("", str(served[0])).contract.version == served[0]
    assert {number for number, (state, _) in asyncio.run(states(repository)).items() if state == "READY"} == set(served)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("versions = 0", r"config\.toml: versions: expected a number of the newest from 1"),
        ('versions = "newest"', r"config\.toml: versions: expected .* \(got 'newest'\)"),
        ("versions = []", r"config\.toml: versions: expected"),
        ("max_requests = 0", r"config\.toml: max_requests: Input should be greater than or equal to 1 \(got '0'\)"),
        ("verions = 1", r"config\.toml: verions: Extra inputs are not permitted"),
        ("versions = ", r"config\.toml: cannot be read: Invalid value"),
        ("versions = [4]", r"tiny-text/4: not there"),
    ],
)
def test_settings_that_cannot_be_used_stop_the_start(folder: Path, settings: str, message: str) -> None:
    """The line names the file and the field."""
    settle(folder, settings)
    with pytest.raises(StartError, match=message):
        load(folder)


async def test_a_new_version_takes_over_and_the_old_one_is_freed_after_its_last_request(folder: Path) -> None:
    """Until then it is unloading, and works."""
    repository = make(folder)
    await repository.start()
    old = repository.find("", "")
    add_version(folder, 2)
    await repository.load("tiny-text")
    assert repository.find("", "").contract.version == 2
    assert await states(repository) == {1: ("UNLOADING", ""), 2: ("READY", "")}
    freed = weakref.ref(old.engine)
    del old
    gc.collect()
    assert freed() is None
    await asyncio.sleep(0)
    assert (await states(repository))[1] == (State.UNAVAILABLE, "unloaded")
    with pytest.raises(NotFound, match="version: '1' of tiny-text is not served; expected one of 2"):
        repository.find("", "1")


async def test_a_version_that_was_not_changed_is_not_loaded_again(folder: Path) -> None:
    """One that was is."""
    repository = make(folder)
    await repository.start()
    before = repository.find("", "")
    await repository.load("tiny-text")
    assert repository.find("", "") is before
    edit_contract(folder, lambda contract: contract.update(description="now another"))
    await repository.load("tiny-text")
    assert repository.find("", "").contract.description == "now another"
    for line in ('attention_form = "lowered"', 'execution = "unbound"', 'precision = "float32"', "graph_rows = [3]"):
        before = repository.find("", "")
        settle(folder, line)
        await repository.load("tiny-text")
        assert repository.find("", "") is not before
    settle(folder, "graph_rows = [3]\nmax_requests = 1")
    before = repository.find("", "")
    await repository.load("tiny-text")
    assert repository.find("", "") is before


async def test_a_broken_version_is_listed_and_replaces_nothing(folder: Path) -> None:
    """Whether it is new, or was changed in its place; mended, it is served."""
    repository = make(folder)
    await repository.start()
    good = repository.find("", "")
    add_version(folder, 2)
    damage(artifact(folder, 2) / "weights.bin")
    with pytest.raises(NotPossible, match=r"2/weights\.bin: sha256 .* changed or damaged"):
        await repository.load("tiny-text")
    assert repository.find("", "") is good
    state, reason = (await states(repository))[2]
    assert (state, "changed or damaged" in reason) == ("UNAVAILABLE", True)
    damage(artifact(folder, 2) / "weights.bin")
    await repository.load("tiny-text")
    assert repository.find("", "").contract.version == 2
    damage(artifact(folder, 2) / "model.onnx")
    with pytest.raises(NotPossible):
        await repository.load("tiny-text")
    assert repository.find("", "").contract.version == 2
    assert (await states(repository))[2][0] == "READY"
    assert (await states(repository))[2][1].startswith("reload failed: ")


async def test_a_model_can_be_unloaded_and_loaded_again(folder: Path) -> None:
    """Meanwhile it is not found; what is not in the folder cannot be loaded."""
    repository = make(folder)
    await repository.start()
    await repository.unload("tiny-text")
    with pytest.raises(NotFound, match="model: 'tiny-text' is not served"):
        repository.find("tiny-text", "")
    with pytest.raises(NotFound):
        await repository.unload("tiny-text")
    await repository.load("tiny-text")
    assert repository.find("tiny-text", "").contract.version == 1
    for name in ("nope", "", "../models/tiny-text", ".", "tiny-text/1"):
        with pytest.raises(NotFound, match="is not in the models folder; expected one of tiny-text"):
            await repository.load(name)


async def test_a_version_whose_folder_has_gone_is_forgotten_when_it_is_freed(folder: Path) -> None:
    """Until then it is listed."""
    repository = make(folder)
    await repository.start()
    add_version(folder, 2)
    shutil.rmtree(artifact(folder, 1))
    held = repository.find("", "")
    await repository.load("tiny-text")
    assert await states(repository) == {1: ("UNLOADING", ""), 2: ("READY", "")}
    del held
    gc.collect()
    await asyncio.sleep(0)
    assert await states(repository) == {2: ("READY", "")}


async def test_an_idle_model_is_unloaded_and_loads_for_the_next_who_asks(folder: Path) -> None:
    """If the operator says so; to callers it was there all the time."""
    settle(folder, "unload_after_idle_seconds = 0.01")
    add_model(folder, "other")
    told = list[str | None]()

    async def tell(name: str, newest: LoadedModel | None) -> None:
        if name == "tiny-text":
            told.append(newest.version if newest else None)

    repository = Repository(folder, lambda path, usage: load_model(path, DEVICES, Instances(1, 1), usage), tell)
    await repository.start()
    usage = repository.find("tiny-text", "").usage
    usage.enter()
    usage.leave()
    del usage
    freed = asyncio.Event()
    loop = asyncio.get_running_loop()
    weakref.finalize(repository.find("tiny-text", "").engine, loop.call_soon_threadsafe, freed.set)
    await asyncio.wait_for(freed.wait(), 30)
    assert repository.is_unloaded_idle("tiny-text")
    await repository.unload("other")
    assert (await repository.acquire("", "")).version == "1"
    assert not repository.is_unloaded_idle("tiny-text")
    assert None not in told


async def test_a_load_ends_though_its_caller_has_gone_and_is_shared_by_who_wakes_a_model(folder: Path) -> None:
    """One load, whoever and how many wait for it."""
    settle(folder, "unload_after_idle_seconds = 0.01")
    loads, gate = list[Path](), threading.Event()

    def load_slowly(path: Path, usage: Usage) -> LoadedModel:
        loads.append(path)
        assert gate.wait(30)
        return load_model(path, DEVICES, Instances(1, 1), usage)

    gate.set()
    repository = Repository(folder, load_slowly, nobody_cares)
    await repository.start()
    freed, loop = asyncio.Event(), asyncio.get_running_loop()
    weakref.finalize(repository.find("", "").engine, loop.call_soon_threadsafe, freed.set)
    await asyncio.wait_for(freed.wait(), 30)
    gate.clear()
    callers = [asyncio.ensure_future(repository.acquire("", "")) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.gather(callers[0], return_exceptions=True)
    gate.set()
    assert {model.version for model in await asyncio.gather(*callers[1:])} == {"1"}
    assert len(loads) == 2


async def test_whatever_goes_wrong_in_a_load_is_a_reason(folder: Path) -> None:
    """Not only what was foreseen."""
    repository = make(folder)
    await repository.start()
    add_version(folder, 2)

    def fail(path: Path, usage: Usage) -> LoadedModel:
        raise MemoryError("no room")

    repository._load = fail
    with pytest.raises(NotPossible, match="tiny-text 2: no room"):
        await repository.load("tiny-text")
    assert await states(repository) == {1: ("READY", ""), 2: ("UNAVAILABLE", "tiny-text 2: no room")}


async def test_a_model_has_limits_of_its_own(folder: Path) -> None:
    """On requests and on the bytes of their inputs; what left makes room, and one request may always come."""
    settle(folder, "max_requests = 2\nmax_input_bytes = 100")
    repository = make(folder)
    await repository.start()
    usage = repository.find("", "").usage
    usage.enter()
    usage.hold(1000)
    usage.enter()
    with pytest.raises(TooBusy, match="max_requests"):
        usage.enter()
    with pytest.raises(TooBusy, match=r"1001 bytes of inputs .*max_input_bytes"):
        usage.hold(1)
    usage.release(1000)
    usage.leave()
    usage.enter()
    usage.hold(60)
    usage.hold(40)


async def test_models_are_changed_together_and_one_that_cannot_be_loaded_holds_up_none(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are named, or all of the folder; new versions are seen, and what is wrong is logged."""
    add_model(folder, "other")
    repository = make(folder)
    await repository.start()
    add_version(folder, 2)
    await repository.serve_only(["tiny-text"])
    assert [(model.name, model.version) for model in repository.all()] == [("tiny-text", "2")]
    add_version(folder, 3)
    (artifact(folder, 3) / "contract.json").write_text("{")
    await repository.serve_only(None)
    assert [(model.name, model.version) for model in repository.all()] == [("other", "1"), ("tiny-text", "2")]
    assert "contract.json" in caplog.text
    shutil.rmtree(folder / "other")
    await repository.serve_only(None)
    assert {model.name for model in repository.all()} == {"tiny-text"}


async def test_a_name_that_the_folder_has_not_and_a_folder_that_is_away_change_nothing(folder: Path) -> None:
    """Everything else would be unloaded for a letter."""
    add_model(folder, "other")
    repository = make(folder)
    await repository.start()
    with pytest.raises(NotFound, match=r"'tiny-txt' is not in the models folder; expected one of other, tiny-text"):
        await repository.serve_only(["other", "tiny-txt"])
    shutil.move(folder, f"{folder}-away")
    with pytest.raises(StartError, match="not a folder"):
        await repository.serve_only(None)
    shutil.copytree(f"{folder}-away/tiny-text/1", folder / "notes")
    with pytest.raises(StartError, match="holds no artifact"):
        await repository.serve_only(None)
    assert {model.name for model in repository.all()} == {"other", "tiny-text"}
