"""The models folder while the server runs: what is served, loaded and unloaded; services and the life cycle ask.

A version is loaded, checked and run once before requests move to it; the one it replaces answers the requests that it
has and is then freed. A version that cannot be loaded replaces nothing: it is listed with the reason.
"""

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from artifact.files import versions
from server.engine.engine import Engine
from server.engine.prepacked_weights import give_back_memory
from server.errors import InvalidInput, NotFound, NotPossible, ServerError, StartError
from server.repository.limits import Usage
from server.repository.loading import Fingerprint, LoadedModel, fingerprint, model_names
from server.repository.settings import ModelSettings, SettingsError, read_settings

_log = logging.getLogger(__name__)

_MOST_NAMED = 30

Load = Callable[[Path, Usage], LoadedModel]
Changed = Callable[[str, LoadedModel | None], Awaitable[None]]


class State(StrEnum):
    """What a version is, in the protocols' words."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class Entry:
    """A version in the index; the reason says why it is not served, or what of a reload failed."""

    name: str
    version: int
    state: State
    reason: str = ""


@dataclass(eq=False)
class _Model:
    """One name in the models folder."""

    usage: Usage
    served: dict[int, LoadedModel] = field(default_factory=dict)
    fingerprints: dict[int, Fingerprint] = field(default_factory=dict)
    states: dict[int, tuple[State, str]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asleep: bool = False
    loading: "asyncio.Task[None] | None" = None
    timer: asyncio.TimerHandle | None = None


class Repository:
    """The models by name; lives in the event loop."""

    def __init__(self, folder: Path, load: Load, changed: Changed) -> None:
        """Make a repository that has loaded nothing.

        Args:
            folder: The models folder.
            load: Loads one version; called in a thread.
            changed: Told the newest version served of a model whenever that changes; None for none.
        """
        self._folder = folder
        self._load = load
        self._changed = changed
        self._models: dict[str, _Model] = {}
        self._idle_tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load every model in the folder.

        Raises:
            StartError: The folder holds no artifact, or a model of which no version can be served.
        """
        self._loop = asyncio.get_running_loop()
        names = model_names(self._folder)
        if not names:
            raise StartError(f"--models: {self._folder}: holds no artifact; expected NAME/VERSION/contract.json")
        for name in names:
            try:
                await self.load(name)
            except ServerError as error:
                if not self._models[name].served:
                    raise StartError(str(error)) from error
                _log.error("%s", error)

    def all(self) -> list[LoadedModel]:
        """List every version served, sorted by name, the newest first."""
        return [model for _, one in sorted(self._models.items()) for model in reversed(one.served.values())]

    def find(self, name: str, version: str) -> LoadedModel:
        """Look up what a request names.

        Args:
            name: May be empty where there is a single model.
            version: An integer as text; empty for the newest.

        Raises:
            InvalidInput: The name is empty and there are several models, or the version is no integer.
            NotFound: No such model or version.
        """
        names = [known for known, one in sorted(self._models.items()) if one.served or one.asleep]
        if not name and len(names) != 1:
            raise InvalidInput("model", "empty", f"one of {', '.join(names)}" if names else "a model; none is served")
        served = self._models[name or names[0]].served if not name or name in self._models else {}
        if not served:
            raise NotFound(f"model: {name[:100]!r} is not served; expected {_one_of(names)}")
        if not version:
            return next(reversed(served.values()))
        number = next((number for number in served if str(number) == version), None)
        if number is None:
            expected = _one_of(map(str, served))
            raise NotFound(f"version: {version[:100]!r} of {name or names[0]} is not served; expected {expected}")
        return served[number]

    def label(self, name: str) -> str:
        """Name a model for metrics; nothing for what nobody has heard of."""
        if not name and len(self._models) == 1:
            return next(iter(self._models))
        return name if name in self._models else ""

    def versions_of(self, name: str) -> list[int]:
        """List the versions of a model that are served, the oldest first."""
        return list(self._models[name].served) if name in self._models else []

    def is_asleep(self, name: str) -> bool:
        """Whether a model was unloaded because nobody asked for it, and loads again for the next who does."""
        return name in self._models and self._models[name].asleep

    async def acquire(self, name: str, version: str) -> LoadedModel:
        """Like find; loads a model first that was unloaded because nobody asked for it."""
        name = name or self.label("")
        if self.is_asleep(name):
            one = self._models[name]
            await asyncio.shield(one.loading or self._start_load(name, one))
        return self.find(name, version)

    def index(self) -> list[Entry]:
        """List every version in the folder or still in memory."""
        names = {*self._models, *self._names()}
        return [entry for name in sorted(names) for entry in self._index(name)]

    def _index(self, name: str) -> list[Entry]:
        states = self._models[name].states if name in self._models else {}
        numbers = {*states, *versions(self._folder / name)}
        not_chosen = (State.UNAVAILABLE, "not loaded: not wanted by the model's settings, or new")
        return [Entry(name, number, *states.get(number, not_chosen)) for number in sorted(numbers)]

    async def load(self, name: str) -> None:
        """Serve a model as its folder now is: load what is new or was changed, unload what is no longer wanted.

        It ends whether or not its caller waits; one that is on its way may have looked too early, and is waited for.

        Raises:
            NotFound: The folder holds no such model.
            NotPossible: A version or the settings cannot be used; what was served goes on.
        """
        if not _is_name(name) or not versions(self._folder / name):
            raise NotFound(f"model: {name[:100]!r} is not in the models folder; expected {_one_of(self._names())}")
        one = self._models.setdefault(name, _Model(Usage(ModelSettings(), partial(self._when_idle, name))))
        while one.loading is not None:
            await asyncio.wait({one.loading})
        await asyncio.shield(self._start_load(name, one))

    def _start_load(self, name: str, one: _Model) -> "asyncio.Task[None]":
        one.loading = task = asyncio.ensure_future(self._load_all(name, one))
        task.add_done_callback(lambda done: _forget(one, done))
        return task

    async def _load_all(self, name: str, one: _Model) -> None:
        async with one.lock:
            try:
                settings = read_settings(self._folder / name)
            except SettingsError as error:
                raise NotPossible(str(error)) from error
            one.usage.settings, found = settings, versions(self._folder / name)
            wanted, failures = await self._load_versions(name, one, settings, found)
            one.asleep = one.asleep and not wanted
            await self._serve(name, one, wanted)
        if failures:
            raise NotPossible("; ".join(failures))

    async def _load_versions(
        self, name: str, one: _Model, settings: ModelSettings, found: list[int]
    ) -> tuple[dict[int, LoadedModel], list[str]]:
        """Load the versions that are wanted; returns these by number, and what went wrong."""
        wanted, failures = dict[int, LoadedModel](), list[str]()
        for number in settings.candidates(found):
            if len(wanted) == settings.most(found):
                break
            try:
                wanted[number] = await self._load_version(name, one, number)
            except Exception as raised:  # ONNX Runtime's exceptions have no common base
                error = raised if isinstance(raised, StartError) else StartError(f"{name} {number}: {raised}")
                failures.append(str(error))
                if number in one.served:  # what it was before goes on
                    wanted[number] = one.served[number]
                    one.states[number] = (State.READY, f"reload failed: {error}")
                else:
                    one.states[number] = (State.UNAVAILABLE, str(error))
        return wanted, failures

    async def _load_version(self, name: str, one: _Model, number: int) -> LoadedModel:
        folder = self._folder / name / str(number)
        if not folder.is_dir():
            raise StartError(f"{folder}: not there")
        seen = await asyncio.to_thread(fingerprint, folder)
        if number in one.served and one.fingerprints.get(number) == seen:
            return one.served[number]
        if number not in one.served:
            one.states[number] = (State.LOADING, "")
        loaded = await asyncio.to_thread(self._load, folder, one.usage)
        one.fingerprints[number] = seen
        _log.info("%s %d is loaded", name, number)
        return loaded

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that it has are answered.

        Raises:
            NotFound: It is not served.
        """
        one = self._models.get(name)
        if one is None or not (one.served or one.asleep):
            raise NotFound(f"model: {name[:100]!r} is not served; expected {_one_of(self._names())}")
        async with one.lock:
            one.asleep = False
            await self._serve(name, one, {})

    async def sync(self, name: str) -> None:
        """Follow a change in the folder, as the watcher saw it; what goes wrong is logged."""
        try:
            if versions(self._folder / name):
                await self.load(name)
            elif name in self._models and (self._models[name].served or self._models[name].asleep):
                await self.unload(name)
        except ServerError as error:
            _log.error("%s", error)
        except Exception:  # the watcher goes on
            _log.exception("%s could not be loaded", name)

    async def _serve(self, name: str, one: _Model, wanted: dict[int, LoadedModel]) -> None:
        """Move requests to these versions, and let go of the others."""
        before, one.served = one.served, dict(sorted(wanted.items()))
        for number, model in one.served.items():
            if one.states.get(number, (State.LOADING, ""))[0] != State.READY or before.get(number) is not model:
                one.states[number] = (State.READY, "")
        if not one.asleep:
            await self._changed(name, next(reversed(one.served.values()), None))
        if one.served and not one.usage.requests:
            self._when_idle(name)
        for number, model in before.items():
            if one.served.get(number) is not model:
                if number not in one.served:
                    one.states[number] = (State.UNLOADING, "")
                freed = weakref.finalize(model, self._free_soon, name, number)
                freed.atexit = False
        # The loop variable and `before` would keep the model.
        del before
        model = None  # type: ignore[assignment]

    def _free_soon(self, name: str, number: int) -> None:
        """Called wherever the last reference to a version goes away."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._freed, name, number)

    def _freed(self, name: str, number: int) -> None:
        states = self._models[name].states
        _log.info("%s %d is freed", name, number)
        if states.get(number, (None, ""))[0] == State.UNLOADING:
            del states[number]
            if (self._folder / name / str(number)).is_dir():
                states[number] = (State.UNAVAILABLE, "unloaded")
        left = next(iter(self.all()), None)
        self._loop.run_in_executor(None, _give_back, left.engine if left else None)

    def _names(self) -> list[str]:
        try:
            return model_names(self._folder)
        except StartError:  # it was there at the start
            return []

    def _when_idle(self, name: str) -> None:
        """Called when a model's last request has left."""
        one = self._models[name]
        seconds = one.usage.settings.unload_after_idle_seconds
        if one.timer:
            one.timer.cancel()
            one.timer = None
        if seconds is not None:
            one.timer = self._loop.call_later(seconds, self._fall_asleep, name)

    def _fall_asleep(self, name: str) -> None:
        one = self._models[name]
        one.timer = None
        if one.usage.requests or not one.served or one.lock.locked():
            return
        task = asyncio.ensure_future(self._sleep(name, one))
        self._idle_tasks.add(task)
        task.add_done_callback(self._idle_tasks.discard)

    async def _sleep(self, name: str, one: _Model) -> None:
        async with one.lock:
            if not one.usage.requests:
                one.asleep = True
                _log.info("%s is unloaded: nobody asked for %g s", name, one.usage.settings.unload_after_idle_seconds)
                await self._serve(name, one, {})


def _give_back(engine: Engine | None) -> None:
    """Return memory to the system; the arena is shared, so any engine that is left can shrink it."""
    gc.collect()
    if engine:
        engine.give_back_memory()
    else:
        give_back_memory()


def _forget(one: _Model, done: "asyncio.Task[None]") -> None:
    """End a load; what it raised has been told to those who waited, if anyone did."""
    one.loading = None
    if not done.cancelled():
        done.exception()


def _is_name(name: str) -> bool:
    """Whether it names a folder in the models folder, and not one outside."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\\" not in name and "\0" not in name


def _one_of(names: "list[str] | map[str]") -> str:
    listed = list(names)
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return f"one of {', '.join(listed[:_MOST_NAMED])}{more}" if listed else "a model; none is there"
