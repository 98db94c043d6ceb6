"""What starts with a command: nothing that it does not need."""

import ast
import os
import pkgutil
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer

import regard
from regard.examples import EXAMPLES
from regard.start import COMMANDS
from regard.terminal import percent
from tests.client.conftest import Run
from tests.client.test_cli import REGARD

_LOADED = """
import sys
sys.argv = ["regard", *{arguments}]
from regard.cli import main
try:
    main()
finally:
    print("\\nloaded:", sorted({heavy} & set(sys.modules)))
"""
_HEAVY = {"numpy", "grpc", "google", "matplotlib", "PIL", "starlette", "uvicorn", "asyncio"}
_OF_HELP = {"typer", "rich", "importlib.metadata"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [(["--help"], {"typer", "rich"}), ([], {"typer", "rich"}), (["--version"], {"importlib.metadata"})],
)
def test_help_imports_nothing_heavy(arguments: list[str], needed: set[str]) -> None:
    """Importing gRPC and numpy takes longer than all else."""
    assert _loaded(arguments, _HEAVY | _OF_HELP) == sorted(needed)


def test_a_command_that_does_not_exist_imports_nothing_heavy() -> None:
    """To say so takes no more than help does."""
    assert _loaded(["nonsense"], _HEAVY) == []


@pytest.mark.parametrize("words", ["regard cl", "regard --ti", "regard "])
def test_tab_imports_nothing_heavy(words: str) -> None:
    """Neither what draws help nor what commands need: a shell waits for it."""
    asked = {"_REGARD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
    assert _loaded([], {*_HEAVY, "rich"}, asked) == []


def test_pictures_do_not_import_the_command_line() -> None:
    """A notebook that draws has no use for it."""
    pytest.importorskip("matplotlib", reason="pictures need the extra explore")
    code = "import regard.pictures, sys; print({'typer', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def _loaded(arguments: list[str], heavy: set[str], variables: dict[str, str] | None = None) -> list[str]:
    """Return which of some modules a command line imports."""
    code = _LOADED.format(arguments=arguments, heavy=heavy)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(variables or {})},
    )
    loaded: list[str] = ast.literal_eval(done.stdout.rpartition("loaded: ")[2])
    return loaded


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    """Their first paragraphs, in the same order."""
    found = {name: " ".join(command.help.split("\n\n")[0].split()) for name, command in _group().commands.items()}
    assert list(found.items()) == list(COMMANDS.items())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("serve", "export")])
def test_every_help_has_examples_that_are_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 60 columns too, without anything cut off."""
    monkeypatch.setenv("COLUMNS", "60")
    shown = subprocess.run([*REGARD, name, "--help"], capture_output=True, text=True, check=True)
    assert ("Examples:" in shown.stdout, "…" in shown.stdout) == (True, False)
    assert max(map(len, shown.stdout.splitlines())) <= 60
    for example in EXAMPLES[name].split("\n\n")[1:]:
        program, *words = shlex.split(example)
        context = _group().make_context(program, words, resilient_parsing=True)
        (found,) = {"load", "unload", *COMMANDS} & set(words[:3])
        _, command, rest = _group().resolve_command(context, words[words.index(found) :])
        command.make_context(name, rest, parent=context, resilient_parsing=True)
        assert (program, found) == ("regard", name)


def test_models_are_readable_in_sixty_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paragraph each, instead of columns of two letters."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("models").out.splitlines()
    start = lines.index("minilm 2")
    assert lines[start + 1 : start + 4] == [
        "  bert, , ; 12 x 3 layers x heads",
        "  takes text and pairs, up to 256 tokens",
        "  can predict, embed (2, 4), rank, attend",
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.75, "75.0"),
        (1, "100.0"),
        (0, "0.0"),
        (0.9997, "99.97"),
        (0.00049, "0.05"),
        (1 - 1e-9, ">99.99999"),
        (1e-9, "<0.00001"),
    ],
)
def test_what_is_not_certain_does_not_look_it(share: float, text: str) -> None:
    """Nor what is not impossible."""
    assert percent(share) == text


def test_every_public_name_is_there() -> None:
    """Imported when it is asked for; another is an error as of any module."""
    assert [name for name in regard.__all__ if not hasattr(regard, name)] == []
    assert set(regard.__all__) <= set(dir(regard))
    assert regard.errors.RegardError is regard.RegardError
    with pytest.raises(AttributeError, match="module 'regard' has no attribute 'Clint'"):
        regard.Clint  # noqa: B018


def _group() -> Any:
    from regard.commands import app

    return typer.main.get_command(app)


def test_no_module_has_the_name_of_what_the_package_gives() -> None:
    """Importing the module would put it in the place of the other."""
    modules = {module.name for module in pkgutil.iter_modules(regard.__path__)}
    assert modules.isdisjoint(regard.__all__)
    assert set(regard._MODULES) <= modules
