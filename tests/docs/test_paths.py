"""Files that the README and the documentation name are there."""

import re
from pathlib import Path

import pytest

from tests.docs.snippets import PAGES, ROOT

_FOLDERS = "server|artifact|export|client|model|tests|bench|deploy|examples|proto|docs|training"
_PATH = re.compile(rf"(?<![\w/.-])(?:{_FOLDERS})/[\w./-]*[\w/]")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    """In code or in text; addresses of other sites are not looked at."""
    text = re.sub(r"https?://\S+", "", (ROOT / page).read_text(encoding="utf-8"))
    named = {path.rstrip("/") for path in _PATH.findall(text)}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
