"""Which versions there are in the models folder, which are served, and what callers mean by a name."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from server.errors import InvalidInput, NotFound, StartError
from server.repository.limits import Usage
from server.repository.loading import Fingerprint, LoadedModel
from server.repository.models_folder import Models, ModelsFolder
from server.repository.waiting import WaitingThreads

Found = TypeVar("Found")

_MAX_NAMED = 30


class State(StrEnum):
    """What a version is, in the protocols' words."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


UNLOADED = (State.UNAVAILABLE, "unloaded")


@dataclass(frozen=True)
class Entry:
    """A version in the index; the reason says why it is not served, or what of a reload failed."""

    name: str
    version: int
    state: State
    reason: str = ""


@dataclass(eq=False)
class Model:
    """One name in the models folder.

    Attributes:
        usage: Requests for it, against its own limits.
        served: Versions that answer, by number, the oldest first.
        fingerprints: Of the folders that they were loaded from, and what of the settings is the engine's.
        states: Of every version that was ever looked at, with the reason.
        lock: Held while what is served changes; not while something is fetched.
        unloads: How often it was unloaded.
        is_unloaded_idle: Whether it is not loaded because nobody asks for it; it loads for the next who does.
        asked: When somebody last did, in turns of the repository's.
        loading: The load on its way.
        timer: Until it is unloaded when nobody asks.
    """

    usage: Usage
    served: dict[int, LoadedModel] = field(default_factory=dict)
    fingerprints: dict[int, tuple[Fingerprint, Hashable]] = field(default_factory=dict)
    states: dict[int, tuple[State, str]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unloads: int = 0
    is_unloaded_idle: bool = False
    writes: bool = False
    asked: int = 0
    loading: "asyncio.Task[bool] | None" = None
    timer: asyncio.TimerHandle | None = None


class Catalog:
    """The models by name; lives in the event loop."""

    def __init__(self, models: Path | Models, max_loaded: int = 0) -> None:
        self._max_loaded = max_loaded  # models; 0 for all
        self._folder: Models = ModelsFolder(models) if isinstance(models, Path) else models
        self._reader = WaitingThreads(1, "folder")
        self._lister = WaitingThreads(1, "list")
        self._models: dict[str, Model] = {}

    def all(self) -> list[LoadedModel]:
        """List every version served, sorted by name, the newest first."""
        return [model for _, one in sorted(self._models.items()) for model in reversed(one.served.values())]

    def find(self, name: str, version: str, *, writes: bool = False) -> LoadedModel:
        """Look up what a request names.

        Args:
            name: May be empty where there is a single model, or a single one that does or does not write; the latter
                where all are loaded.
            version: An integer as text; empty for the newest.
            writes: Whether what is asked for without a name is a model that writes text.

        Raises:
            InvalidInput: The name is empty and there are several such models, or the version is no integer.
            NotFound: No such model or version.
        """
        if not name and not (name := self.label("", writes=writes)):
            names = self._known()
            raise InvalidInput("model", "empty", f"one of {', '.join(names)}" if names else "a model; none is served")
        served = self._models[name].served if name in self._models else {}
        if not served:
            raise NotFound(f"model: {name[:100]!r} is not served; expected {one_of(self._known())}")
        if not version:
            return next(reversed(served.values()))
        number = next((number for number in served if str(number) == version), None)
        if number is None:
            expected = one_of(map(str, served))
            raise NotFound(f"version: {version[:100]!r} of {name} is not served; expected {expected}")
        return served[number]

    def label(self, name: str, *, writes: bool = False) -> str:
        """Name a model, for metrics too: as find does; nothing for what nobody has heard of."""
        if name:
            return name if name in self._models else ""
        names = self._known()
        if len(names) > 1 and not self._max_loaded:  # of one that was not loaded it is not known whether it writes
            names = [one for one in names if self._models[one].writes == writes]
        return names[0] if len(names) == 1 else ""

    def _known(self) -> list[str]:
        """Names that requests may give."""
        return [name for name, one in sorted(self._models.items()) if one.served or one.is_unloaded_idle]

    def loaded(self) -> list[str]:
        """Name the models that are loaded, or are being loaded."""
        return [name for name, one in sorted(self._models.items()) if one.served or one.loading]

    def versions_of(self, name: str) -> list[int]:
        """List the versions of a model that are served, the oldest first."""
        return list(self._models[name].served) if name in self._models else []

    def is_unloaded_idle(self, name: str) -> bool:
        """Whether a model is not loaded because nobody asks for it, and loads for the next who does."""
        return name in self._models and self._models[name].is_unloaded_idle

    async def index(self) -> list[Entry]:
        """List every version in the folder or still in memory."""
        found = await self._read(self._versions)
        return [entry for name in sorted({*self._models, *found}) for entry in self._index(name, found.get(name, []))]

    def _index(self, name: str, found: list[int]) -> list[Entry]:
        states = self._models[name].states if name in self._models else {}
        numbers = {*found, *(number for number, state in states.items() if state != UNLOADED)}
        why = "nobody has asked for it" if self.is_unloaded_idle(name) else "not wanted by the model's settings, or new"
        not_chosen = (State.UNAVAILABLE, f"not loaded: {why}")
        return [Entry(name, number, *states.get(number, not_chosen)) for number in sorted(numbers)]

    async def refresh(self) -> None:
        """Look anew at what there is, where that takes long; what was seen before is there meanwhile.

        Raises:
            StartError: It cannot be looked at; what was seen before stays.
        """
        await asyncio.get_running_loop().run_in_executor(self._lister, self._folder.refresh)

    async def is_of_one(self) -> bool:
        """Whether the models folder is a single model's, or an artifact."""
        return await self._read(lambda: self._folder.is_of_one)

    async def _read(self, look: Callable[[], Found]) -> Found:
        """Look into the folder: in one thread, since a network disk that hangs must hold neither the loop nor more."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, look)

    def _versions(self) -> dict[str, list[int]]:
        return {name: self._folder.versions(name) for name in self._names()}

    def _names(self) -> list[str]:
        try:
            return self._folder.names()
        except StartError:  # it was there at the start
            return []


def one_of(names: "list[str] | map[str]") -> str:
    """List what was expected, some names at most."""
    listed = list(names)
    more = f" and {len(listed) - _MAX_NAMED} more" if len(listed) > _MAX_NAMED else ""
    return f"one of {', '.join(listed[:_MAX_NAMED])}{more}" if listed else "a model; none is there"
