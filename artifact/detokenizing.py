"""Tokens to text, all at once or one by one."""

from collections.abc import Collection, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from artifact.errors import ArtifactError, InputError

_OPEN = "\ufffd"  # what stands for bytes that are no whole character yet


class TextWriter:
    """Turns tokens into text for one model. Safe to share between threads: it is never changed."""

    def __init__(self, tokenizer_file: Path) -> None:
        """Read the tokenizer.

        Raises:
            ArtifactError: The file cannot be read.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise ArtifactError(f"{tokenizer_file}: the tokenizers library cannot read it: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens make, without special ones."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def pieces(self, tokens: Sequence[int], silent: Collection[int]) -> list[str]:
        """Return what each token adds to the text; nothing of silent ones."""
        detokenizer = self.begin()
        return ["" if token in silent else detokenizer.add(token) for token in tokens]

    def spell(self, token: int) -> str:
        """Return how the vocabulary spells a token; empty for one that it does not have."""
        return self._tokenizer.id_to_token(token) or ""

    def tokens(self, text: str) -> list[int]:
        """Return the tokens that make a text, without special ones.

        Raises:
            InputError: A part of it is no token.
        """
        try:
            (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise InputError("text", repr(text[:100]), "a text of the model's vocabulary") from error
        return list(encoding.ids)

    def begin(self) -> "Detokenizer":
        """Begin a text that is written token by token."""
        return Detokenizer(self)


class Detokenizer:
    """A text that is written token by token.

    Whether a token begins with a space, or ends a character, its neighbours decide: some tokens before it are turned
    into text with it, and what they make alone is left out.
    """

    def __init__(self, writer: TextWriter) -> None:
        self._writer = writer
        self._tokens = list[int]()
        self._since = self._told = 0

    def add(self, token: int) -> str:
        """Return what a token adds to the text: nothing while it leaves a character open."""
        self._tokens.append(token)
        before = self._writer.text(self._tokens[self._since : self._told])
        now = self._writer.text(self._tokens[self._since :])
        if now.endswith(_OPEN) or len(now) <= len(before):
            return ""
        self._since, self._told = self._told, len(self._tokens)
        return now[len(before) :]
