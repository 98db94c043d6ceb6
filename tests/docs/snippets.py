"""The code of the README and of the documentation: fenced blocks, and commands in the text."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    path.relative_to(ROOT)
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
)
_FENCE = re.compile(r"(?:<!--\s*(?P<comment>[^>]*?)\s*-->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`(?P<code>(?:regard|python\s-m|make)\s[^`]+)`(?!`)")
_LINE = re.compile(r"^(?:[A-Z_]+=\S+ )*(?P<code>(?:regard|python|make) .+)$", re.M)
_SHAPE = re.compile(r"^(?P<indent> *)(?P<value>\S.*?)  # (?P<dtype>float\d+|int\d+) \[(?P<shape>[^]]*)\]", re.M)
_SHELL = ("sh", "console")


@dataclass(frozen=True)
class Snippet:
    """One fenced block.

    Attributes:
        page: Its file, below ROOT.
        line: Where the block begins, from 1.
        language: As the fence says.
        code: What is between the fences.
        comment: What a comment in the line before says: "needs: ..." or "not run: ...".
    """

    page: Path
    line: int
    language: str
    code: str
    comment: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def checked(self) -> str:
        """The code with an assertion behind each line that says what it is: "x  # float32 [6 heads, 257 keys]"."""

        def check(line: re.Match[str]) -> str:
            name = line["value"].partition(" = ")[0] if re.match(r"\w+ = ", line["value"]) else line["value"]
            shape = tuple(map(int, re.findall(r"\d+", line["shape"])))
            found, said = f"(({name}).dtype, ({name}).shape)", (line["dtype"], shape)
            return f"{line.group()}\n{line['indent']}assert {found} == {said}, {found}"

        return _SHAPE.sub(check, self.code)

    @property
    def not_run(self) -> str:
        """Why it is not run; empty where it is."""
        if self.comment.startswith("not run:"):
            return self.comment.partition(":")[2].strip()
        names = self.comment.removeprefix("needs:").split() if self.comment.startswith("needs:") else []
        return ", ".join(f"{name} is not there" for name in names if not _is_there(name))


@dataclass(frozen=True)
class Command:
    """A command line without its comment: its words; whether it stands in a block, to be pasted."""

    page: Path
    words: tuple[str, ...]
    in_block: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def snippets(*languages: str) -> list[Snippet]:
    """List the blocks in one of these languages."""
    return [snippet for page in PAGES for snippet in _blocks(page) if snippet.language in languages]


def commands(*programs: str) -> list[Command]:
    """List the commands that begin with one of these words, of shell blocks and of the text, each once a page."""
    found = (command for page in PAGES for command in _commands(page))
    return list(dict.fromkeys(command for command in found if command.words[0] in programs))


def _is_there(name: str) -> bool:
    return (ROOT / "models" / name).is_dir() or find_spec(name) is not None


def _blocks(page: Path) -> Iterator[Snippet]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        line = text.count("\n", 0, block.start("code"))
        yield Snippet(page, line, block["language"], block["code"], block["comment"] or "")


def _commands(page: Path) -> Iterator[Command]:
    for block in _blocks(page):
        if block.language in _SHELL and not block.not_run:
            for line in _LINE.finditer(block.code.replace("\\\n", " ")):
                yield Command(page, _words(line["code"]), in_block=True)
    text = _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for span in _INLINE.finditer(text):
        yield Command(page, _words(span["code"]), in_block=False)


def _words(line: str) -> tuple[str, ...]:
    return tuple(shlex.split(line, comments=True))
