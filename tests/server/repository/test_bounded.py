"""A bounded number of models that are loaded, each when it is first asked for; and a start with some of the folder."""

import asyncio
import gc
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from regard.v1.regard_pb2 import EmbedRequest
from server.api.open_inference.open_inference_pb2 import ModelReadyRequest
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.config import EMBEDDED_MODELS
from server.errors import InvalidInput, NotFound, NotPossible, StartError
from server.repository.lifecycle import Repository
from tests.golden import GOLDEN_MODELS
from tests.server.conftest import Serve
from tests.server.repository.folders import SlowModels, add_model, add_version, make, settle, states

SERVING = health_pb2.HealthCheckResponse.SERVING
NAMES = ("one", "two", "tiny-text")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A models folder with a copy of the golden model."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "models")
    return tmp_path / "models"


async def bounded(
    folder: Path, most: int = 1, names: Sequence[str] | None = None
) -> tuple[Repository, list[list[str]]]:
    """A repository of three models that has started, and what it has told of those that are loaded."""
    add_model(folder, "one")
    add_model(folder, "two")
    told = list[list[str]]()
    repository = make(folder, max_loaded=most, tell=told.append)
    await repository.start(names)
    return repository, told


async def test_a_model_is_loaded_when_it_is_asked_for_in_the_place_of_who_was_not_for_longest(folder: Path) -> None:
    """All are known, never more are loaded, and whoever is told knows which."""
    repository, told = await bounded(folder, most=2)
    assert (repository.all(), all(map(repository.is_unloaded_idle, NAMES))) == ([], True)
    for name in ("one", "two", "one", "tiny-text", "one"):
        assert (await repository.acquire(name, "")).name == name
        assert len(repository.loaded()) <= 2
    assert repository.loaded() == ["one", "tiny-text"]
    assert repository.is_unloaded_idle("two")
    assert told[-1] == ["one", "tiny-text"]
    assert ["one", "tiny-text", "two"] in told  # while it was being loaded, its callers are told the way


async def test_one_that_is_in_use_goes_last_and_answers_what_it_has(folder: Path) -> None:
    """It is freed when its last request has left."""
    repository, _ = await bounded(folder, most=2)
    busy = await repository.acquire("one", "")
    await repository.acquire("two", "")
    busy.usage.enter()
    await repository.acquire("tiny-text", "")
    assert repository.loaded() == ["one", "tiny-text"]
    (await repository.acquire("tiny-text", "")).usage.enter()
    gone = weakref.ref(busy)
    await repository.acquire("two", "")
    assert repository.loaded() == ["tiny-text", "two"]
    assert busy.engine is not None
    del busy
    gc.collect()
    assert gone() is None


async def test_callers_of_different_models_at_once_are_all_answered_with_one_loaded_at_a_time(folder: Path) -> None:
    """Each waits for its turn."""
    repository, _ = await bounded(folder)
    asked = [NAMES[number % 3] for number in range(9)]
    found = await asyncio.gather(*(repository.acquire(name, "") for name in asked))
    assert [model.name for model in found] == asked
    assert len(repository.loaded()) == 1


async def test_what_cannot_be_loaded_takes_nobodys_room(folder: Path) -> None:
    """Where it is tried first, as it is unless one says otherwise; nor does a name that is none."""

    async def try_out(path: Path) -> None:
        if path.parent.name == "two":
            raise StartError("two is broken")

    add_model(folder, "two")
    repository = make(folder, max_loaded=1, try_out=try_out)
    await repository.start()
    await repository.acquire("tiny-text", "")
    with pytest.raises(NotPossible, match="two is broken"):
        await repository.acquire("two", "")
    with pytest.raises(NotFound):
        await repository.acquire("three", "")
    assert repository.loaded() == ["tiny-text"]


async def slow(folder: Path, *held: tuple[str, int]) -> tuple[SlowModels, Repository]:
    """A repository of three models, of which one is loaded at a time and some come when their gate is set."""
    add_model(folder, "one")
    add_model(folder, "two")
    models = SlowModels(folder, *held)
    repository = make(models, max_loaded=1)
    await repository.start()
    return models, repository


async def test_a_fetch_holds_up_no_other_load_and_callers_of_one_model_share_it(folder: Path) -> None:
    """What has come takes its place then, from whoever has it."""
    models, repository = await slow(folder, ("one", 1))
    waiting = [asyncio.create_task(repository.acquire("one", "")) for _ in range(2)]
    await models.wait_for("one", 1)
    for name in ("two", "tiny-text"):
        assert (await repository.acquire(name, "")).name == name
    assert [entry.state for entry in await repository.index()] == ["LOADING", "READY", "UNAVAILABLE"]
    models.gates["one", 1].set()
    assert [model.name for model in await asyncio.gather(*waiting)] == ["one", "one"]
    assert models.asked.count(("one", 1)) == 1
    assert repository.loaded() == ["one"]


async def test_who_makes_room_does_not_wait_for_its_next_version(folder: Path) -> None:
    """Which is not loaded when it has come: nobody asks for that model any more; whoever does next gets it."""
    models, repository = await slow(folder, ("tiny-text", 2))
    await repository.acquire("tiny-text", "")
    add_version(folder, 2)
    following = asyncio.create_task(repository.sync("tiny-text"))
    await models.wait_for("tiny-text", 2)
    assert (await repository.acquire("tiny-text", "")).version == "1"
    assert (await repository.acquire("one", "")).name == "one"
    assert repository.is_unloaded_idle("tiny-text")
    models.gates["tiny-text", 2].set()
    await following
    assert repository.loaded() == ["one"]
    assert (await repository.acquire("tiny-text", "")).version == "2"


async def test_of_several_versions_those_that_have_come_make_room_while_others_come(folder: Path) -> None:
    """And are loaded again with the others, so that never more models are loaded than may be."""
    models, repository = await slow(folder, ("tiny-text", 1))
    settle(folder, "versions = [1, 2]")
    add_version(folder, 2)
    waiting = asyncio.create_task(repository.acquire("tiny-text", "1"))
    await models.wait_for("tiny-text", 1)
    assert (await repository.acquire("tiny-text", "")).version == "2"
    await repository.acquire("two", "")
    assert [model.name for model in repository.all()] == ["two"]
    models.gates["tiny-text", 1].set()
    assert (await waiting).version == "1"
    assert [(model.name, model.version) for model in repository.all()] == [("tiny-text", "2"), ("tiny-text", "1")]


async def test_who_asks_for_a_load_gets_it_though_the_model_made_room_meanwhile(folder: Path) -> None:
    """By name; the next version is looked at before the caller is told."""
    models, repository = await slow(folder, ("tiny-text", 2))
    await repository.acquire("tiny-text", "")
    add_version(folder, 2)
    load = asyncio.create_task(repository.load("tiny-text"))
    await models.wait_for("tiny-text", 2)
    await repository.acquire("one", "")
    models.gates["tiny-text", 2].set()
    await load
    assert [model.version for model in repository.all()] == ["2"]


@pytest.mark.parametrize("most", [0, 1])
async def test_an_unload_does_not_wait_for_a_fetch_and_ends_the_load(folder: Path, most: int) -> None:
    """Whose version is listed as unloaded, and not as loading for ever."""
    models = SlowModels(folder, ("tiny-text", 2))
    repository = make(models, max_loaded=most)
    await repository.start()
    await repository.acquire("tiny-text", "")
    add_version(folder, 2)
    load = asyncio.create_task(repository.load("tiny-text"))
    await models.wait_for("tiny-text", 2)
    await repository.unload("tiny-text")
    assert repository.all() == []
    models.gates["tiny-text", 2].set()
    await load
    assert repository.all() == []
    assert (await states(repository))[2] == ("UNAVAILABLE", "unloaded")
    with pytest.raises(NotFound, match="is not served"):
        await repository.acquire("tiny-text", "")


async def test_a_change_of_the_folder_is_followed_whether_or_not_a_model_is_loaded(folder: Path) -> None:
    """A new version of one that is loaded is, at once; of another when somebody asks; and no model is forgotten."""
    repository, _ = await bounded(folder)
    await repository.acquire("tiny-text", "")
    add_version(folder, 2)
    await repository.serve_only(["one", "tiny-text"])
    assert [model.version for model in repository.all()] == ["2"]
    assert repository.is_unloaded_idle("one")
    with pytest.raises(NotFound, match="expected one of one, tiny-text"):
        await repository.acquire("two", "")
    await repository.serve_only(None)
    assert (await repository.acquire("two", "")).name == "two"
    assert repository.loaded() == ["two"]


async def test_a_name_is_asked_for_whatever_is_loaded(folder: Path) -> None:
    """Of a model that was never loaded it is not known whether it writes text."""
    (folder / "g2p").symlink_to(EMBEDDED_MODELS / "g2p")
    repository = make(folder, max_loaded=1)
    await repository.start()
    for name, writes in (("tiny-text", False), ("g2p", True)):
        await repository.acquire(name, "")
        with pytest.raises(InvalidInput, match="expected one of g2p, tiny-text"):
            await repository.acquire("", "", writes=writes)


async def test_what_is_not_loaded_is_listed_with_its_reason(folder: Path) -> None:
    """Nobody has asked for it, or it has made room."""
    repository = make(folder, max_loaded=1)
    await repository.start()
    assert await states(repository) == {1: ("UNAVAILABLE", "not loaded: nobody has asked for it")}
    await repository.acquire("", "")
    assert await states(repository) == {1: ("READY", "")}


@pytest.mark.parametrize("most", [0, 1])
async def test_a_start_with_names_loads_and_knows_no_others(folder: Path, most: int) -> None:
    """And none that is not there."""
    repository, _ = await bounded(folder, most, ["two"])
    assert (await repository.acquire("", "")).name == "two"
    assert repository.loaded() == ["two"]
    with pytest.raises(NotFound, match="'three' is not in the models folder; expected one of one, tiny-text, two"):
        await make(folder).start(["three"])


async def test_strictness_needs_all_to_be_loaded(folder: Path) -> None:
    """Nobody is told that all can be where none is."""
    with pytest.raises(StartError, match="--strict-models: True; expected False with --max-loaded-models"):
        await make(folder, max_loaded=1).start(strict=True)


async def test_to_callers_all_models_are_served(folder: Path, start: Serve) -> None:
    """By health, readiness and answers, of both protocols, whichever are loaded."""
    add_model(folder, "one")
    async with start(models=folder, max_loaded_models=1) as running:
        health: Any = health_pb2_grpc.HealthStub(running.channel)
        inference: Any = GRPCInferenceServiceStub(running.channel)
        for name in ("one", "tiny-text", "one"):
            assert (await inference.ModelReady(ModelReadyRequest(name=name))).ready
            answer = await running.stub.Embed(EmbedRequest(model=name, text="the cat"))
            assert answer.model == name
            assert (await health.Check(health_pb2.HealthCheckRequest(service="tiny-text"))).status == SERVING
            assert (await health.Check(health_pb2.HealthCheckRequest(service="one"))).status == SERVING
