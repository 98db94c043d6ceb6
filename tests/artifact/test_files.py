"""Versions in a models folder, and hashes of files."""

import hashlib
import os
from pathlib import Path

import pytest

from artifact.contract import read_contract
from artifact.errors import ArtifactError
from artifact.files import check_hashes, hash_file, versions
from tests.golden import GOLDEN_MODELS


def test_versions_are_folders_named_by_integers_the_newest_first(tmp_path: Path) -> None:
    """10 is newer than 9; other names and files do not count, and a folder that is absent has none."""
    for name in ("9", "10", "1", "01", "0", "v2", "-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file")
    assert versions(tmp_path) == [10, 9, 1]
    assert versions(tmp_path / "absent") == []


def test_a_file_that_was_changed_is_told_by_its_hash(tmp_path: Path) -> None:
    """And one that is absent by its name."""
    contract = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")
    (tmp_path / "a").write_bytes(b"a")
    digest = hashlib.sha256(b"a").hexdigest()
    assert hash_file(tmp_path / "a") == digest
    check_hashes(tmp_path, contract.model_copy(update={"files": {"a": digest}}))
    with pytest.raises(ArtifactError, match=r"sha256 .*; its contract says 00: changed or damaged"):
        check_hashes(tmp_path, contract.model_copy(update={"files": {"a": "00"}}))
    with pytest.raises(ArtifactError, match="b: cannot be read: No such file"):
        check_hashes(tmp_path, contract.model_copy(update={"files": {"b": digest}}))


def test_what_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read a named pipe would wait for ever; a file that cannot be read has a reason."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "folder"), ("pipe", "named pipe"), ("/dev/null", "special file")):
        with pytest.raises(ArtifactError, match=f"{name}: is a {kind}; expected a regular file"):
            hash_file(tmp_path / name)

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a").write_bytes(b"a")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ArtifactError, match="a: cannot be read: Permission denied"):
        hash_file(tmp_path / "a")
