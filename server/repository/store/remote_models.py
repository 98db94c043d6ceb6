"""The models of a store, as ModelsFolder has those of a folder: listed when asked to, fetched when one is loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event

from artifact.contract import CONTRACT_FILE
from artifact.towers import TOWERS_FILE
from server.errors import StartError
from server.repository.models_folder import NOTHING_THERE, is_name
from server.repository.settings import SETTINGS_FILE
from server.repository.store.artifact import Artifact, Unfit, read_artifact
from server.repository.store.cache import Cache, Held
from server.repository.store.fetching import Fetch
from server.repository.store.store import Store, StoredFile

_MAX_SETTINGS_BYTES = 2**20
_NUMBER = re.compile("[1-9][0-9]*")
_DEPTH = 2  # NAME/VERSION

Stored = Mapping[str, StoredFile]


@dataclass(frozen=True)
class _Listing:
    """What lay in the store when it was last looked at.

    Attributes:
        versions: Files of each version by name and number; their paths are those within it.
        settings: The file of a model's settings, by name.
    """

    versions: Mapping[str, Mapping[int, Stored]] = field(default_factory=dict)
    settings: Mapping[str, StoredFile] = field(default_factory=dict)


class RemoteModels:
    """Models at an address of a store; whoever asks may wait for the network, so ask in a thread."""

    is_of_one = False  # its listing tells changes by name, whatever the address is of

    def __init__(self, url: str, cache: Cache, stopping: Event) -> None:
        """Look at nothing yet.

        Args:
            url: The address: of a folder of models, of one model, or of an artifact.
            cache: Where artifacts are kept.
            stopping: Set where the server stops.
        """
        self._store, self._cache, self._stopping = Store(url), cache, stopping
        self.folder = cache.of_store(str(self._store), url)
        self._listing = _Listing()
        self._settings = dict[str, StoredFile]()
        self._artifacts = dict[tuple[str, int], tuple[Stored, Artifact]]()
        self._unfit = dict[tuple[str, int], tuple[Stored, str]]()
        self._unfinished = set[tuple[str, int]]()

    def __str__(self) -> str:
        return str(self._store)

    def refresh(self) -> None:
        """List the store anew.

        Raises:
            StartError: It cannot be listed, or holds no artifact; what was seen before stays.
        """
        listing = _read_listing(self._store.list(), self._store.parts)
        if not listing.versions:
            raise StartError(f"--models: {self}: {NOTHING_THERE}")
        self._listing = listing
        for known in (self._artifacts, self._unfit):
            for name, number in tuple(known):
                if number not in listing.versions.get(name, ()):
                    known.pop((name, number), None)

    def stamps(self) -> dict[str, object]:
        """Return what changes with the files of each model, by name."""
        listing = self._listing
        return {name: (versions, listing.settings.get(name)) for name, versions in listing.versions.items()}

    def unfinished(self) -> set[str]:
        """Name the models of which a version could not be fetched, though another try may fare better."""
        return {name for name, number in tuple(self._unfinished) if number in self._listing.versions.get(name, ())}

    def names(self) -> list[str]:
        """List the models that have a version."""
        return sorted(self._listing.versions)

    def versions(self, name: str) -> list[int]:
        """List the versions of a model, the newest first."""
        return sorted(self._listing.versions.get(name, ()), reverse=True)

    def model(self, name: str) -> Path:
        """Return the folder in the cache where a model's settings lie, as the store has them.

        Raises:
            StartError: They cannot be fetched.
        """
        folder, file = self.folder / name, self._listing.settings.get(name)
        target = folder / SETTINGS_FILE
        try:
            if file is None:
                target.unlink(missing_ok=True)
            elif self._settings.get(name) != file or not target.exists():
                content = self._store.read(file, _MAX_SETTINGS_BYTES)
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with NamedTemporaryFile(prefix=f".{SETTINGS_FILE}-", dir=folder, delete=False) as new:
                    new.write(content)
                Path(new.name).replace(target)
                self._settings[name] = file
        except OSError as error:
            raise StartError(f"{target}: cannot be written: {error.strerror}") from error
        return folder

    def version(self, name: str, number: int) -> Held:
        """Fetch a version, where the cache does not have it; it stays there while the block lasts.

        Raises:
            Unfit: Its contract or a file is not what it must be; nothing is fetched again until it changes.
            StartError: It cannot be fetched.
            ShuttingDown: The server stops meanwhile.
        """
        stored = self._listing.versions.get(name, {}).get(number)
        if stored is None:
            raise StartError(f"{self}: {name}/{number} is not there")
        key = (name, number)
        if (unfit := self._unfit.get(key)) and unfit[0] == stored:
            raise Unfit(unfit[1])
        try:
            artifact = self._artifact(key, stored)
            fetch = Fetch(self._store, stored, artifact, self._stopping)
            held = self._cache.fetch(self.folder / name, number, artifact, fetch)
        except Unfit as error:
            self._unfit[key] = stored, str(error)
            raise
        except StartError:
            self._unfinished.add(key)
            raise
        self._unfinished.discard(key)
        return held

    def _artifact(self, key: tuple[str, int], stored: Stored) -> Artifact:
        """Read what a version is made of, where that may have changed: else the store need not be there."""
        if (known := self._artifacts.get(key)) is None or known[0] != stored:
            known = self._artifacts[key] = stored, read_artifact(self._store, stored)
        return known[1]


def _read_listing(files: Stored, root: tuple[str, ...]) -> _Listing:
    """Find the models among files; those of a whole folder go before one model, and that before an artifact."""
    found = (_read_at(files, root, depth) for depth in range(_DEPTH, -1, -1))
    return next((listing for listing in found if listing.versions), _Listing())


def _read_at(files: Stored, root: tuple[str, ...], depth: int) -> _Listing:
    """Read files as those of models whose versions lie so many folders below the address, which has the other names."""
    versions, settings = dict[str, dict[int, dict[str, StoredFile]]](), dict[str, StoredFile]()
    above = root[len(root) - (_DEPTH - depth) :]
    for path, file in files.items():
        *folders, last = path.split("/")
        place = (*above, *folders[:depth])
        if len(place) == _DEPTH and is_name(place[0]) and _NUMBER.fullmatch(place[1]):
            inside = "/".join((*folders[depth:], last))
            versions.setdefault(place[0], {}).setdefault(int(place[1]), {})[inside] = file
        elif len(place) == 1 and last == SETTINGS_FILE:
            settings[place[0]] = file
    return _Listing(_only_artifacts(versions), settings)


def _only_artifacts(versions: Mapping[str, Mapping[int, Stored]]) -> dict[str, dict[int, Stored]]:
    """Leave out what has no contract, and may be on its way into the store."""
    whole = {
        name: {number: stored for number, stored in ones.items() if {CONTRACT_FILE, TOWERS_FILE} & stored.keys()}
        for name, ones in versions.items()
    }
    return {name: ones for name, ones in whole.items() if ones}
