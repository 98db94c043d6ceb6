"""Text to token ids, with the tokenizers library."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from artifact.errors import ArtifactError, InputError


@dataclass(frozen=True, eq=False)
class Tokens:
    """A text as a network reads it, special tokens included.

    Attributes:
        ids: int64 [N].
        texts: As the vocabulary spells them; this and the next two are empty where nobody asks for them.
        offsets: Where each came from in the text: [start, end) in Unicode code points; (0, 0) for those of a prompt.
        special: Which were added by the tokenizer.
        truncated: Whether the text was cut.
    """

    ids: NDArray[np.int64]
    texts: list[str]
    offsets: list[tuple[int, int]]
    special: list[bool]
    truncated: bool


class TextReader:
    """Tokenises for one model. Safe to share between threads: it is never changed."""

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        """Read the tokenizer.

        Raises:
            ArtifactError: The file cannot be read.
        """
        try:
            self._whole = Tokenizer.from_file(str(tokenizer_file))
            self._cut = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ArtifactError(f"{tokenizer_file}: the tokenizers library cannot read it: {error}") from error
        self._whole.no_padding()
        self._whole.no_truncation()
        self._cut.no_padding()
        self._cut.enable_truncation(max_tokens)
        self._max_tokens = max_tokens

    @property
    def largest_id(self) -> int:
        """The largest token that a text can have."""
        return max(self._whole.get_vocab(with_added_tokens=True).values(), default=0)

    def read(self, text: str, *, truncate: bool, max_bytes: int, prompt: str = "", positions: bool = True) -> Tokens:
        """Tokenise one text.

        Args:
            text: Any text with something other than white space in it.
            truncate: Whether a text with too many tokens is cut.
            max_bytes: Longest text allowed, in UTF-8.
            prompt: Is put before it.
            positions: Whether to say where each token came from, which takes 200 bytes a token.

        Raises:
            InputError: The text is empty or longer than allowed.
        """
        if not text.strip():
            raise InputError("text", "empty", "a text with something in it")
        size_bytes = len(text.encode())
        if size_bytes > max_bytes:
            raise InputError("text", f"{size_bytes} bytes", f"at most {max_bytes} (the server's --max-text-bytes)")
        encoding = _encode(self._whole, prompt + text)
        if len(encoding) <= self._max_tokens:
            return _tokens(encoding, len(prompt), truncated=False, positions=positions)
        if not truncate:
            raise InputError("text", f"{len(encoding)} tokens", f"at most {self._max_tokens}, or truncate set")
        return _tokens(_encode(self._cut, prompt + text), len(prompt), truncated=True, positions=positions)


def _encode(tokenizer: Tokenizer, text: str) -> Encoding:
    """Tokenise; as a batch of one, for which the library lets other threads of Python run meanwhile."""
    (encoding,) = tokenizer.encode_batch([text])
    return encoding


def _tokens(encoding: Encoding, before: int, *, truncated: bool, positions: bool) -> Tokens:
    """Say where tokens came from in what follows the characters of a prompt."""
    if not positions:
        return Tokens(np.array(encoding.ids, dtype=np.int64), [], [], [], truncated)
    return Tokens(
        ids=np.array(encoding.ids, dtype=np.int64),
        texts=encoding.tokens,
        offsets=[(max(start - before, 0), max(end - before, 0)) for start, end in encoding.offsets],
        special=[bool(flag) for flag in encoding.special_tokens_mask],
        truncated=truncated,
    )
