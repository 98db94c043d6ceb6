"""What the README and the documentation show runs as it is pasted."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import STAND_INS, environment
from tests.docs.snippets import ROOT, Snippet, snippets

_ADDRESS, _HTTP = "127.0.0.1:8001", "127.0.0.1:8000"
_SECONDS = 120


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_a_python_block_runs_as_pasted(snippet: Snippet, addresses: tuple[str, str], folder: Path) -> None:
    """In an interpreter of its own, where a warning is an error; only the server's ports are others.

    The shapes that comments say are those of the real models, and checked where all of these are there.
    """
    if snippet.not_run:
        pytest.skip(snippet.not_run)
    named = [name for name in STAND_INS if f'"{name}"' in snippet.code]
    real = all(name == STAND_INS[name].name or (ROOT / "models" / name).is_dir() for name in named)
    code = (snippet.checked if real else snippet.code).replace(_ADDRESS, addresses[0])
    code = code.replace(_HTTP, addresses[1])
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, f"{snippet}: {ran.stderr}"


@pytest.mark.parametrize("snippet", snippets("bash"), ids=str)
def test_a_block_of_curl_is_answered(snippet: Snippet, addresses: tuple[str, str], folder: Path) -> None:
    """Every command of it, over HTTP."""
    code = snippet.code.replace(_HTTP, addresses[1])
    command = ["bash", "-e", "-c", code]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert ran.returncode == 0, f"{snippet}: {ran.stdout} {ran.stderr}"


def test_every_block_says_what_it_is_in() -> None:
    """So that none is left out: python, sh, or what is only read."""
    unnamed = [str(snippet) for snippet in snippets("")]
    assert not unnamed
