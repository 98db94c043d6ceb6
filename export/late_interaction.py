"""What PyLate's folders, and those of ColBERT's own code, say of queries and documents, as the server needs it."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from artifact.contract import LateContract
from export.sentence_transformers import COLBERT_FILE, SETTINGS_FILE
from model.checkpoint import CheckpointError

OUTPUT = "token_vectors"
_QUERY_TOKENS, _DOCUMENT_TOKENS = 32, 180  # PyLate's own, where a folder says nothing
_COLBERT_DOCUMENT_TOKENS = 220  # ColBERT's own
_FEWEST = 4  # of the first token, the prefix, one of the text, and the last one
_FILLERS = ("[MASK]", "<mask>")


@dataclass(frozen=True)
class _Settings:
    """A file of settings beside a tokenizer; raises CheckpointError by the name of a setting.

    Attributes:
        file: For messages.
        told: What it says.
        tokenizer: Which has the prefixes as tokens of their own.
        longest: Most tokens that the network takes.
    """

    file: Path
    told: Mapping[str, Any]
    tokenizer: Tokenizer
    longest: int

    def token(self, name: str, token: str) -> int:
        """Find a token."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{self.file}: {name} {token!r}; expected a token of tokenizer.json")
        return int(found)

    def prefix(self, name: str, default: str) -> int | None:
        """Find the token that is put before texts; None where there is none."""
        token = self.told.get(name, default)
        return self.token(name, str(token)) if token else None

    def length(self, name: str, default: int) -> int:
        """Read a number of tokens."""
        value = self.told.get(name) or default
        if not isinstance(value, int) or not _FEWEST <= value <= self.longest:
            raise CheckpointError(f"{self.file}: {name} {value!r}; expected {_FEWEST} to {self.longest} tokens")
        return value

    def filler(self, what: str, otherwise: str = "") -> int:
        """Find what queries are filled up with."""
        found = next((one for name in _FILLERS if (one := self.tokenizer.token_to_id(name)) is not None), None)
        if found is None:
            expected = f"a tokenizer with {' or '.join(_FILLERS)}{otherwise}"
            raise CheckpointError(f"{self.file}: {what}; expected {expected}")
        return int(found)


def _open(folder: Path, name: str, settings: Mapping[str, Any], tokenizer_file: Path | None, longest: int) -> _Settings:
    if tokenizer_file is None:
        raise CheckpointError(f"{folder}: has no tokenizer.json; expected one with the prefixes of {name}")
    return _Settings(folder / name, settings, Tokenizer.from_file(str(tokenizer_file)), longest)


def read_late(
    settings: Mapping[str, Any], folder: Path, tokenizer_file: Path | None, dim: int, longest: int
) -> LateContract:
    """Read how PyLate marks queries and documents.

    Args:
        settings: Of the folder's config_sentence_transformers.json.
        folder: Where it lies, for messages.
        tokenizer_file: Which has the prefixes as tokens of their own, as PyLate saves it.
        dim: Numbers of each vector.
        longest: Most tokens that the network takes.

    Raises:
        CheckpointError: There is no tokenizer, it lacks a token, or a length is out of range.
    """
    told = _open(folder, SETTINGS_FILE, settings, tokenizer_file, longest)
    fills, words = settings.get("do_query_expansion", True), settings.get("skiplist_words")
    return LateContract(
        output=OUTPUT,
        dim=dim,
        query_prefix=told.prefix("query_prefix", "[Q] "),
        document_prefix=told.prefix("document_prefix", "[D] "),
        query_tokens=told.length("query_length", _QUERY_TOKENS),
        document_tokens=told.length("document_length", _DOCUMENT_TOKENS),
        filler=told.filler("do_query_expansion", ", or do_query_expansion false") if fills else None,
        attends_filler=bool(fills and settings.get("attend_to_expansion_tokens")),
        skipped=tuple(
            sorted({told.token("skiplist_words", word) for word in (string.punctuation if words is None else words)})
        ),
    )


def read_colbert(
    settings: Mapping[str, Any], folder: Path, tokenizer_file: Path | None, dim: int, longest: int
) -> LateContract:
    """Read how ColBERT's own code marks queries and documents (github.com/stanford-futuredata/ColBERT).

    Queries are always filled up with mask tokens. What it skips of documents are the first tokens of punctuation marks,
    whatever they are.

    Args:
        settings: Of the folder's artifact.metadata.
        folder: Where it lies, for messages.
        tokenizer_file: Which has the marks as tokens.
        dim: Numbers of each vector.
        longest: Most tokens that the network takes.

    Raises:
        CheckpointError: There is no tokenizer, it lacks a token, or a length is out of range.
    """
    told = _open(folder, COLBERT_FILE, settings, tokenizer_file, longest)
    skips = settings.get("mask_punctuation", True)
    marks = [told.tokenizer.encode(mark, add_special_tokens=False).ids[:1] for mark in string.punctuation]
    return LateContract(
        output=OUTPUT,
        dim=dim,
        query_prefix=told.prefix("query_token_id", "[unused0]"),
        document_prefix=told.prefix("doc_token_id", "[unused1]"),
        query_tokens=told.length("query_maxlen", _QUERY_TOKENS),
        document_tokens=told.length("doc_maxlen", _COLBERT_DOCUMENT_TOKENS),
        filler=told.filler("queries are filled up"),
        attends_filler=bool(settings.get("attend_to_mask_tokens")),
        skipped=tuple(sorted({mark for first in marks for mark in first if skips})),
    )
