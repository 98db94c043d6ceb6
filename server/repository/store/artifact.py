"""What an artifact in a store is made of: its contracts, and the files that these list with their hashes."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from artifact.contract import CONTRACT_FILE, Contract, parse_as
from artifact.errors import ArtifactError
from artifact.towers import TOWERS_FILE, TowersContract
from server.errors import StartError
from server.repository.store.store import Store, StoredFile

_MAX_CONTRACT_BYTES = 64 * 2**20
_KEY_CHARACTERS = 16
_log = logging.getLogger(__name__)


class Unfit(StartError):
    """What lies in the store cannot be taken, and will not be until it changes there."""


@dataclass(frozen=True)
class Artifact:
    """What is fetched of a version, and nothing else.

    Attributes:
        contracts: What they say, by their path within the artifact.
        files: sha256 in hexadecimal of everything else, by path.
    """

    contracts: Mapping[str, bytes]
    files: Mapping[str, str]

    @property
    def key(self) -> str:
        """Tells one content from another: contracts have the hashes of all else."""
        contents = (hashlib.sha256(content).digest() for _, content in sorted(self.contracts.items()))
        return hashlib.sha256(b"".join(contents)).hexdigest()[:_KEY_CHARACTERS]


def read_artifact(store: Store, stored: Mapping[str, StoredFile]) -> Artifact:
    """Read the contracts of an artifact, once more where they are not what they must be: they may have come damaged.

    Args:
        store: Where it lies.
        stored: Its files, by their path within it.

    Raises:
        StartError: A contract cannot be read.
        Unfit: One is not what it must be, or lists what it may not.
    """
    try:
        return _read(store, stored)
    except Unfit as error:
        _log.warning("%s; reading it again", error)
        return _read(store, stored)


def _read(store: Store, stored: Mapping[str, StoredFile]) -> Artifact:
    try:
        if TOWERS_FILE not in stored:
            contract, content = _read_contract(store, stored, CONTRACT_FILE)
            return Artifact({CONTRACT_FILE: content}, contract.files)
        return _read_towers(store, stored)
    except ArtifactError as error:
        raise Unfit(str(error)) from error


def _read_towers(store: Store, stored: Mapping[str, StoredFile]) -> Artifact:
    content = store.read(stored[TOWERS_FILE], _MAX_CONTRACT_BYTES)
    towers = parse_as(TowersContract, content, store.name(stored[TOWERS_FILE]))
    contracts, files = {TOWERS_FILE: content}, dict[str, str]()
    for path, expected in towers.files.items():
        contract, contracts[path] = _read_contract(store, stored, path)
        check_hash(store.name(stored[path]), hashlib.sha256(contracts[path]).hexdigest(), expected)
        folder = path.removesuffix(CONTRACT_FILE)
        files |= {folder + name: sha256 for name, sha256 in contract.files.items()}
    return Artifact(contracts, files)


def _read_contract(store: Store, stored: Mapping[str, StoredFile], path: str) -> tuple[Contract, bytes]:
    file = find(store, stored, path)
    content = store.read(file, _MAX_CONTRACT_BYTES)
    contract = parse_as(Contract, content, store.name(file))
    if CONTRACT_FILE in contract.files:
        raise Unfit(f"{store.name(file)}: files: {CONTRACT_FILE!r}: expected every file but the contract itself")
    return contract, content


def find(store: Store, stored: Mapping[str, StoredFile], path: str) -> StoredFile:
    """Look up a file of an artifact.

    Raises:
        Unfit: It is not in the store.
    """
    if path not in stored:
        beside = next(iter(stored.values()))
        raise Unfit(f"{store}: {path} is not there, beside {store.name(beside)}; its contract lists it")
    return stored[path]


def check_hash(name: str, found: str, expected: str) -> None:
    """Compare what was read with what its contract says.

    Raises:
        Unfit: They differ.
    """
    if found != expected:
        raise Unfit(f"{name}: sha256 {found}; its contract says {expected}: changed or damaged, and not taken")
