"""Text to token ids, with the tokenizers library."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
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
        types: int64 [N], which of two texts each is of, as the network is told; None for a single text, all zeros.
        parts: Which of two texts each came from, 0 or 1; None for special ones. Empty like texts, and for single texts.
        unattended: How many at the end others do not attend to, though they have vectors of their own.
        words: Which word of its text each is of, as the tokenizer tells them apart, counted from 0; None for special
            ones. Empty like texts.
    """

    ids: NDArray[np.int64]
    texts: list[str]
    offsets: list[tuple[int, int]]
    special: list[bool]
    truncated: bool
    types: NDArray[np.int64] | None = None
    parts: Sequence[int | None] = ()
    unattended: int = 0
    words: Sequence[int | None] = ()


class TextReader:
    """Tokenises for one model. Safe to share between threads: what it was made of is never changed."""

    def __init__(self, tokenizer_file: Path, max_tokens: int, pad_token: int | None = None) -> None:
        """Read the tokenizer.

        Args:
            tokenizer_file: Of the tokenizers library.
            max_tokens: The most tokens of a text.
            pad_token: Fills every text up to so many; None for none.

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
        if pad_token is not None:
            for one in (self._whole, self._cut):
                one.enable_padding(length=max_tokens, pad_id=pad_token, pad_token=one.id_to_token(pad_token) or "")
        self._max_tokens = max_tokens

    @property
    def largest_id(self) -> int:
        """The largest token that a text can have."""
        return max(self._whole.get_vocab(with_added_tokens=True).values(), default=0)

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Return how the vocabulary spells tokens; empty for those that it does not have."""
        return [self._whole.id_to_token(one) or "" for one in ids]

    def text_of(self, ids: Sequence[int], max_bytes: int) -> str:
        """Return the text that tokens spell, of which this tokenizer makes the same tokens.

        Args:
            ids: With the special tokens that stand at both ends of a text, or without.
            max_bytes: Longest text allowed, in UTF-8; so many tokens, too.

        Raises:
            InputError: It would make others: they are another tokenizer's, say; or the text is empty or too long.
        """
        if len(ids) > max_bytes:
            raise InputError("token_ids", f"{len(ids)} ids", f"at most {max_bytes} (the server's --max-text-bytes)")
        if strange := [one for one in ids if self._whole.id_to_token(one) is None]:
            expected = f"ids of the model's own tokenizer, up to {self.largest_id}"
            raise InputError("token_ids", f"id {strange[0]}", expected)
        begin, inner = self._without_ends(list(ids))
        text: str = self._whole.decode(inner, skip_special_tokens=False)
        check_text("token_ids", text, max_bytes)
        encoding = _encode(self._whole, text)
        again = [one for one, added in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not added]
        if again != inner:
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(inner, again, strict=False)))
            wrong = f"{len(ids)} ids, of which it would make others from the {begin + same + 1}. on"
            expected = "those that the model's own tokenizer makes of a text, or the text"
            raise InputError("token_ids", wrong, expected)
        return text

    def _without_ends(self, ids: list[int]) -> tuple[int, list[int]]:
        """Return how many special tokens stand before a text, and the tokens between these and those behind it."""
        begin, end = self._ends
        last = len(ids) - len(end)
        if last >= len(begin) and (ids[: len(begin)], ids[last:]) == (begin, end):
            return len(begin), ids[len(begin) : last]
        return 0, ids

    @cached_property
    def _ends(self) -> tuple[list[int], list[int]]:
        """Return the special tokens that stand before and behind a text; what fills it up is none of them."""
        encoding = _encode(self._whole, "a")
        found = zip(encoding.ids, encoding.special_tokens_mask, encoding.attention_mask, strict=True)
        tokens = [(one, bool(is_added)) for one, is_added, is_read in found if is_read]
        begin = [one for one, _ in itertools.takewhile(itemgetter(1), tokens)]
        end = [one for one, _ in itertools.takewhile(itemgetter(1), reversed(tokens[len(begin) :]))]
        return begin, end[::-1]

    @property
    def largest_type(self) -> int:
        """The largest token type that a token of a pair can have."""
        return max(_encode(self._whole, ("a", "b")).type_ids, default=0)

    def read(
        self,
        text: str,
        second: str | None = None,
        *,
        truncate: bool,
        max_bytes: int,
        prompt: str = "",
        positions: bool = True,
    ) -> Tokens:
        """Tokenise one text, or two as one input.

        Args:
            text: Any text with something other than white space in it.
            second: Likewise, of a pair.
            truncate: Whether a text with too many tokens is cut; of a pair, the longer one first.
            max_bytes: Longest text allowed, in UTF-8.
            prompt: Is put before it.
            positions: Whether to say where each token came from, which takes 200 bytes a token.

        Raises:
            InputError: A text is empty or longer than allowed, or no token of it is left; of a pair the field is
                pair.first, pair.second or pair.
        """
        if second is None:
            check_text("text", text, max_bytes)
            encoding, truncated = self._encode_within("text", prompt + text, truncate=truncate)
            if not any(end > len(prompt) for _, end in encoding.offsets):  # special tokens end at 0
                behind = f" behind the prompt's {len(prompt)} characters" if prompt else ""
                expected = f"a text of which tokens are among the {self._max_tokens} at most{behind}"
                raise InputError("text", f"no token left of {len(encoding)}", expected)
            return _tokens(encoding, len(prompt), truncated=truncated, positions=positions)
        check_text("pair.first", text, max_bytes)
        check_text("pair.second", second, max_bytes)
        encoding, truncated = self._encode_within("pair", (text, second), truncate=truncate)
        for part, field in enumerate(("pair.first", "pair.second")):
            if part not in encoding.sequence_ids:
                expected = f"a text of which tokens are among the {self._max_tokens} of both, at most"
                raise InputError(field, f"no token left of {len(encoding)}", expected)
        found = _tokens(encoding, 0, truncated=truncated, positions=positions)
        return _of_pair(found, encoding, positions=positions)

    def _encode_within(self, field: str, given: str | tuple[str, str], *, truncate: bool) -> tuple[Encoding, bool]:
        """Tokenise what has, or is cut to, so many tokens as the network takes; and say whether it was cut."""
        encoding = _encode(self._whole, given)
        if len(encoding) <= self._max_tokens:
            return encoding, False
        if not truncate:
            raise InputError(field, f"{len(encoding)} tokens", f"at most {self._max_tokens}, or truncate set")
        return _encode(self._cut, given), True


def check_text(field: str, text: str, max_bytes: int) -> None:
    """Refuse a text that cannot be read.

    Raises:
        InputError: There is nothing but white space in it, or it is longer than allowed, in UTF-8.
    """
    if not text.strip():
        raise InputError(field, "empty", "a text with something in it")
    size_bytes = len(text.encode())
    if size_bytes > max_bytes:
        raise InputError(field, f"{size_bytes} bytes", f"at most {max_bytes} (the server's --max-text-bytes)")


def _encode(tokenizer: Tokenizer, given: str | tuple[str, str]) -> Encoding:
    """Tokenise; as a batch of one, for which the library lets other threads of Python run meanwhile."""
    (encoding,) = tokenizer.encode_batch([given])
    return encoding


def _of_pair(found: Tokens, encoding: Encoding, *, positions: bool) -> Tokens:
    """Say which of two texts each token is of."""
    types = np.array(encoding.type_ids, dtype=np.int64)
    return replace(found, types=types, parts=encoding.sequence_ids if positions else ())


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
        words=encoding.word_ids,
    )
