"""Compares how the server will read texts with how the transformers library's own tokenizer of a folder does."""

from pathlib import Path
from typing import Any

import transformers

from artifact.text import TextReader
from export.sources import Source
from model.checkpoint import CheckpointError, read_json
from server.errors import first_line

_CONFIG_FILE = "tokenizer_config.json"
_TEXTS = ("a photo of a cat.", "Two Dogs, running  (fast)!", "été à la plage", "a")
_MAX_BYTES = 2**16


def check_as_library(folder: Path, source: Source) -> str:
    """Compare some texts; returns why they were not compared, empty where they were.

    They are not where the folder does not say which tokenizer of the library is its own.

    Args:
        folder: With tokenizer_config.json, or without.
        source: Of texts.

    Raises:
        CheckpointError: The tokens differ.
    """
    if source.tokenizer_file is None or not (folder / _CONFIG_FILE).is_file():
        return f"no {_CONFIG_FILE}: texts are read as tokenizer.json does, and compared with nothing"
    try:
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # the library raises whatever its parts raise, where a package is missing that it wants
        named = read_json(folder / _CONFIG_FILE).get("tokenizer_class")
        return f"texts were not compared with the library's own {named}, which cannot be made: {first_line(error)}"
    reader = TextReader(source.tokenizer_file, source.token_limit, source.pad_token)
    fills = {"padding": "max_length", "max_length": source.token_limit} if source.pad_token is not None else {}
    for text in _TEXTS:
        found = reader.read(text, truncate=True, max_bytes=_MAX_BYTES, positions=False).ids.tolist()
        wanted = list(tokenizer(text, truncation=True, **({"max_length": source.token_limit} | fills))["input_ids"])
        if found != wanted:
            kind = type(tokenizer).__name__
            raise CheckpointError(
                f"{folder}: {kind} reads {text!r} as {wanted[:12]}; tokenizer.json as {found[:12]}, expected the same"
            )
    return ""
