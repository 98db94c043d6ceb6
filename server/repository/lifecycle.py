"""How models are loaded and unloaded while the server runs.

A version is loaded, checked and run once before requests move to it; the one it replaces answers the requests that it
has and is then freed. A version that cannot be loaded replaces nothing: it is listed with the reason.
"""

import asyncio
import gc
import itertools
import logging
import weakref
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from server.engine.engine import Engine
from server.errors import NotFound, NotPossible, ServerError, StartError
from server.memory import give_back_memory
from server.repository.catalog import UNLOADED, Catalog, Found, Model, State, one_of
from server.repository.limits import Usage
from server.repository.loading import LoadedModel, fingerprint
from server.repository.models_folder import NOTHING_THERE, Models, NoRoom
from server.repository.settings import ModelSettings, SettingsError, read_settings
from server.repository.waiting import WaitingThreads

_log = logging.getLogger(__name__)
_MAX_FETCHES = 64  # threads that wait for a store; it has a bound of its own for what is large

Load = Callable[[Path, Usage], LoadedModel]
Try = Callable[[Path], Awaitable[None]]
Changed = Callable[[str, LoadedModel | None], Awaitable[None]]
Tell = Callable[[list[str]], None]


async def _trust(folder: Path) -> None:
    """Load a version without trying it first."""


def _tell_nobody(names: list[str]) -> None:
    """Keep to oneself what is loaded."""


class Repository(Catalog):
    """The models by name, and their lives; lives in the event loop."""

    def __init__(
        self,
        models: Path | Models,
        load: Load,
        changed: Changed,
        try_out: Try = _trust,
        *,
        max_loaded: int = 0,
        tell: Tell = _tell_nobody,
    ) -> None:
        """Make a repository that has loaded nothing.

        Args:
            models: The models folder, or models elsewhere.
            load: Loads one version; called in a thread.
            changed: Told the newest version served of a model whenever that changes; None for none.
            try_out: Sees whether a version can be loaded, before it is; raises StartError where it cannot.
            max_loaded: Models that are loaded at a time, each when it is first asked for; 0 loads all at once.
            tell: Told which models are loaded or being loaded, whenever that may have changed.
        """
        super().__init__(models, max_loaded)
        self._turns = itertools.count(1)
        self._room = asyncio.Lock()  # who has it may load; nobody waits for a store meanwhile
        self._tell = tell
        self._fetchers = WaitingThreads(_MAX_FETCHES, "fetch")
        self._load = load
        self._changed = changed
        self._try_out = try_out
        self._no_room = set[asyncio.Task[bool] | None]()  # loads that wait for others' to find room on the disk
        self._idle_tasks: set[asyncio.Task[None]] = set()

    async def start(self, names: Collection[str] | None = None, *, strict: bool = False) -> None:
        """Load models; one that cannot be loaded is listed with its reason.

        Args:
            names: Of the models; None for all that the folder has.
            strict: Whether every model must have a version that can be served.

        Raises:
            NotFound: The folder has none of such a name.
            StartError: The folder holds no artifact, or no model that can be served; or none is loaded yet, and every
                one must be.
        """
        if strict and self._max_loaded:
            raise StartError("--strict-models: True; expected False with --max-loaded-models, which loads none yet")
        self._loop = asyncio.get_running_loop()
        names = await self._look(names)
        failures = [reason for name in names if (reason := await self._start_model(name))]
        if failures and (strict or len(failures) == len(names)):
            raise StartError("; ".join(failures))

    async def _look(self, wanted: Collection[str] | None) -> list[str]:
        """Look anew, and list the models that are wanted, None for all.

        Raises:
            NotFound: There is none of such a name.
            StartError: There are none, or they cannot be looked at.
        """
        await self.refresh()
        names = await self._read(self._folder.names)
        if not names:
            raise StartError(f"--models: {self._folder}: {NOTHING_THERE}")
        for name in wanted or ():
            if name not in names:
                raise NotFound(f"model: {name[:100]!r} is not in the models folder; expected {one_of(names)}")
        return names if wanted is None else sorted(wanted)

    async def _start_model(self, name: str) -> str:
        """Load a model; returns why nothing of it is served."""
        try:
            await self._follow(name, at_once=not self._max_loaded)
        except ServerError as error:
            if name not in self._models or not self._models[name].served:
                _log.error("%s is not served: %s", name, error)
                return str(error)
            _log.error("%s", error)
        return ""

    async def acquire(self, name: str, version: str, *, writes: bool = False) -> LoadedModel:
        """Like find; loads a model first that is not loaded because nobody asks for it."""
        one = self._models.get(name)
        if one and one.served and not version:
            one.asked = next(self._turns)
            return next(reversed(one.served.values()))
        name = name or self.label("", writes=writes)
        if one := self._models.get(name):
            one.asked = next(self._turns)
            while one.is_unloaded_idle and await asyncio.shield(one.loading or self._start_load(name, one)):
                pass  # another may have taken its room before its caller's turn
        return self.find(name, version, writes=writes)

    async def load(self, name: str) -> None:
        """Serve a model as its folder now is: load what is new or was changed, unload what is no longer wanted.

        It ends whether or not its caller waits; one that is on its way may have looked too early, and is waited for.

        Raises:
            NotFound: The folder holds no such model.
            NotPossible: A version or the settings cannot be used, or a store cannot be listed; what was served goes on.
        """
        try:
            await self.refresh()
        except StartError as error:
            raise NotPossible(str(error)) from error
        await self._follow(name)

    async def _follow(self, name: str, *, at_once: bool = True) -> None:
        """Serve a model as its folder was when it was last looked at; raises as load.

        Args:
            name: Of the model.
            at_once: Whether one that is not loaded is, and not when somebody asks for it.
        """
        if not await self._read(lambda: self._folder.versions(name)):
            names = await self._read(self._names)
            raise NotFound(f"model: {name[:100]!r} is not in the models folder; expected {one_of(names)}")
        one = self._models.setdefault(name, Model(Usage(ModelSettings(), partial(self._when_idle, name))))
        while True:
            while one.loading is not None:
                await asyncio.wait({one.loading})
            if not (at_once or one.served):
                one.is_unloaded_idle = True
                await self._changed(name, None)
                return
            if not (await asyncio.shield(self._start_load(name, one)) and at_once and one.is_unloaded_idle):
                return

    def _start_load(self, name: str, one: Model) -> "asyncio.Task[bool]":
        def forget(done: "asyncio.Task[bool]") -> None:
            _forget(one, done)
            self._tell(self.loaded())

        one.loading = task = asyncio.ensure_future(self._load_all(name, one))
        task.add_done_callback(forget)
        self._tell(self.loaded())
        return task

    async def _load_all(self, name: str, one: Model) -> bool:
        """Load what is wanted of a model; returns whether there is any, or was until somebody unloaded it."""
        unloads = one.unloads
        try:
            settings = await self._fetch(lambda: read_settings(self._folder.model(name)))
        except (SettingsError, StartError) as error:
            raise NotPossible(str(error)) from error
        one.usage.settings, found = settings, await self._read(lambda: self._folder.versions(name))
        try:
            wanted, failures = await self._load_versions(name, one, unloads, found)
            async with one.lock:
                _check_wanted(one, unloads)
                one.is_unloaded_idle = one.is_unloaded_idle and not wanted
                await self._serve(name, one, {number: one.served[number] for number in wanted})
        except _UnloadedMeanwhile:
            return True
        if failures:
            raise NotPossible("; ".join(failures))
        return bool(wanted)

    async def _load_versions(self, name: str, one: Model, unloads: int, found: list[int]) -> tuple[set[int], list[str]]:
        """Load the versions that are wanted, and serve each; returns their numbers, and what went wrong."""
        wanted, failures, settings = set[int](), list[str](), one.usage.settings
        for number in settings.candidates(found):
            if len(wanted) == settings.max_served(found):
                break
            try:
                await self._load_version(name, one, number, unloads)
                wanted.add(number)
            except _UnloadedMeanwhile:
                one.states[number] = UNLOADED
                raise
            except Exception as raised:  # ONNX Runtime's exceptions have no common base
                error = raised if isinstance(raised, StartError) else StartError(f"{name} {number}: {raised}")
                failures.append(str(error))
                if number in one.served:  # what it was before goes on
                    wanted.add(number)
                    one.states[number] = (State.READY, f"reload failed: {error}")
                else:
                    one.states[number] = (State.UNAVAILABLE, str(error))
        return wanted, failures

    async def _load_version(self, name: str, one: Model, number: int, unloads: int) -> None:
        """Load a version and serve it; only what a store has no part in keeps others waiting."""
        if number not in one.served:
            one.states[number] = (State.LOADING, "")
        with await self._fetch_version(name, number) as folder:
            async with self._room if self._max_loaded else nullcontext(), one.lock:
                _check_wanted(one, unloads)
                await self._load_from(folder, name, one, number)

    async def _fetch_version(self, name: str, number: int) -> AbstractContextManager[Path]:
        """Have a version on this machine; with a bound of models, once it finds room there beside others.

        Raises:
            NoRoom: It finds none, and no other load is under way that does.
        """
        load = self._models[name].loading
        while True:
            others = {one.loading for one in self._models.values() if one.loading} - {load}
            try:
                return await self._fetch(lambda: self._folder.version(name, number))
            except NoRoom:
                if not self._max_loaded or not (others := others - self._no_room):
                    raise
            self._no_room.add(load)
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
            self._no_room.discard(load)

    async def _fetch(self, what: Callable[[], Found]) -> Found:
        """Ask for what a store may have to send, a few at a time, so that what hangs holds up no look into a folder."""
        return await self._loop.run_in_executor(self._fetchers, what)

    async def _load_from(self, folder: Path, name: str, one: Model, number: int) -> None:
        seen = await asyncio.to_thread(fingerprint, folder), one.usage.settings.of_engine
        if number in one.served and one.fingerprints.get(number) == seen:
            return
        await self._try_out(folder)
        await self._make_room(one)
        loaded = await asyncio.to_thread(self._load, folder, one.usage)
        if (found := f"{loaded.name}/{loaded.version}") != f"{name}/{number}":
            raise StartError(f"{folder}: holds {found}; expected {name}/{number}")
        one.fingerprints[number] = seen
        _log.info("%s %d is loaded", name, number)
        one.is_unloaded_idle = False
        await self._serve(name, one, {**one.served, number: loaded})

    async def _make_room(self, wanted: Model) -> None:
        """Let go of what was not asked for longest until one more may be loaded; of what is in use last.

        That answers the requests that it has, and is freed then.
        """
        while self._max_loaded:
            others = [(name, one) for name, one in self._models.items() if one.served and one is not wanted]
            if len(others) < self._max_loaded:
                return
            name, one = min(others, key=lambda other: (other[1].usage.requests > 0, other[1].asked))
            async with one.lock:
                if one.served:
                    await self._set_aside(name, one, "another is asked for (--max-loaded-models)")

    async def _set_aside(self, name: str, one: Model, why: str) -> None:
        """Unload a model until somebody asks for it; its lock is held."""
        one.is_unloaded_idle = True
        one.unloads += 1
        _log.info("%s is unloaded: %s", name, why)
        await self._serve(name, one, {})

    async def unload(self, name: str) -> None:
        """Stop serving a model; requests that it has are answered.

        Raises:
            NotFound: It is not served.
        """
        one = self._models.get(name)
        if one is None or not (one.served or one.is_unloaded_idle):
            names = await self._read(self._names)
            raise NotFound(f"model: {name[:100]!r} is not served; expected {one_of(names)}")
        async with one.lock:
            one.is_unloaded_idle = False
            one.unloads += 1
            await self._serve(name, one, {})

    async def sync(self, name: str) -> None:
        """Follow a change in the folder, as the watcher saw it; what goes wrong is logged."""
        try:
            if await self._read(lambda: self._folder.versions(name)):
                await self._follow(name, at_once=not self._max_loaded)
            elif name in self._models and (self._models[name].served or self._models[name].is_unloaded_idle):
                await self.unload(name)
        except ServerError as error:
            _log.error("%s", error)
        except Exception:  # the watcher goes on
            _log.exception("%s could not be loaded", name)

    async def serve_only(self, names: Collection[str] | None) -> None:
        """Serve models as their folders now are, and no others; one that cannot be loaded is logged.

        Args:
            names: Of the models; None for all that the folder has.

        Raises:
            NotFound: The folder has none of such a name; nothing has changed.
            StartError: It has no model, or cannot be looked at; likewise.
        """
        wanted = await self._look(names)
        for name in wanted:
            await self.sync(name)
        for name in self._known():
            if name not in wanted:
                with suppress(NotFound):  # somebody else has unloaded it
                    await self.unload(name)

    async def _serve(self, name: str, one: Model, wanted: dict[int, LoadedModel]) -> None:
        """Move requests to these versions, and let go of the others."""
        before, one.served = one.served, dict(sorted(wanted.items()))
        for number, model in one.served.items():
            one.writes = model.contract.generation is not None
            if one.states.get(number, (State.LOADING, ""))[0] != State.READY or before.get(number) is not model:
                one.states[number] = (State.READY, "")
        if not one.is_unloaded_idle:
            await self._changed(name, next(reversed(one.served.values()), None))
        self._tell(self.loaded())
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
            states[number] = UNLOADED
        left = next(iter(self.all()), None)
        self._loop.run_in_executor(None, _give_back, left.engine if left else None)

    def _when_idle(self, name: str) -> None:
        """Called when a model's last request has left."""
        one = self._models[name]
        seconds = one.usage.settings.unload_after_idle_seconds
        if one.timer:
            one.timer.cancel()
            one.timer = None
        if seconds is not None:
            one.timer = self._loop.call_later(seconds, self._unload_when_idle, name)

    def _unload_when_idle(self, name: str) -> None:
        one = self._models[name]
        one.timer = None
        if one.usage.requests or not one.served or one.lock.locked():
            return
        task = asyncio.ensure_future(self._unload_idle(name, one))
        self._idle_tasks.add(task)
        task.add_done_callback(self._idle_tasks.discard)

    async def _unload_idle(self, name: str, one: Model) -> None:
        async with one.lock:
            if not one.usage.requests:
                seconds = one.usage.settings.unload_after_idle_seconds
                await self._set_aside(name, one, f"nobody asked for {seconds:g} s")


class _UnloadedMeanwhile(Exception):
    """A model was unloaded while something of it was fetched."""


def _check_wanted(one: Model, unloads: int) -> None:
    """Give a load up where the model was unloaded since it began; the model's lock is held."""
    if one.unloads != unloads:
        raise _UnloadedMeanwhile


def _give_back(engine: Engine | None) -> None:
    """Return memory to the system; the arena is shared, so any engine that is left can shrink it."""
    gc.collect()
    if engine:
        engine.give_back_memory()
    else:
        give_back_memory()


def _forget(one: Model, done: "asyncio.Task[bool]") -> None:
    """End a load; what it raised has been told to those who waited, if anyone did."""
    one.loading = None
    if not done.cancelled():
        done.exception()
