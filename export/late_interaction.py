"""What PyLate's folders say of queries and documents, as the server needs it."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from artifact.contract import LateContract
from export.sentence_transformers import SETTINGS_FILE
from model.checkpoint import CheckpointError

OUTPUT = "token_vectors"
_QUERY, _DOCUMENT = ("query_length", 32), ("document_length", 180)  # PyLate's own, where a folder has none
_FEWEST = 4  # of the first token, the prefix, one of the text, and the last one
_FILLERS = ("[MASK]", "<mask>")


def read_late(
    settings: Mapping[str, Any], folder: Path, tokenizer_file: Path | None, dim: int, longest: int
) -> LateContract:
    """Read how queries and documents are marked.

    Args:
        settings: Of the folder's config_sentence_transformers.json.
        folder: Where it lies, for messages.
        tokenizer_file: Which has the prefixes as tokens of their own, as PyLate saves it.
        dim: Numbers of each vector.
        longest: Most tokens that the network takes.

    Raises:
        CheckpointError: There is no tokenizer, it lacks a token, or a length is out of range.
    """
    file = folder / SETTINGS_FILE
    if tokenizer_file is None:
        raise CheckpointError(f"{folder}: has no tokenizer.json; expected one with the prefixes of {SETTINGS_FILE}")
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def find(name: str, token: str) -> int:
        found = tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{file}: {name} {token!r}; expected a token of tokenizer.json")
        return int(found)

    def length(name: str, default: int) -> int:
        value = settings.get(name) or default
        if not isinstance(value, int) or not _FEWEST <= value <= longest:
            raise CheckpointError(f"{file}: {name} {value!r}; expected {_FEWEST} to {longest} tokens")
        return value

    prefixes = [
        settings.get(name, default) for name, default in (("query_prefix", "[Q] "), ("document_prefix", "[D] "))
    ]
    query, document = (
        find(name, token) if token else None
        for name, token in zip(("query_prefix", "document_prefix"), prefixes, strict=True)
    )
    fills = settings.get("do_query_expansion", True)
    words = settings.get("skiplist_words")
    return LateContract(
        output=OUTPUT,
        dim=dim,
        query_prefix=query,
        document_prefix=document,
        query_tokens=length(*_QUERY),
        document_tokens=length(*_DOCUMENT),
        filler=_find_filler(tokenizer, file) if fills else None,
        attends_filler=bool(fills and settings.get("attend_to_expansion_tokens")),
        skipped=tuple(
            sorted({find("skiplist_words", word) for word in (string.punctuation if words is None else words)})
        ),
    )


def _find_filler(tokenizer: Tokenizer, file: Path) -> int:
    found = next((one for name in _FILLERS if (one := tokenizer.token_to_id(name)) is not None), None)
    if found is None:
        expected = f"a tokenizer with {' or '.join(_FILLERS)}, or do_query_expansion false"
        raise CheckpointError(f"{file}: do_query_expansion; expected {expected}")
    return int(found)
