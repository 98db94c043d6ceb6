"""Models folders, whole and damaged, and repositories on them."""

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any

from server.engine.device import Instances, choose_devices
from server.repository.lifecycle import Repository
from server.repository.limits import Usage
from server.repository.loading import LoadedModel, load_model
from server.repository.models_folder import Models, ModelsFolder
from tests.faults.callers import wait_until

DEVICES = choose_devices("cpu")


def artifact(folder: Path, version: int = 1) -> Path:
    """The folder of a version."""
    return folder / "tiny-text" / str(version)


def edit_contract(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the contract of version 1."""
    path = artifact(folder) / "contract.json"
    contract = json.loads(path.read_text())
    change(contract)
    path.write_text(json.dumps(contract))


async def nobody_cares(name: str, newest: LoadedModel | None) -> None:
    """Take the news that something else is served."""


class SlowModels(ModelsFolder):
    """A models folder whose versions come as slowly as from a store.

    Attributes:
        asked: Names and versions, in the order in which they were asked for.
        gates: What has to be set before some come, by name and version.
    """

    def __init__(self, path: Path, *held: tuple[str, int]) -> None:
        super().__init__(path)
        self.asked = list[tuple[str, int]]()
        self.gates = {one: Event() for one in held}

    def version(self, name: str, number: int) -> AbstractContextManager[Path]:
        """Say who asks, and wait for the gate."""
        self.asked.append((name, number))
        if gate := self.gates.get((name, number)):
            assert gate.wait(600)
        return super().version(name, number)

    async def wait_for(self, name: str, number: int) -> None:
        """Wait until somebody asks."""
        await asyncio.to_thread(wait_until, lambda: (name, number) in self.asked)


def make(folder: Path | Models, **options: Any) -> Repository:
    """A repository with one thread that has loaded nothing."""

    def load_one(path: Path, usage: Usage) -> LoadedModel:
        return load_model(path, DEVICES, Instances(1, 1), usage)

    return Repository(folder, load_one, nobody_cares, **options)


def load(folder: Path) -> Repository:
    """Load everything."""
    repository = make(folder)
    asyncio.run(repository.start())
    return repository


def add_version(folder: Path, version: int) -> None:
    """Copy version 1 to another."""
    shutil.copytree(artifact(folder), artifact(folder, version))
    path = artifact(folder, version) / "contract.json"
    path.write_text(path.read_text().replace('"version": 1', f'"version": {version}'))


def add_model(folder: Path, name: str) -> None:
    """Copy the model under another name."""
    shutil.copytree(folder / "tiny-text", folder / name)
    path = folder / name / "1" / "contract.json"
    path.write_text(path.read_text().replace('"tiny-text"', f'"{name}"'))


def damage(path: Path) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def states(repository: Repository) -> dict[int, tuple[str, str]]:
    """State and reason of each version of the only model."""
    return {entry.version: (entry.state, entry.reason) for entry in await repository.index()}


def settle(folder: Path, text: str) -> None:
    """Write the model's settings."""
    (folder / "tiny-text" / "config.toml").write_text(text)
