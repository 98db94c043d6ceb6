"""Where models lie: NAME/VERSION in the models folder, or less of it where that folder is a single model's.

Whatever fetches models into a container (KServe's storage initializer) puts there what a URI points at: the folder of
all models, that of one, or the artifact itself.
"""

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

from artifact.contract import CONTRACT_FILE, PLAIN_GRAPH
from artifact.files import versions
from artifact.towers import TOWERS_FILE
from server.errors import StartError

_CONTRACTS = (TOWERS_FILE, CONTRACT_FILE)
NOTHING_THERE = "holds no artifact; expected NAME/VERSION/contract.json, VERSION/contract.json or contract.json"


class NoRoom(StartError):
    """What is wanted finds no room on this machine beside what is being loaded and fetched."""


class Models(Protocol):
    """Where models are: in a folder (ModelsFolder), or in a store (store.remote_models.RemoteModels)."""

    @property
    def is_of_one(self) -> bool:
        """Whether it is the folder of a single model, or an artifact."""

    def refresh(self) -> None:
        """Look anew, where that takes long; what the other methods say is of then. Raises StartError."""

    def names(self) -> list[str]:
        """List the models; raises StartError."""

    def versions(self, name: str) -> list[int]:
        """List the versions of a model, the newest first."""

    def model(self, name: str) -> Path:
        """Return the folder on this machine where a model's settings lie; raises StartError."""

    def version(self, name: str, number: int) -> AbstractContextManager[Path]:
        """Have a version in a folder on this machine, which stays while the block lasts; raises StartError, NoRoom."""


@dataclass(frozen=True)
class _Only:
    """The single model whose folder the models folder is; the version where it is that version's."""

    name: str
    version: int | None


class ModelsFolder:
    """The folder that --models names; looks anew at every call, since what lies there changes."""

    def __init__(self, path: Path) -> None:
        self._given = path
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 -- names are those of the folders, not of links' ends

    def __str__(self) -> str:
        return str(self._given)

    @property
    def is_of_one(self) -> bool:
        """Whether it is a single model's, or an artifact."""
        return self._only() is not None

    def refresh(self) -> None:
        """Do nothing: every call looks."""

    def names(self) -> list[str]:
        """List the models that have a version and a name that callers can give; hidden folders are none.

        Raises:
            StartError: There is no such folder.
        """
        if not self._path.is_dir():
            raise StartError(f"--models: {self}: not a folder")
        if only := self._only():
            return [only.name]
        return [entry.name for entry in sorted(self._path.iterdir()) if _is_model(entry)]

    def versions(self, name: str) -> list[int]:
        """List the versions of a model, the newest first."""
        if not is_name(name):
            return []
        if found := versions(self._path / name):
            return found
        only = self._only()
        if only is None or name != only.name:
            return []
        return versions(self._path) if only.version is None else [only.version]

    def model(self, name: str) -> Path:
        """Return the folder where a model's settings and versions lie, or would."""
        if not versions(self._path / name) and (only := self._only()) and name == only.name:
            return self._path if only.version is None else self._path.parent
        return self._path / name

    def version(self, name: str, number: int) -> AbstractContextManager[Path]:
        """Return the folder of a version.

        Raises:
            StartError: There is none.
        """
        is_only = not versions(self._path / name) and self._only() == _Only(name, number)
        folder = self._path if is_only else self.model(name) / str(number)
        if not folder.is_dir():
            raise StartError(f"{folder}: not there")
        return nullcontext(folder)

    def _only(self) -> _Only | None:
        try:
            if any(map(_is_model, self._path.iterdir())):
                return None
            if found := versions(self._path):
                name, _ = _read_place(self._path / str(found[0])) or (self._path.name, 0)
                return _Only(name, None) if is_name(name) else None
            return self._only_artifact()
        except OSError:
            return None

    def _only_artifact(self) -> _Only | None:
        place = self._path
        if any((place / file).is_file() for file in _CONTRACTS):
            return _Only(*(_read_place(place) or (place.name, 1)))  # the load says what is wrong with it
        is_version = is_name(place.parent.name) and str(place.name) in map(str, versions(place.parent))
        if is_version and (place / PLAIN_GRAPH).is_file():
            return _Only(place.parent.name, int(place.name))
        return None


def _is_model(folder: Path) -> bool:
    return is_name(folder.name) and bool(versions(folder))


def _read_place(folder: Path) -> tuple[str, int] | None:
    """Say which name and version an artifact gives itself; None where it gives none that can be served, or is none."""
    for path in (folder / file for file in _CONTRACTS):
        if path.is_file():
            try:
                content = json.loads(path.read_bytes())
            except (OSError, ValueError):
                return None
            name, version = (content.get(key) if isinstance(content, dict) else None for key in ("name", "version"))
            if isinstance(name, str) and is_name(name) and type(version) is int and version > 0:
                return name, version
    return None


def is_name(name: str) -> bool:
    """Whether it names a folder in the models folder, and not one outside."""
    is_plain = not name.startswith(".") and "/" not in name and "\\" not in name and "\0" not in name
    return is_plain and bool(name) and PurePath(name).name == name  # on Windows C:x leads to that drive
