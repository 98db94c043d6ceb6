"""Puts a finished artifact into the models folder, whole or not at all; the last step of an export."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifact.contract import CONTRACT_FILE, Contract, read_contract
from artifact.errors import ContractError
from artifact.files import sync_to_disk, versions
from artifact.towers import TowersContract
from export.errors import PublishError


@contextmanager
def staging_folder(out: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder beside the versions, hidden from servers, and remove what is left of it at the end."""
    parent = out / name
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(parent.iterdir()):
            parent.rmdir()


def next_version(out: Path, name: str) -> int:
    """Return the number after the newest version."""
    return max(versions(out / name), default=0) + 1


def same_as_newest(out: Path, contract: Contract) -> int | None:
    """Return the newest version if its files and its contract, but for version and measurements, are the same."""
    newest_version = max(versions(out / contract.name), default=None)
    if newest_version is None:
        return None
    try:
        newest = read_contract(out / contract.name / str(newest_version) / CONTRACT_FILE)
    except ContractError:
        return None
    ignored = {"version": contract.version, "verification": contract.verification, "accuracy": contract.accuracy}
    return newest_version if newest.model_copy(update=ignored) == contract else None


def write_contract(staging: Path, contract: Contract) -> None:
    """Put the contract beside the graphs."""
    (staging / CONTRACT_FILE).write_text(contract.model_dump_json(indent=2) + "\n")


def publish(staging: Path, out: Path, contract: Contract | TowersContract) -> Path:
    """Move a folder with its contract to its version in one step.

    Returns:
        The version's folder.

    Raises:
        PublishError: The version exists.
    """
    for file in staging.rglob("*"):
        sync_to_disk(file)
    target = out / contract.name / str(contract.version)
    staging.chmod(0o755)  # mkdtemp made it private
    try:
        staging.rename(target)
    except OSError as error:
        raise PublishError(f"{target}: cannot be published: {error.strerror}") from error
    sync_to_disk(target.parent)
    return target
