"""Each command of the README and the documentation is one that the programs take."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from server.config import Config
from tests.docs.snippets import ROOT, Command, commands

typer = pytest.importorskip("typer", reason="the command line needs the extra explore")
pytest.importorskip("matplotlib", reason="pictures need the extra explore")
_ASKS = ("models", "classify", "embed", "attend", "generate")


def _of(module: str) -> list[Command]:
    return [command for command in commands("python") if command.words[1:3] == ("-m", module)]


@pytest.mark.parametrize("command", commands("regard"), ids=str)
def test_a_regard_command_is_one_that_the_program_parses(command: Command) -> None:
    """In blocks and in the text, where a command may stand without what it asks about."""
    from regard.commands import app

    _parse(typer.main.get_command(app), command)


@pytest.mark.parametrize(
    "command", [each for each in commands("regard") if each.in_block and each.words[1] in _ASKS], ids=str
)
def test_a_regard_command_of_a_block_is_answered(
    command: Command, server: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a real server, in a folder that has the examples."""
    from regard import cli

    monkeypatch.setenv("REGARD_SERVER", server)
    monkeypatch.setattr(sys, "argv", list(command.words))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", _of("server"), ids=str)
def test_a_command_of_the_server_has_flags_that_it_knows(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """And values that it takes."""
    monkeypatch.setattr("os.environ", {})
    Config.from_command_line([word for word in command.words[3:] if word not in ("HOST:PORT", "DIR")])


@pytest.mark.parametrize("command", _of("export"), ids=str)
def test_a_command_of_the_exporter_is_one_that_it_parses(command: Command) -> None:
    """Without running it: it would fetch weights."""
    pytest.importorskip("torch", reason="the exporter needs the extra export")
    import export.__main__

    _parse(typer.main.get_command(export.__main__.app), command, skip=3)


@pytest.mark.parametrize("command", [*commands("python"), *commands("make")], ids=str)
def test_modules_flags_targets_and_files_are_there(command: Command) -> None:
    """Of what is not run: modules can be found and name the flags, targets are in the Makefile, tests are files."""
    program, *words = command.words
    if program == "make":
        target = next(word for word in words if "=" not in word)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    if words[:1] != ["-m"]:
        return
    module, flags = words[1], [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
    assert find_spec(module), f"{command}: no module {module}"
    if module.partition(".")[0] in ("bench", "training"):
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / module.partition(".")[0]).rglob("*.py"))
        assert [flag for flag in flags if f'"{flag}"' not in source] == []
    for word in words[2:]:
        assert not word.startswith("tests/") or (ROOT / word.partition("::")[0]).exists(), f"{command}: {word}"


def _parse(program: Any, command: Command, skip: int = 1) -> None:
    """Let click parse words, through a group; in the text a command may stand without its arguments."""
    words = command.words[skip:]
    if below := getattr(program, "commands", {}):
        at = next((index for index, word in enumerate(words) if word in below), len(words))
        program.make_parser(program.context_class(program)).parse_args([*words[:at]])
        if at == len(words):
            return
        program, words = below[words[at]], words[at + 1 :]
    try:
        program.make_context(command.words[0], [*words])
    except Exception as error:
        if command.in_block or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
            raise
