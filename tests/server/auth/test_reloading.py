"""What is read again when its file has changed."""

from pathlib import Path

import pytest

from server.auth.reloading import Reloading


def test_a_file_is_read_again_once_for_each_change(tmp_path: Path) -> None:
    """A file that is gone for a moment leaves the content; so does one that cannot be used."""
    file = tmp_path / "file"
    file.write_text("first")
    content = Reloading("--file", [file], file.read_text)
    assert (content.refresh(), content.content) == (False, "first")
    other = tmp_path / "other"
    other.write_text("second")
    other.replace(file)
    assert (content.refresh(), content.refresh(), content.content) == (True, False, "second")
    file.unlink()
    assert (content.refresh(), content.content) == (False, "second")


def test_a_change_that_cannot_be_used_is_logged_and_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it changes once more."""
    file = tmp_path / "file"
    file.write_text("1")
    content = Reloading("--file", [file], lambda: int(file.read_text()))
    other = tmp_path / "other"
    other.write_text("one")
    other.replace(file)
    assert [content.refresh(), content.refresh()] == [False, False]
    assert content.content == 1
    assert caplog.text.count("changed --file files cannot be used, the last ones stay") == 1


def test_files_that_have_gone_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And again after they were there for a while."""
    file = tmp_path / "file"
    file.write_text("1")
    content = Reloading("--file", [file], file.read_text)
    for _ in range(2):
        file.unlink()
        assert [content.refresh() for _ in range(3)] == [False] * 3
        file.write_text("2")
        content.refresh()
    assert content.content == "2"
    assert caplog.text.count("--file files cannot be looked at, the last content stays: ") == 2
