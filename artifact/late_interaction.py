"""Texts of late interaction to tokens: queries and documents are marked, queries filled up to one length."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from artifact.contract import LateContract
from artifact.text import TextReader, Tokens


class LateReader:
    """Tokenises queries and documents as PyLate does. Safe to share between threads."""

    def __init__(self, tokenizer_file: Path, late: LateContract) -> None:
        """Read the tokenizer.

        Raises:
            ArtifactError: The file cannot be read.
        """
        self._late = late
        self._query = TextReader(tokenizer_file, late.query_tokens - (late.query_prefix is not None))
        self._document = TextReader(tokenizer_file, late.document_tokens - (late.document_prefix is not None))

    def read(
        self, text: str, *, query: bool, truncate: bool, max_bytes: int, prompt: str = "", positions: bool = True
    ) -> Tokens:
        """Tokenise a query or a document; arguments are those of TextReader.read, and raises alike."""
        late, reader = self._late, self._query if query else self._document
        tokens = reader.read(text, truncate=truncate, max_bytes=max_bytes, prompt=prompt, positions=positions)
        prefix = late.query_prefix if query else late.document_prefix
        if prefix is not None:
            tokens = _put(tokens, 1, [prefix], reader)
        if query and late.filler is not None:
            missing = late.query_tokens - len(tokens.ids)
            tokens = _put(tokens, len(tokens.ids), [late.filler] * missing, reader)
            tokens = replace(tokens, unattended=0 if late.attends_filler else missing)
        return tokens


def kept_positions(tokens: Tokens, late: LateContract, *, query: bool) -> list[int]:
    """Return the positions that have a vector in the answer: of a query all, of a document those not skipped."""
    if query:
        return list(range(len(tokens.ids)))
    return np.flatnonzero(~np.isin(tokens.ids, late.skipped)).tolist()


def _put(tokens: Tokens, place: int, ids: list[int], reader: TextReader) -> Tokens:
    """Put special tokens between others."""
    found = replace(tokens, ids=np.insert(tokens.ids, place, ids))
    if not tokens.special:  # nobody asks where they came from
        return found
    count = len(ids)
    return replace(
        found,
        texts=[*tokens.texts[:place], *reader.spell(ids), *tokens.texts[place:]],
        offsets=[*tokens.offsets[:place], *[(0, 0)] * count, *tokens.offsets[place:]],
        special=[*tokens.special[:place], *[True] * count, *tokens.special[place:]],
    )
