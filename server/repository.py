"""Finds artifacts in the models folder, checks them and loads them; the life cycle calls it once at start."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.contract import CONTRACT_FILE, Contract, ContractError, read_contract
from server.device import Device, Lanes
from server.engine import Engine
from server.errors import InvalidInput, ModelNotFound, StartError
from server.text import TextReader


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to serve: its newest version."""

    contract: Contract
    engine: Engine
    reader: TextReader | None

    @property
    def name(self) -> str:
        """The name that callers give."""
        return self.contract.name


class Repository:
    """The models that are served, by name."""

    def __init__(self, models: Mapping[str, LoadedModel]) -> None:
        self._models = dict(sorted(models.items()))

    def all(self) -> list[LoadedModel]:
        """List the models, sorted by name."""
        return list(self._models.values())

    def find(self, name: str, version: str) -> LoadedModel:
        """Look up what a request names.

        Args:
            name: May be empty where there is a single model.
            version: An integer as text; empty for the newest.

        Raises:
            InvalidInput: The name is empty and there are several models.
            ModelNotFound: No such model or version.
        """
        served = ", ".join(self._models)
        if not name and len(self._models) > 1:
            raise InvalidInput("model", "empty", f"one of {served}")
        model = self._models.get(name) if name else next(iter(self._models.values()))
        if model is None:
            raise ModelNotFound(f"model: {name[:100]!r} is not served; expected one of {served}")
        if version and version != str(model.contract.version):
            raise ModelNotFound(
                f"version: {version[:100]!r} of {model.name} is not served; expected {model.contract.version}"
            )
        return model


def load_repository(folder: Path, device: Device, lanes: Lanes) -> Repository:
    """Load the newest version of every model in a folder.

    Raises:
        StartError: The folder holds no artifact, or one that cannot be served.
    """
    artifacts = newest_versions(folder)
    if not artifacts:
        raise StartError(f"--models: {folder}: holds no artifact; expected NAME/VERSION/{CONTRACT_FILE}")
    return Repository({path.parent.name: load_model(path, device, lanes) for path in artifacts})


def newest_versions(folder: Path) -> list[Path]:
    """List the newest version's folder of every model; hidden folders and names that are no integer do not count."""
    if not folder.is_dir():
        raise StartError(f"--models: {folder}: not a folder")
    newest = []
    for model in sorted(folder.iterdir()):
        versions = [entry for entry in model.iterdir() if entry.name.isdecimal()] if model.is_dir() else []
        if versions and not model.name.startswith("."):
            newest.append(max(versions, key=lambda entry: int(entry.name)))
    return newest


def load_model(folder: Path, device: Device, lanes: Lanes) -> LoadedModel:
    """Check an artifact's contract and hashes, load its graphs and run each once.

    Raises:
        StartError: Says what is wrong with which file.
    """
    try:
        contract = read_contract(folder / CONTRACT_FILE)
    except ContractError as error:
        raise StartError(str(error)) from error
    place = (contract.name, str(contract.version))
    if place != (folder.parent.name, folder.name):
        raise StartError(f"{folder}: holds {'/'.join(place)}; expected its own name and version")
    check_hashes(folder, contract)
    reader = TextReader(folder / contract.text.tokenizer_file, contract.text.max_tokens) if contract.text else None
    engine = Engine(folder, contract, device, lanes)
    engine.warm_up()
    return LoadedModel(contract, engine, reader)


def check_hashes(folder: Path, contract: Contract) -> None:
    """Compare every file with the sha256 in the contract.

    Raises:
        StartError: A file is absent or was changed.
    """
    for name, expected in contract.files.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StartError(f"{folder / name}: cannot be read: {error.strerror}") from error
        if found != expected:
            raise StartError(f"{folder / name}: sha256 {found}; its contract says {expected}: changed or damaged")
