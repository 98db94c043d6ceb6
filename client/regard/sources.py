"""What the command line's arguments mean: which are photos, which are texts, and which model takes them."""

import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regard.answers import Modality, Model

_TITLE_CHARACTERS = 60
DAMAGED_IMAGE = (OSError, ValueError, SyntaxError, struct.error)
"""What Pillow raises for a file that begins like an image and does not go on like one."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

Task = Literal["classify", "embed", "attend", "rank", "generate"]


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
    """

    name: str
    image: bytes | None
    text: str | None
    second: str | None = None
    file: str = ""
    number: int = 0

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
    def modality(self) -> Modality:
        """What a model must take to take this."""
        return "text" if self.image is None else "image"


def read_source(argument: str) -> Source:
    """Read an argument: `-` is stdin, an existing file is a photo or a text, anything else is a text itself.

    Raises:
        InputError: A file that is neither a photo nor UTF-8, or a photo's name without a file.
        OSError: A file that cannot be read.
    """
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
        return _from_bytes(path.name, data)
    if named_like_image:
        raise InputError(f"{argument}: no such file")
    if _is(path.is_dir) and "/" in argument:
        raise InputError(f"{argument}: a folder; expected a file or a text")
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise InputError("the text is not valid UTF-8") from error
    return Source(argument, None, argument)


def read_photos(argument: str) -> list[Source]:
    """Read all photos of a folder, by name; empty where the argument is none.

    Raises:
        InputError: No photo is there, or a file is none in spite of its name.
        OSError: A file that cannot be read.
    """
    folder = Path(argument)
    if argument == "-" or not _is(folder.is_dir):
        return []
    found = [read_source(str(path)) for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise InputError(f"{argument}: a folder without photos; expected JPEG, PNG or WebP files, a file or a text")
    return found


def read_pair(argument: str, second: str | None) -> Source:
    """Read an argument and, where there is one, the second text beside it.

    Raises:
        InputError: As read_source; or one of two is no text.
        OSError: A file that cannot be read.
    """
    source = read_source(argument)
    if second is None:
        return source
    other = read_source(second)
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
    return {"classify": model.can_classify, "embed": model.can_embed, "rank": model.can_rank}[task]


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
