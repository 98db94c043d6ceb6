"""What the command line's arguments mean: which are photos, which are texts, and which model takes them."""

import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from regard.answers import Modality, Model

_TITLE_CHARACTERS = 60
DAMAGED_IMAGE = (OSError, ValueError, SyntaxError, struct.error)
"""What Pillow raises for a file that begins like an image and does not go on like one."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_FILE_SUFFIXES = IMAGE_SUFFIXES | {
    ".txt",
    ".csv",
    ".parquet",
    ".jsonl",
    ".md",
    ".wav",
    ".flac",
    ".gif",
    ".heic",
    ".pdf",
}
_HOW_TO_SAY = "; expected one, or --text (of classify, embed and attend) before a text"

Task = Literal["classify", "embed", "attend", "rank", "generate", "explain"]


class InputError(ValueError):
    """An argument that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Source:
    """A photo, a text or a pair of texts from the command line.

    Attributes:
        name: What to call it: the file's name, "stdin", or the text itself.
        image: The bytes of an image file, else None.
        text: The text, of a pair the first; else None.
        second: Of a pair the second text, else None.
        file: Where it stands, of a file of lines: the file as it was given, or "stdin"; else empty.
        number: Its line there, from 1; else 0.
        path: Of a photo that the client is to read: its file; else None.
    """

    name: str
    image: bytes | None
    text: str | None
    second: str | None = None
    file: str = ""
    number: int = 0
    path: Path | None = None

    @property
    def pair(self) -> tuple[str, str] | None:
        """Both texts of a pair; None for one alone."""
        return None if self.text is None or self.second is None else (self.text, self.second)

    @property
    def given(self) -> dict[str, Any]:
        """The input of a call."""
        return {"pair": self.pair} if self.pair else {"image": self.image, "text": self.text}

    @property
    def title(self) -> str:
        """The name, cut to what fits a line."""
        return self.name if len(self.name) <= _TITLE_CHARACTERS else f"{self.name[: _TITLE_CHARACTERS - 1]}…"

    @property
    def place(self) -> str:
        """The title, behind the line where it is one of a file: what a message about it begins with."""
        return f"{self.file}, line {self.number}: {self.title}" if self.number else self.title

    @property
    def value(self) -> Any:
        """The input itself."""
        return self.pair or next(one for one in (self.text, self.image, self.path) if one is not None)

    @property
    def modality(self) -> Modality:
        """What a model must take to take this."""
        return "image" if self.text is None else "text"


def read_source(argument: str, *, as_text: bool | None = None, name: str = "") -> Source:
    """Read an argument: `-` is stdin, an existing file is a photo or a text, anything else is a text itself.

    Args:
        argument: Of the command line.
        as_text: Whether it is a text (True) or a file (False) for certain.
        name: What to call a file, instead of its own name.

    Raises:
        InputError: A file that is neither a photo nor UTF-8, or what looks like a file's name where no file is.
        OSError: A file that cannot be read.
    """
    if as_text:
        return _from_text(argument)
    if argument == "-":
        if sys.stdin is None:
            raise InputError("-: stdin is closed; expected a photo or a text there")
        return _from_bytes("stdin", sys.stdin.buffer.read())
    path = Path(argument)
    named_like_image = path.suffix.lower() in IMAGE_SUFFIXES
    if _is(path.is_file):
        data = path.read_bytes()
        if named_like_image and not is_image(data):
            raise InputError(f"{argument}: {len(data)} bytes that are no JPEG, PNG or WebP image, in spite of the name")
        return _from_bytes(name or path.name, data)
    if _is(path.is_dir) and "/" in argument:
        raise InputError(f"{argument}: a folder; expected a file or a text")
    if as_text is False or _looks_like_path(argument):
        raise InputError(f"{argument}: no such file{'' if as_text is False else _HOW_TO_SAY}")
    return _from_text(argument)


def open_file(argument: str, option: str, expected: str) -> BinaryIO:
    """Open a file for reading bytes.

    Args:
        argument: Its path, of the command line.
        option: What makes the argument a file, as `--lines`.
        expected: What it should be.

    Raises:
        OSError: It cannot be read; the message names the option, the path and what was expected.
    """
    try:
        return Path(argument).open("rb")
    except OSError as error:
        raise OSError(f"{option}: {argument}: {error.strerror}; expected {expected}") from error


def read_photos(sources: Iterable[Source]) -> list[Source]:
    """Return photos with their bytes, to be drawn.

    Raises:
        InputError: One is a text, or no photo in spite of its name.
        OSError: A file that cannot be read.
    """
    photos = []
    for source in sources:
        if source.modality == "text":
            raise InputError(f"{source.place}: a text; expected photos, or -o with .jsonl, .npz or .parquet")
        photos.append(read_source(str(source.path)) if source.path else source)
    return photos


def read_pair(argument: str, second: str | None, *, as_text: bool | None = None) -> Source:
    """Read an argument and, where there is one, the second text beside it.

    Raises:
        InputError: As read_source; or one of two is no text.
        OSError: A file that cannot be read.
    """
    source = read_source(argument, as_text=as_text)
    if second is None:
        return source
    other = read_source(second, as_text=as_text)
    if source.text is None or other.text is None:
        raise InputError("--pair: a photo; expected two texts")
    return Source(f"{source.name} | {other.name}", None, source.text, other.text)


def read_labels(argument: str) -> list[str]:
    """Part an argument at its commas; what is empty counts as a slip."""
    return [label.strip() for label in argument.split(",") if label.strip()]


def is_image(data: bytes) -> bool:
    """Tell by the first bytes whether a file is a JPEG, PNG or WebP."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return webp or data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))


def choose_model(models: Iterable[Model], modality: Modality, task: Task, *, pairs: bool = False) -> Model:
    """Return the first model that takes this and can do that.

    One named "fashion" (a toy), or one that writes, only where no other does, unless writing is the task.

    Of two towers it is what the one that takes this can.

    Raises:
        InputError: There is none.
    """
    towers = (model.of(modality) for model in models)
    able = [
        model
        for model in towers
        if model.modality == modality and can_do(model, task) and (model.takes_pairs or not pairs)
    ]
    if not able:
        what = "pairs of texts" if pairs else f"{modality}s"
        raise InputError(f"the server has no model that can {task} {what}; see: regard models")
    return min(able, key=lambda model: "fashion" in model.name or model.generation is not None)


def choose_towers(models: Iterable[Model], *, aligns: bool = False) -> Model:
    """Return the first model that is two towers, and can align where that is asked for.

    Raises:
        InputError: There is none.
    """
    for model in models:
        if model.towers and (model.towers.can_align or not aligns):
            return model
    raise InputError("the server has no model of two towers, which this takes; see: regard models")


def can_do(model: Model, task: Task) -> bool:
    """Tell whether a model can do a task."""
    if task == "attend":
        return bool(model.attention_layers) and model.modality not in (None, "audio")
    if task == "generate":
        return model.generation is not None
    able = {"classify": model.can_classify, "embed": model.can_embed, "rank": model.can_rank}
    return able.get(task, model.can_explain)


def is_folder(argument: str) -> bool:
    """Tell whether an argument is a folder."""
    return _is(Path(argument).is_dir)


def _looks_like_path(argument: str) -> bool:
    """Tell whether somebody who wrote this meant a file: by its ending, or a separator in a single word."""
    if Path(argument).suffix.lower() in _FILE_SUFFIXES:
        return True
    return "/" in argument and not any(letter.isspace() for letter in argument)


def _from_text(text: str) -> Source:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("the text is not valid UTF-8") from error
    return Source(text, None, text)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except (OSError, ValueError):  # a text too long, or with characters that no path has
        return False


def _from_bytes(name: str, data: bytes) -> Source:
    if is_image(data):
        return Source(name, data, None)
    try:
        return Source(name, None, data.decode("utf-8-sig").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is neither a JPEG, PNG or WebP image nor UTF-8 text") from error
