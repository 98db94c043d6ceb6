"""Models of a store: listed, fetched once, verified before they are anywhere, and refused with what is wrong."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import fsspec
import pytest

from server.errors import ShuttingDown, StartError
from server.repository.store import cache as caching
from server.repository.store import fetching, room
from server.repository.store import store as module
from server.repository.store.artifact import Unfit
from server.repository.store.cache import Cache, default_folder
from server.repository.store.locks import try_lock
from server.repository.store.remote_models import RemoteModels
from tests.faults.callers import wait_until
from tests.golden import GOLDEN_MODELS, GOLDEN_TOWERS
from tests.server.repository.folders import add_model, add_version, artifact, damage, edit_contract
from tests.server.repository.stores import GATE, LOG, WatchedStore, open_store, reads, watch_stores

ROOT = Path(__file__).parents[3]
TINY, CHUNK = "tiny-text", 16384
WEIGHTS_BYTES = (GOLDEN_MODELS / TINY / "1" / "weights.bin").stat().st_size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What lies in the store."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "bucket" / "models")
    return tmp_path / "bucket" / "models"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where it is kept."""
    return tmp_path / "cache"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is read of watched://, in small chunks, one after the other."""
    watch_stores()
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    monkeypatch.setattr(module, "_CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(module, "_MAX_CHUNKS", 1)
    monkeypatch.setattr(fetching, "_PAUSES_SECONDS", (0.0, 0.0))
    return tmp_path / "log"


@pytest.fixture
def memory() -> Iterator[str]:
    """A store in this process's memory."""
    files = fsspec.filesystem("memory")
    files.put(str(GOLDEN_MODELS), "/bucket/models", recursive=True)
    yield "memory://bucket/models"
    files.rm("/bucket", recursive=True)


def fetch(models: RemoteModels, name: str = TINY, number: int = 1) -> Path:
    """Fetch a version; returns where it is."""
    with models.version(name, number) as place:
        return Path(place)


def contents(place: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def kept(cache: Path) -> set[str]:
    """Names of what is whole in the cache, NAME/VERSION."""
    found = (path.relative_to(cache).parts for path in cache.glob("*/*/[0-9]*"))
    return {f"{name}/{place.partition('-')[0]}" for _, name, place in found}


def test_a_store_is_a_folder_of_models_one_model_or_an_artifact(folder: Path, cache: Path) -> None:
    """Versions by number; what has no contract, hidden folders and what lies deeper are no models."""
    add_version(folder, 10)
    for odd in (".hidden/1", "other/011", "other/1/deeper/2", "bare/x"):
        shutil.copytree(artifact(folder), folder / odd)
    (folder / "unfinished" / "1").mkdir(parents=True)
    (folder / "unfinished" / "1" / "weights.bin").write_bytes(b"x")
    for place in (folder, folder / TINY):
        models = open_store(f"file://{place}", cache)
        assert (models.names(), models.versions(TINY)) == ([TINY], [10, 1])
    models = open_store(f"file://{folder / TINY / '10'}", cache)
    assert (models.names(), models.versions(TINY)) == ([TINY], [10])


def test_what_is_fetched_is_the_artifact_and_nothing_beside_it(memory: str, cache: Path) -> None:
    """Byte by byte; a file that the contract does not list stays where it is."""
    fsspec.filesystem("memory").pipe("/bucket/models/tiny-text/1/notes.txt", b"x")
    place = fetch(open_store(memory, cache))
    assert contents(place) == contents(GOLDEN_MODELS / TINY / "1")
    assert place.parent.name == TINY


def test_what_is_there_is_not_fetched_again(folder: Path, cache: Path, log: Path) -> None:
    """By whoever asks; the contract is read, and after that nothing until it changes."""
    place = fetch(open_store(f"watched://{folder}", cache))
    assert [name for name, first in reads(log) if first == 0].count("weights.bin") == 1
    before = len(reads(log))
    models = open_store(f"watched://{folder}", cache)
    assert fetch(models) == fetch(models) == place
    assert {name for name, _ in reads(log)[before:]} == {"contract.json"}


def test_what_has_left_the_store_is_forgotten(folder: Path, cache: Path, log: Path, tmp_path: Path) -> None:
    """A server that follows a store for years does not keep the contracts of all that ever lay there."""
    add_version(folder, 2)
    models = open_store(f"watched://{folder}", cache)
    fetch(models)
    fetch(models, number=2)
    shutil.move(artifact(folder), tmp_path / "away")
    models.refresh()
    shutil.move(tmp_path / "away", artifact(folder))
    models.refresh()
    before = len(reads(log))
    fetch(models)
    fetch(models, number=2)
    assert {name for name, _ in reads(log)[before:]} == {"contract.json"}


def test_two_towers_are_fetched_with_what_each_lists(cache: Path) -> None:
    """Both folders."""
    source = GOLDEN_TOWERS / "tiny-clip" / "1"
    assert contents(fetch(open_store(f"file://{GOLDEN_TOWERS}", cache), "tiny-clip")) == contents(source)


def test_a_towers_contract_that_was_changed_is_refused(tmp_path: Path, cache: Path) -> None:
    """By its hash in towers.json."""
    shutil.copytree(GOLDEN_TOWERS, tmp_path / "towers")
    path = tmp_path / "towers" / "tiny-clip" / "1" / "text" / "contract.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(Unfit, match=r"text/contract.json: sha256 [0-9a-f]{64}; its contract says [0-9a-f]{64}: "):
        fetch(open_store(f"file://{tmp_path / 'towers'}", cache), "tiny-clip")


def test_a_flipped_byte_is_refused_and_not_asked_for_until_it_changes(folder: Path, cache: Path, log: Path) -> None:
    """With file, expected and found hash; nothing of it is where it could be loaded."""
    whole = (artifact(folder) / "weights.bin").read_bytes()
    damage(artifact(folder) / "weights.bin")
    found, expected = (
        hashlib.sha256(one).hexdigest() for one in ((artifact(folder) / "weights.bin").read_bytes(), whole)
    )
    models = open_store(f"watched://{folder}", cache)
    message = rf"^watched:///.*/models/tiny-text/1/weights.bin: sha256 {found}; its contract says {expected}: changed"
    with pytest.raises(Unfit, match=message):
        fetch(models)
    assert kept(cache) == set()
    assert reads(log).count(("weights.bin", 0)) == 2  # which came alike: so it was not damaged on its way
    before = len(reads(log))
    with pytest.raises(Unfit, match=message):
        fetch(models)
    assert len(reads(log)) == before
    assert models.unfinished() == set()
    (artifact(folder) / "weights.bin").write_bytes(whole)
    models.refresh()
    assert contents(fetch(models)) == contents(artifact(folder))


class Damaging:
    """Damages a file on its way, so many times, each time elsewhere."""

    def __init__(self, name: str, times: int) -> None:
        self._name, self._left, self._read = name, times, WatchedStore.cat_file

    def cat_file(self, store: WatchedStore, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Read what is there, or not quite."""
        found = bytearray(self._read(store, path, start, end))
        if self._left and path.endswith(self._name) and start == 0:
            found[self._left] ^= 0x80
            self._left -= 1
        return bytes(found)


@pytest.mark.parametrize(("name", "times"), [("weights.bin", 1), ("weights.bin", 2), ("contract.json", 1)])
def test_what_comes_damaged_is_fetched_again(
    name: str, times: int, folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad transfer is not a bad artifact."""
    damaging = Damaging(name, times)
    monkeypatch.setattr(WatchedStore, "cat_file", lambda *args, **kwargs: damaging.cat_file(*args, **kwargs))
    assert contents(fetch(open_store(f"watched://{folder}", cache))) == contents(artifact(folder))
    assert reads(log).count((name, 0)) == times + 1


def test_what_comes_damaged_each_time_is_given_up(
    folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three times, each of another content."""
    damaging = Damaging("weights.bin", 1000)
    monkeypatch.setattr(WatchedStore, "cat_file", lambda *args, **kwargs: damaging.cat_file(*args, **kwargs))
    with pytest.raises(Unfit, match=r"weights.bin: sha256 .*: changed or damaged, and not taken"):
        fetch(open_store(f"watched://{folder}", cache))
    assert reads(log).count(("weights.bin", 0)) == 3


@pytest.mark.parametrize("name", ["../secret", "..", "/etc/hostname", "a/b", "", "a\\b", "a\0b", "contract.json"])
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, cache: Path, name: str) -> None:
    """Before anything is fetched."""
    (folder / TINY / "secret").write_text("x")
    secret = hashlib.sha256(b"x").hexdigest()
    edit_contract(folder, lambda contract: contract["files"].update({name: secret}))
    with pytest.raises(Unfit, match=r"tiny-text/1/contract.json: .*files: '.*': expected "):
        fetch(open_store(f"file://{folder}", cache))
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("number", ["1", "..", "../../x"])
def test_a_stores_own_names_lead_nowhere(
    cache: Path, number: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that lists names which no folder can have: they are left out."""
    watch_stores()
    found = WatchedStore.find

    def find(self: WatchedStore, root: str, **kwargs: object) -> dict[str, object]:
        listed = dict(found(self, root, **kwargs))
        info = next(iter(listed.values()))
        return listed | {f"{root}/../{number}/1/contract.json": info, f"{root}/a\\b/1/contract.json": info}

    monkeypatch.setattr(WatchedStore, "find", find)
    assert open_store(f"watched://{folder}", cache).names() == [TINY]


def test_a_file_that_its_contract_lists_and_the_store_does_not_have_is_named(folder: Path, cache: Path) -> None:
    """It may be on its way: once it is there, the version is fetched."""
    shutil.move(artifact(folder) / "tokenizer.json", folder.parent)
    models = open_store(f"file://{folder}", cache)
    with pytest.raises(Unfit, match=r"tokenizer.json is not there, beside file:///.*/tiny-text/1/.*; its contract"):
        fetch(models)
    shutil.move(folder.parent / "tokenizer.json", artifact(folder))
    models.refresh()
    assert contents(fetch(models)) == contents(artifact(folder))


class Failing:
    """Raises where weights are read from a place on, so many times, and again from the next place on if asked to."""

    def __init__(self, times: int, first: int, again: int = 0) -> None:
        self.left, self._first, self._again, self._read = times, first, again, WatchedStore.cat_file

    def cat_file(self, store: WatchedStore, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Read, or raise."""
        found = self._read(store, path, start, end)
        if self.left and path.endswith("weights.bin") and start >= self._first:
            self.left -= 1
            if not self.left:
                self.left, self._first, self._again = self._again, start + CHUNK, 0
            raise ConnectionResetError(104, "Connection reset by peer")
        return found


def test_a_store_that_fails_midway_is_asked_again_for_the_rest(
    folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come is kept."""
    failing = Failing(2, 2 * CHUNK, again=2)
    monkeypatch.setattr(WatchedStore, "cat_file", lambda *args, **kwargs: failing.cat_file(*args, **kwargs))
    assert contents(fetch(open_store(f"watched://{folder}", cache))) == contents(artifact(folder))
    starts = [first for name, first in reads(log) if name == "weights.bin"]
    assert starts == [0, CHUNK, *[2 * CHUNK] * 3, *[3 * CHUNK] * 3, *range(4 * CHUNK, WEIGHTS_BYTES, CHUNK)]


def test_a_store_that_goes_on_failing_is_given_up_and_the_next_fetch_goes_on(
    folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it said; whoever follows the store knows that it may fare better."""
    failing = Failing(3, 2 * CHUNK)
    monkeypatch.setattr(WatchedStore, "cat_file", lambda *args, **kwargs: failing.cat_file(*args, **kwargs))
    models = open_store(f"watched://{folder}", cache)
    with pytest.raises(
        StartError, match=r"weights.bin: cannot be read: ConnectionResetError: .*reset by peer"
    ) as raised:
        fetch(models)
    assert not isinstance(raised.value, Unfit)
    assert (kept(cache), models.unfinished()) == (set(), {TINY})
    before = len(reads(log))
    fetch(models)
    assert next(first for name, first in reads(log)[before:] if name == "weights.bin") == 2 * CHUNK
    assert models.unfinished() == set()


def test_less_than_was_asked_for_is_no_answer(
    folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is more, as of a server without ranges."""
    monkeypatch.setattr(WatchedStore, "cat_file", lambda *_, **__: b"{}")
    with pytest.raises(StartError, match=r"contract.json: cannot be read: OSError: gave 2 bytes where [0-9]+ were"):
        fetch(open_store(f"watched://{folder}", cache))


def start_fetch(folder: Path, cache: Path) -> "subprocess.Popen[str]":
    """A process that fetches."""
    command = [sys.executable, "-m", "tests.server.repository.stores", f"watched://{folder}", str(cache), str(CHUNK)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_that_start_at_once_share_one_fetch(
    folder: Path, cache: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reads each file once; the others wait for it, then see it where it is."""
    gate = tmp_path / "gate"
    monkeypatch.setenv(GATE, f"weights.bin:{CHUNK}:{gate}")
    with start_fetch(folder, cache) as first, start_fetch(folder, cache) as second, start_fetch(folder, cache) as third:
        processes = (first, second, third)
        try:
            wait_until(lambda: ("weights.bin", CHUNK) in reads(log))
            said = [process.stdout.readline() for process in processes if process.stdout]
            assert sum("waiting for another process" in line for line in said) >= 2, said
            gate.touch()
            places = {process.communicate()[0].splitlines()[-1] for process in processes}
        finally:
            gate.touch()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(places) == 1
    files = [name for name, first_byte in reads(log) if first_byte == 0 and name != "contract.json"]
    assert sorted(files) == sorted(set(files))
    assert kept(cache) == {"tiny-text/1"}


def test_a_fetch_that_was_killed_is_gone_on_with(
    folder: Path, cache: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left is no artifact; the next one reads the rest, and nobody waits for a lock of the dead."""
    monkeypatch.setenv(GATE, f"weights.bin:{3 * CHUNK}:{tmp_path / 'gate'}")
    with start_fetch(folder, cache) as process:
        wait_until(lambda: ("weights.bin", 3 * CHUNK) in reads(log))
        process.kill()
    done = {name for name, _ in reads(log)} - {"contract.json", "weights.bin"}
    monkeypatch.delenv(GATE)
    assert kept(cache) == set()
    before = len(reads(log))
    assert contents(fetch(open_store(f"watched://{folder}", cache))) == contents(artifact(folder))
    after = reads(log)[before:]
    assert after[0] == ("contract.json", 0)
    assert {name for name, _ in after[1:]}.isdisjoint(done)


def test_a_damaged_copy_in_the_cache_is_mended(folder: Path, cache: Path, log: Path) -> None:
    """Only the file that is wrong is fetched again."""
    models = open_store(f"watched://{folder}", cache)
    damage(fetch(models) / "weights.bin")
    before = len(reads(log))
    assert contents(fetch(models)) == contents(artifact(folder))
    assert {name for name, _ in reads(log)[before:]} == {"weights.bin"}


def test_a_damaged_copy_stays_as_it_is_for_who_has_it_mapped(folder: Path, cache: Path) -> None:
    """Shortened, it would end a server that reads it there (SIGBUS)."""
    models = open_store(f"file://{folder}", cache)
    damaged = fetch(models) / "weights.bin"
    damage(damaged)
    content = damaged.read_bytes()
    with damaged.open("rb") as there:
        fetch(models)
        assert there.read() == content


def test_what_is_never_whole_is_given_up(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that does not keep what is written, or where others remove it each time for their own."""
    monkeypatch.setattr(caching, "is_whole", lambda *_: False)
    with pytest.raises(StartError, match=r"tiny-text/1-.*: was fetched 5 times, and was gone or damaged each time"):
        fetch(open_store(f"file://{folder}", cache))


def test_a_version_of_new_content_has_a_place_of_its_own(folder: Path, cache: Path) -> None:
    """Whoever loads the old one is not disturbed."""
    models = open_store(f"file://{folder}", cache)
    with models.version(TINY, 1) as before:
        edit_contract(folder, lambda contract: contract.update({"description": "another"}))
        models.refresh()
        after = fetch(models)
        assert before != after
        assert (before / "contract.json").exists()


def test_the_settings_of_a_model_come_from_the_store(folder: Path, cache: Path) -> None:
    """And go with it."""
    (folder / TINY / "config.toml").write_text("versions = 2\n")
    models = open_store(f"file://{folder}", cache)
    assert (models.model(TINY) / "config.toml").read_text() == "versions = 2\n"
    assert fetch(models).parent == models.model(TINY)
    (folder / TINY / "config.toml").unlink()
    models.refresh()
    assert not (models.model(TINY) / "config.toml").exists()


def test_settings_are_written_by_containers_that_share_a_cache(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of the same number, each in its container, that start at once."""
    (folder / TINY / "config.toml").write_text("versions = 2\n")
    first, second = (open_store(f"file://{folder}", cache) for _ in range(2))
    replace = Path.replace

    def after_another(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        second.model(TINY)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", after_another)
    assert (first.model(TINY) / "config.toml").read_text() == "versions = 2\n"
    assert [path.name for path in first.model(TINY).iterdir()] == ["config.toml"]


def test_an_artifact_larger_than_the_cache_may_be_is_refused(folder: Path, cache: Path, log: Path) -> None:
    """Before it is fetched."""
    with pytest.raises(Unfit, match=r"has [0-9]+ bytes; expected at most 100000 \(--models-cache-bytes\)"):
        fetch(open_store(f"watched://{folder}", cache, max_bytes=100_000))
    assert {name for name, _ in reads(log)} == {"contract.json"}


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is wanted, and what there is."""
    usage = shutil.disk_usage(folder)._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StartError, match=r"[0-9]{6} bytes are to be fetched; .*/cache has 5 free"):
        fetch(open_store(f"watched://{folder}", cache))
    assert {name for name, _ in reads(log)} == {"contract.json"}


def test_what_was_not_used_for_longest_makes_room_unless_it_is_being_loaded(folder: Path, cache: Path) -> None:
    """Without a limit nothing is removed."""
    for name in ("b", "c", "d"):
        add_model(folder, name)
    size = sum(path.stat().st_size for path in artifact(folder).iterdir())
    models = open_store(f"file://{folder}", cache, max_bytes=size * 5 // 2)
    with models.version(TINY, 1) as place:
        os.utime(place, (0, 0))
        fetch(models, "b")
        fetch(models, "c")
        assert kept(cache) == {"tiny-text/1", "c/1"}
    os.utime(place, (0, 0))
    fetch(models, "d")
    assert kept(cache) == {"c/1", "d/1"}
    unlimited = open_store(f"file://{folder}", cache)
    for name in (TINY, "b"):
        fetch(unlimited, name)
    assert kept(cache) == {"tiny-text/1", "b/1", "c/1", "d/1"}


def size_of(folder: Path) -> int:
    """Bytes of all files below it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def gated(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file without which no weights come."""
    monkeypatch.setenv(GATE, f"weights.bin:0:{tmp_path / 'gate'}")
    return tmp_path / "gate"


def test_versions_that_are_fetched_at_once_have_room_together_or_are_refused(
    folder: Path, cache: Path, log: Path, gated: Path
) -> None:
    """What is under way counts as a whole before it is there; what has no room beside it is refused unfetched."""
    for name in ("b", "c"):
        add_model(folder, name)
    size = size_of(artifact(folder))
    models = open_store(f"watched://{folder}", cache, max_bytes=size * 5 // 2)
    with ThreadPoolExecutor(2) as threads:
        try:
            fetching = [threads.submit(fetch, models, name) for name in (TINY, "b")]
            wait_until(lambda: reads(log).count(("weights.bin", 0)) == 2)
            before = len(reads(log))
            message = r"/c/1-.*: has (\d+) bytes, and what is being loaded and fetched (\d+); expected at most"
            with pytest.raises(StartError, match=message) as raised:
                fetch(models, "c")
            (one, others), *_ = re.findall(message, str(raised.value))
            assert int(others) // int(one) == 2
            assert not isinstance(raised.value, Unfit)
            assert {name for name, _ in reads(log)[before:]} == {"contract.json"}
        finally:
            gated.touch()
        assert {future.result().parent.name for future in fetching} == {TINY, "b"}
    fetch(models, "c")
    assert len(kept(cache)) == 2


def test_the_bound_of_the_cache_holds_while_something_is_fetched(
    folder: Path, cache: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was left by fetches that were killed: more than the store has, and a promise that nobody keeps."""
    add_model(folder, "b")
    size, sizes, read = size_of(artifact(folder)), list[int](), WatchedStore.cat_file
    unlimited = open_store(f"watched://{folder}", cache)
    room.lock_of(fetch(unlimited)).write_text(str(size * 9))
    left = (place := fetch(unlimited, "b")).rename(room.part_of(place))
    (left / "tokenizer.json").unlink()
    with (left / "weights.bin").open("ab") as weights:
        weights.write(bytes(size // 2))

    def measure(store: WatchedStore, path: str, *where: Any) -> bytes:
        if not path.endswith("contract.json"):  # which tells how much is coming
            sizes.append(sum(map(size_of, cache.glob("*/*/*-*"))))
        return bytes(read(store, path, *where))

    monkeypatch.setattr(WatchedStore, "cat_file", measure)
    fetch(open_store(f"watched://{folder}", cache, max_bytes=size), "b")
    assert kept(cache) == {"b/1"}
    assert max(sizes) <= size


def test_a_disk_has_room_for_what_is_promised_to_others(
    folder: Path, cache: Path, log: Path, gated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or both would be cut off when it is full."""
    add_model(folder, "b")
    size = size_of(artifact(folder))
    usage = shutil.disk_usage(folder)._replace(free=size + WEIGHTS_BYTES // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    models = open_store(f"watched://{folder}", cache)
    with ThreadPoolExecutor(1) as threads:
        try:
            fetching = threads.submit(fetch, models)
            wait_until(lambda: ("weights.bin", 0) in reads(log))
            with pytest.raises(StartError, match=r"[0-9]+ bytes are .* free, [0-9]+ of which are promised to other"):
                fetch(models, "b")
        finally:
            gated.touch()
        room.lock_of(fetching.result()).write_text(str(size * 9))  # as one leaves it that is killed
    assert fetch(models, "b").parent.name == "b"


@pytest.mark.parametrize(("where", "name", "asked"), [(Path, "is_dir", "{}"), (room, "try_lock", ".{}.lock")])
def test_what_somebody_removes_while_room_is_made_is_room(
    where: Any, name: str, asked: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no error: since it was listed, or measured."""
    add_model(folder, "b")
    size = sum(path.stat().st_size for path in artifact(folder).iterdir())
    models = open_store(f"file://{folder}", cache, max_bytes=size * 3 // 2)
    place, look = fetch(models), getattr(where, name)

    def remove(path: Path, **kwargs: bool) -> object:
        found = look(path, **kwargs)
        if path == place.with_name(asked.format(place.name)):
            shutil.rmtree(place, ignore_errors=True)
        return found

    monkeypatch.setattr(where, name, remove)
    fetch(models, "b")
    assert kept(cache) == {"b/1"}


def test_a_server_that_stops_waits_for_no_other_process(folder: Path, cache: Path) -> None:
    """Nor for what is on its way."""
    stopping = Event()
    models = open_store(f"file://{folder}", cache, stopping=stopping)
    place = fetch(models)
    lock = try_lock(place.with_name(f".{place.name}.lock"))
    assert lock
    stopping.set()
    with lock, pytest.raises(ShuttingDown):
        fetch(models)
    add_version(folder, 2)
    models.refresh()
    with pytest.raises(ShuttingDown):
        fetch(models, TINY, 2)
    assert kept(cache) == {"tiny-text/1"}


def test_a_lock_is_let_go_of_where_what_it_is_for_fails(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or no process could replace or remove the copy while this one lives."""
    models = open_store(f"file://{folder}", cache)
    place = fetch(models)
    monkeypatch.setattr(os, "utime", deny)
    with pytest.raises(StartError, match="cannot be written: Permission denied"):
        fetch(models)
    lock = try_lock(place.with_name(f".{place.name}.lock"))
    assert lock
    with lock:
        pass


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/models", r"--models: s3://bucket/models: needs the package s3fs: pip install s3fs"),
        ("gs://bucket", r"--models: gs://bucket: needs the package gcsfs: pip install gcsfs"),
        ("az://bucket", r"--models: az://bucket: needs the package adlfs: pip install adlfs"),
        ("http://user:word@host/x", r"--models: http://\*\*\*@host/x: needs the package aiohttp: pip install aiohttp"),
        ("s4://bucket", r"--models: s4://bucket: Protocol not known: s4; expected s3://, .*, file://, memory://"),
        ("memory://nowhere", r"--models: memory://nowhere: cannot be listed: not there"),
    ],
)
def test_an_address_that_cannot_be_asked_says_what_is_missing(
    url: str, message: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package and how it is installed, wherever another one is."""
    for package in ("s3fs", "gcsfs", "adlfs", "aiohttp", "fsspec.implementations.http"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StartError, match=message):
        open_store(url, cache)


def test_without_fsspec_the_extra_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip takes it."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(StartError, match=r"needs the package fsspec: pip install 'regard\[store\]'"):
        open_store("s3://bucket", cache)


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError("Access Denied"),
            "PermissionError: Access Denied; expected credentials that may",
        ),
        (NoCredentialsError("Unable to locate"), "NoCredentialsError: Unable to locate; expected credentials that may"),
        (OSError("Could not connect to http://me:secret@host"), r"OSError: Could not connect to http://\*\*\*@host$"),
        (FileNotFoundError("No such bucket"), r"not there \(No such bucket\)"),
    ],
)
def test_what_a_store_says_is_told(
    error: Exception, message: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without secrets, and with what to do about it."""
    watch_stores()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(WatchedStore, "find", fail)
    with pytest.raises(StartError, match=f"^--models: watched://.*: cannot be listed: {message}"):
        open_store(f"watched://{folder}", cache)


def test_a_store_that_has_nothing_any_more_is_no_news(folder: Path, cache: Path) -> None:
    """A share that is not mounted looks like that: what was seen before stays."""
    models = open_store(f"file://{folder}", cache)
    shutil.move(folder / TINY, folder.parent)
    (folder / "readme").touch()
    with pytest.raises(StartError, match=r"holds no artifact; expected NAME/VERSION/contract.json"):
        models.refresh()
    assert models.names() == [TINY]


def test_a_contract_that_is_none_is_told_with_its_place(folder: Path, cache: Path) -> None:
    """In the store."""
    (artifact(folder) / "contract.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(Unfit, match=r"^file:///.*/models/tiny-text/1/contract.json: version: Field required"):
        fetch(open_store(f"file://{folder}", cache))


def deny(*_: object, **__: object) -> None:
    """As the operating system does of what lies in a folder that this user may not enter."""
    raise PermissionError(errno.EACCES, "Permission denied")


def test_the_cache_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the caches; in the temporary folder for who has no home; nowhere that others may write to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert Cache(None, 0, Event()).folder == tmp_path / "caches" / "regard" / "models"
    (tmp_path / "caches" / "regard" / "models").chmod(0o777)
    with pytest.raises(StartError, match=r"--models-cache: .*: others may write to it; expected a folder of this user"):
        Cache(None, 0, Event())
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", deny)  # as of another user's home
        assert default_folder() == tmp_path / f"regard-models-{os.getuid()}"
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"--models-cache: .*/file/x: cannot be made: Not a directory"):
        Cache(tmp_path / "file" / "x", 0, Event())
