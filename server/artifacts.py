"""One version of a model on disk: checked against its contract, loaded, run once; the repository calls it in a thread.

An artifact has a contract beside its graphs. A folder with a model.onnx and no contract is served, too: what it takes
and gives is read from the graph.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from server.contract import CONTRACT_FILE, PLAIN_GRAPH, TAPPED_GRAPH, Contract, ContractError, read_contract
from server.device import Device, Lanes
from server.engine import Engine
from server.errors import StartError
from server.foreign import describe_graph
from server.settings import ModelSettings
from server.text import TextReader
from server.usage import Usage

# Name, size and time of change of every file.
Fingerprint = frozenset[tuple[str, int, int]]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One version of a model, ready to serve."""

    contract: Contract
    engine: Engine
    reader: TextReader | None
    usage: Usage = field(default_factory=lambda: Usage(ModelSettings()))

    @property
    def name(self) -> str:
        """The name that callers give."""
        return self.contract.name

    @property
    def version(self) -> str:
        """The version as callers give it."""
        return str(self.contract.version)


def model_names(folder: Path) -> list[str]:
    """List the folders that hold a version; hidden ones do not count.

    Raises:
        StartError: There is no such folder.
    """
    if not folder.is_dir():
        raise StartError(f"--models: {folder}: not a folder")
    return [entry.name for entry in sorted(folder.iterdir()) if not entry.name.startswith(".") and versions(entry)]


def versions(folder: Path) -> list[int]:
    """List the versions of a model, the newest first; names that are no integer do not count."""
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return []
    return sorted({int(name) for name in names if name.isdecimal() and name == str(int(name))}, reverse=True)


def fingerprint(folder: Path) -> Fingerprint:
    """Tell one content of a folder from another without reading it.

    Raises:
        StartError: It changes meanwhile, or cannot be read.
    """
    try:
        found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise StartError(f"{folder}: cannot be read: {error.strerror}") from error
    return frozenset((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in found)


def load_model(folder: Path, device: Device, lanes: Lanes, usage: Usage) -> LoadedModel:
    """Check an artifact's contract and hashes, load its graphs and run each once.

    Raises:
        StartError: Says what is wrong with which file.
    """
    contract = _read_contract(folder)
    place = (contract.name, str(contract.version))
    if place != (folder.parent.name, folder.name):
        raise StartError(f"{folder}: holds {'/'.join(place)}; expected its own name and version")
    check_hashes(folder, contract)
    reader = TextReader(folder / contract.text.tokenizer_file, contract.text.max_tokens) if contract.text else None
    engine = Engine(folder, contract, device, lanes, usage.settings.attention_form)
    engine.warm_up()
    return LoadedModel(contract, engine, reader, usage)


def _read_contract(folder: Path) -> Contract:
    if (folder / PLAIN_GRAPH).exists() and not any((folder / name).exists() for name in (CONTRACT_FILE, TAPPED_GRAPH)):
        return describe_graph(folder)
    try:
        return read_contract(folder / CONTRACT_FILE)
    except ContractError as error:
        raise StartError(str(error)) from error


def check_hashes(folder: Path, contract: Contract) -> None:
    """Compare every file with the sha256 in the contract.

    Raises:
        StartError: A file is absent or was changed.
    """
    for name, expected in contract.files.items():
        found = hash_file(folder / name)
        if found != expected:
            raise StartError(f"{folder / name}: sha256 {found}; its contract says {expected}: changed or damaged")


def hash_file(path: Path) -> str:
    """sha256 in hexadecimal.

    Raises:
        StartError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error
