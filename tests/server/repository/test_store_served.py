"""A server whose models lie in a store."""

import asyncio
import shutil
import subprocess
from pathlib import Path
from threading import Event

import grpc
import pytest

from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server import app
from server.config import Config
from server.errors import NotPossible, StartError
from server.repository import folder_watch
from server.repository.folder_watch import poll
from server.repository.lifecycle import Repository
from server.repository.models_folder import NoRoom
from server.repository.store.artifact import Artifact
from server.repository.store.cache import Cache
from server.repository.store.fetching import Fetch, is_whole
from server.repository.store.remote_models import RemoteModels
from server.repository.store.room import Room
from server.repository.store.store import Store, StoredFile
from tests.faults.callers import wait_until
from tests.golden import GOLDEN_MODELS
from tests.processes import ROOT, environment, serving
from tests.server.conftest import Running, Serve
from tests.server.repository.folders import (
    add_model,
    add_version,
    artifact,
    damage,
    edit_contract,
    settle,
    states,
)
from tests.server.repository.folders import make as make_repository
from tests.server.repository.stores import GATE, HANG, LOG, SERVER, reads, watch_stores

TINY = "tiny-text"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What lies in the store."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "bucket")
    watch_stores()
    return tmp_path / "bucket"


def make(folder: Path, cache: Path, max_bytes: int = 0, max_loaded: int = 0) -> tuple[RemoteModels, Repository]:
    """A repository of a store, with one thread, that has loaded nothing."""
    models = RemoteModels(f"watched://{folder}", Cache(cache, max_bytes, Event()), Event())
    return models, make_repository(models, max_loaded=max_loaded)


async def embed(running: Running, model: str = TINY) -> str:
    """Ask; returns which version answered."""
    return str((await running.stub.Embed(api.EmbedRequest(model=model, text="the cat"))).version)


def kept(tmp_path: Path) -> set[str]:
    """Versions in the cache."""
    return {path.name.partition("-")[0] for path in tmp_path.glob("cache/*/tiny-text/[0-9]*")}


def test_models_are_a_path_or_a_url() -> None:
    """Of a URL nothing is lost."""
    for url in ("s3://bucket/models", "hf://org/models", "file:///models"):
        assert Config.from_command_line(["--models", url]).models == url
    assert Config.from_command_line(["--models", "models/x"]).models == Path("models/x")


async def test_a_server_answers_from_a_store_and_loads_what_is_new_there(
    folder: Path, tmp_path: Path, start: Serve
) -> None:
    """Each tried in a process of its own first, with its settings; unloaded, its files stay for others."""
    settle(folder, "max_requests = 3\n")
    flags = {"models": f"file://{folder}", "models_cache": tmp_path / "cache", "trial_load": True}
    async with start(**flags) as running:
        assert await embed(running) == "1"
        add_version(folder, 2)
        assert await embed(running) == "1"
        await running.stub.LoadModel(api.LoadModelRequest(model=TINY))
        assert await embed(running) == "2"
        await running.stub.UnloadModel(api.UnloadModelRequest(model=TINY))
        assert kept(tmp_path) == {"1", "2"}


async def test_a_fetch_holds_neither_the_loop_nor_other_models(
    folder: Path, tmp_path: Path, start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lasts, the version is LOADING, and what is served answers; a model that comes with the start, too."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    async with start(models=f"watched://{folder}", models_cache=tmp_path / "cache") as running:
        monkeypatch.setenv(GATE, f"weights.bin:0:{gate}")
        monkeypatch.setenv(LOG, str(log))
        add_model(folder, "other")
        load = asyncio.ensure_future(running.stub.LoadModel(api.LoadModelRequest(model="other")))
        await asyncio.to_thread(wait_until, lambda: ("weights.bin", 0) in reads(log))
        found = {one.model: one.state for one in (await running.stub.ListModels(api.ListModelsRequest())).versions}
        assert found == {TINY: "READY", "other": "LOADING"}
        assert await embed(running) == "1"
        assert not load.done()
        gate.touch()
        await load
        assert await embed(running, "other") == "1"


async def test_a_stop_does_not_wait_for_what_is_fetched(
    folder: Path, tmp_path: Path, start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has it; the server ends though that goes on."""
    async with start(models=f"watched://{folder}", models_cache=tmp_path / "cache", drain_seconds=0.1) as running:
        add_version(folder, 2)
        waiting = Event()
        monkeypatch.setattr("server.repository.store.cache.try_lock", lambda *_, **__: waiting.set())
        monkeypatch.setattr("server.repository.store.locks.try_lock", lambda *_, **__: None)
        load = asyncio.ensure_future(running.stub.LoadModel(api.LoadModelRequest(model=TINY)))
        await asyncio.to_thread(waiting.wait, 60)
    assert kept(tmp_path) == {"1"}
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await load


def watched_flags(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str) -> list[str]:
    """Flags of a server of a store that never answers to this, once the file hang is there."""
    monkeypatch.setenv(HANG, f"{hangs}:{tmp_path / 'hang'}")
    cache = str(tmp_path / "cache")
    return ["--models", f"watched://{folder}", "--models-cache", cache, "--drain-seconds", "0.1"]


@pytest.mark.parametrize("hangs", ["list", "weights.bin", "config.toml"])
def test_a_stop_ends_though_the_store_never_answers(
    hangs: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To who lists it, or reads a file; the caller who waits for it is told."""
    flags, hang = watched_flags(folder, tmp_path, monkeypatch, hangs), tmp_path / "hang"
    with serving(*flags, program=SERVER) as replica, grpc.insecure_channel(replica.address) as channel:
        settle(folder, "max_requests = 3\n")
        add_version(folder, 2)
        hang.touch()
        load = RegardServiceStub(channel).LoadModel.future(api.LoadModelRequest(model=TINY))
        wait_until(lambda: hang.read_text() == hangs)
        assert replica.stop() == 0
        assert isinstance(load.exception(), grpc.RpcError)


def test_a_stop_ends_though_what_is_loaded_when_asked_for_never_comes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --max-loaded-models, where the caller who asked waits for it."""
    flags, hang = watched_flags(folder, tmp_path, monkeypatch, "weights.bin"), tmp_path / "hang"
    with serving(*flags, "--max-loaded-models", "1", program=SERVER) as replica:
        hang.touch()
        with grpc.insecure_channel(replica.address) as channel:
            asked = RegardServiceStub(channel).Embed.future(api.EmbedRequest(model=TINY, text="the cat"))
            wait_until(lambda: hang.read_text() == "weights.bin")
            assert replica.stop() == 0
            assert isinstance(asked.exception(), grpc.RpcError)


async def test_what_finds_no_room_in_the_cache_beside_others_is_fetched_after_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where models are loaded when they are asked for; and a model that alone is larger is refused."""
    add_model(folder, "other")
    bound = sum(path.stat().st_size for path in artifact(folder).iterdir()) * 3 // 2
    gate, make_room = tmp_path / "gate", Room._make
    monkeypatch.setenv(GATE, f"weights.bin:0:{gate}")

    def note(room: Room, place: Path, coming_bytes: int) -> None:
        try:
            make_room(room, place, coming_bytes)
        except NoRoom:
            gate.touch()
            raise

    monkeypatch.setattr(Room, "_make", note)
    _, repository = make(folder, tmp_path / "cache", bound, max_loaded=2)
    await repository.start()
    found = await asyncio.gather(*(repository.acquire(name, "") for name in (TINY, "other")))
    assert gate.exists()
    assert [model.name for model in found] == [TINY, "other"]
    _, repository = make(folder, tmp_path / "small", bound // 2, max_loaded=2)
    await repository.start()
    with pytest.raises(NotPossible, match="--models-cache-bytes"):
        await repository.acquire(TINY, "")


def test_a_start_ends_though_the_store_never_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is served."""
    flags, hang = watched_flags(folder, tmp_path, monkeypatch, "list"), tmp_path / "hang"
    hang.touch()
    ports = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with subprocess.Popen([*SERVER, *flags, *ports], cwd=ROOT, env=environment()) as process:
        try:
            wait_until(lambda: hang.read_text() == "list")
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


async def test_the_store_is_followed(
    folder: Path, tmp_path: Path, start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that comes is served, one that goes is not, and so are models."""
    monkeypatch.setattr(app, "poll", lambda models, repository, _: poll(models, repository, 0.01))
    flags = {"models": f"file://{folder}", "models_cache": tmp_path / "cache", "watch": True}
    async with start(**flags) as running:
        assert await embed(running) == "1"
        add_version(folder, 2)
        while await embed(running) != "2":
            pass
        add_model(folder, "other")
        shutil.rmtree(artifact(folder, 2))
        while await embed(running) != "1":
            pass
        shutil.rmtree(folder / TINY)
        with pytest.raises(grpc.aio.AioRpcError, match="is not served; expected one of other"):
            while await embed(running):
                pass


class Polls:
    """Lets a poll go round as often as it is told to, in the place of its sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._asleep, self._wake = asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(folder_watch.asyncio, "sleep", self._sleep)  # type: ignore[attr-defined]

    async def _sleep(self, _: float) -> None:
        self._asleep.set()
        await self._wake.wait()
        self._wake.clear()

    async def once(self) -> None:
        """Let it look once more."""
        await self._asleep.wait()
        self._asleep.clear()
        self._wake.set()
        await self._asleep.wait()


async def test_what_was_loaded_at_the_start_is_not_looked_at_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a poll that finds nothing else: hashes of all models would take CPUs from the first callers."""
    hashed = list[Path]()

    def note(place: Path, artifact: Artifact) -> bool:
        hashed.append(place)
        return is_whole(place, artifact)

    models, repository = make(folder, tmp_path / "cache")
    await repository.start()
    monkeypatch.setattr("server.repository.store.cache.is_whole", note)
    polls = Polls(monkeypatch)
    following = asyncio.create_task(poll(models, repository, 60))
    await polls.once()
    assert hashed == []
    edit_contract(folder, lambda contract: contract.update({"description": "another"}))
    await polls.once()
    assert hashed
    following.cancel()


async def test_what_could_not_be_fetched_is_tried_again_and_what_is_damaged_is_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it changes; a poll without news reads nothing, and a store that is away is a warning."""
    monkeypatch.setattr("server.repository.store.fetching._PAUSES_SECONDS", ())
    log = tmp_path / "log"
    monkeypatch.setenv(LOG, str(log))
    models, repository = make(folder, tmp_path / "cache")
    await repository.start()
    polls = Polls(monkeypatch)
    following = asyncio.create_task(poll(models, repository, 60))
    add_version(folder, 2)
    damage(artifact(folder, 2) / "weights.bin")
    await polls.once()
    assert "changed or damaged" in (await states(repository))[2][1]
    before = len(reads(log))
    await polls.once()
    assert len(reads(log)) == before
    shutil.copyfile(artifact(folder) / "weights.bin", artifact(folder, 2) / "weights.bin")
    with monkeypatch.context() as patch:
        patch.setattr("server.repository.store.store.Store.chunks", fail)
        await polls.once()
        patch.setattr("server.repository.store.store.Store.list", fail)
        await polls.once()
    assert (await states(repository))[1][0] == "READY"
    await polls.once()
    assert (await states(repository))[2] == ("READY", "")
    following.cancel()


def fail(*_: object) -> None:
    """As a store that is away."""
    raise StartError("no network")


async def test_what_is_in_the_cache_is_loaded_though_the_store_is_away(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was unloaded because nobody asked; who asks for a load by name is told."""
    settle(folder, "unload_after_idle_seconds = 0.01\n")
    _, repository = make(folder, tmp_path / "cache")
    await repository.start()
    await asyncio.to_thread(wait_until, lambda: repository.is_unloaded_idle(TINY))
    monkeypatch.setattr("server.repository.store.store.Store.list", fail)
    monkeypatch.setattr("server.repository.store.store.Store.chunks", fail)
    assert (await repository.acquire(TINY, "")).version == "1"
    with pytest.raises(NotPossible, match="no network"):
        await repository.load(TINY)


async def test_a_listing_that_hangs_holds_up_no_load_from_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor who asks which versions there are: what was seen before is told."""
    settle(folder, "unload_after_idle_seconds = 0.01\n")
    _, repository = make(folder, tmp_path / "cache")
    await repository.start()
    await asyncio.to_thread(wait_until, lambda: repository.is_unloaded_idle(TINY))
    gate, asked, listed = Event(), Event(), Store.list

    def wait(store: Store) -> dict[str, StoredFile]:
        asked.set()
        gate.wait()
        return listed(store)

    monkeypatch.setattr(Store, "list", wait)
    refreshing = asyncio.create_task(repository.refresh())
    try:
        assert await asyncio.to_thread(asked.wait, 30)
        async with asyncio.timeout(60):
            assert (await repository.acquire(TINY, "")).version == "1"
            assert [entry.version for entry in await repository.index()] == [1]
        assert not refreshing.done()
    finally:
        gate.set()
    await refreshing


async def test_what_is_in_the_cache_waits_for_no_fetch_and_few_are_fetched_at_a_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has parts of files in memory on their way."""
    settle(folder, "unload_after_idle_seconds = 0.01\n")
    _, repository = make(folder, tmp_path / "cache")
    await repository.start()
    await asyncio.to_thread(wait_until, lambda: repository.is_unloaded_idle(TINY))
    others, log = [f"other{number}" for number in range(6)], tmp_path / "log"
    gate, fetching, most, fetch = Event(), list[Path](), 0, Fetch.__call__

    def wait(one: Fetch, part: Path) -> None:
        nonlocal most
        fetching.append(part)
        most = max(most, len(fetching))
        gate.wait()
        fetch(one, part)
        fetching.remove(part)

    monkeypatch.setattr(Fetch, "__call__", wait)
    monkeypatch.setenv(LOG, str(log))
    for name in others:
        add_model(folder, name)
    loads = [asyncio.create_task(repository.load(name)) for name in others]
    try:
        contracts = [("contract.json", 0)] * len(others)
        await asyncio.to_thread(wait_until, lambda: [one for one in reads(log) if one in contracts] == contracts)
        async with asyncio.timeout(60):
            assert (await repository.acquire(TINY, "")).version == "1"
        await asyncio.to_thread(wait_until, lambda: len(fetching) >= 4)
    finally:
        gate.set()
    await asyncio.gather(*loads)
    assert most == 4


async def test_models_that_are_changed_together_are_those_that_the_store_now_has(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed once, before; a store that is away changes nothing."""
    _, repository = make(folder, tmp_path / "cache")
    await repository.start()
    add_model(folder, "other")
    listed, listings = Store.list, list[str]()

    def note(store: Store) -> dict[str, StoredFile]:
        listings.append(str(store))
        return listed(store)

    monkeypatch.setattr(Store, "list", note)
    await repository.serve_only(None)
    assert {model.name for model in repository.all()} == {"other", TINY}
    assert len(listings) == 1
    monkeypatch.setattr(Store, "list", fail)
    with pytest.raises(StartError, match="no network"):
        await repository.serve_only(["other"])
    assert {model.name for model in repository.all()} == {"other", TINY}


async def test_a_version_that_was_replaced_is_loaded_anew(folder: Path, tmp_path: Path) -> None:
    """And one that was not is left as it is."""
    _, repository = make(folder, tmp_path / "cache")
    await repository.start()
    first = repository.find(TINY, "1")
    await repository.load(TINY)
    assert repository.find(TINY, "1") is first
    edit_contract(folder, lambda contract: contract.update({"description": "another"}))
    await repository.load(TINY)
    assert repository.find(TINY, "1").contract.description == "another"


async def test_a_store_without_models_stops_the_start(folder: Path, tmp_path: Path, start: Serve) -> None:
    """With what was expected there."""
    shutil.rmtree(folder / TINY)
    (folder / "notes").touch()
    with pytest.raises(StartError, match=r"--models: file:///.*/bucket: holds no artifact; expected NAME/VERSION/"):
        async with start(models=f"file://{folder}", models_cache=tmp_path / "cache"):
            pass
