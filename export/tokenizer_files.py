"""What the files of a tokenizer say of texts: whether it fits a network, and how long a text may be."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.sentence_transformers import SentenceFolder
from model.checkpoint import CheckpointError, read_json

_SENTENCE_FILE = "sentence_bert_config.json"
_NO_LIMIT = 10**9  # tokens


def check_tokenizer(file: Path, vocab_size: int) -> None:
    """Refuse a tokenizer that cannot be read, or does not fit.

    Args:
        file: Of the tokenizers library.
        vocab_size: Tokens that the network has.

    Raises:
        CheckpointError: It is not there, cannot be read, has more tokens, or keeps capitals that are to be lowered.
    """
    tokenizer = _read_tokenizer(file)
    if (found := tokenizer.get_vocab_size()) > vocab_size:
        raise CheckpointError(f"{file}: has {found} tokens; expected at most the network's {vocab_size}")
    settings = _sentence_settings(file.parent)
    if settings.get("do_lower_case") and not (tokenizer.normalizer and tokenizer.normalizer.normalize_str("A") == "a"):
        raise CheckpointError(
            f"{file}: keeps capitals; expected one that does what {_SENTENCE_FILE} says: do_lower_case"
        )


def count_pair_types(file: Path) -> int:
    """Into how many token types a tokenizer parts two texts that it joins; 0 where it only writes them in a row.

    Raises:
        CheckpointError: It is not there, or cannot be read.
    """
    tokenizer = _read_tokenizer(file)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    try:
        encoding = tokenizer.encode("a", "b")
    except Exception:  # the tokenizers library raises bare Exception, of letters that it does not know
        return 0
    parts = encoding.sequence_ids
    between = parts[parts.index(0) : parts.index(1)] if 0 in parts and 1 in parts else []
    return max(encoding.type_ids) + 1 if None in between else 0


def pair_types(sentence: SentenceFolder) -> int:
    """Into how many token types a folder's tokenizer parts a pair; 0 without one, or where texts are embedded alone."""
    file = sentence.network / "tokenizer.json"
    return count_pair_types(file) if file.is_file() and sentence.similarity is None else 0


def joins_pairs(types: int, rows: int | None) -> bool:
    """Whether a network reads two texts as one, as those who trained it meant.

    Args:
        types: Token types that its tokenizer tells apart in a pair; see count_pair_types.
        rows: Token types that the network tells apart, 0 where it is not told of them; None where nobody knows.
    """
    return types == 1 or (types > 1 and rows is not None and (rows == 0 or rows >= types))


def read_max_tokens(folder: Path) -> int:
    """The most tokens that sentence-transformers reads of a text; 0 where it does not say.

    Its newest releases leave that to the tokenizer's own files, which have a number like 1e30 for no limit.
    """
    settings, file = _sentence_settings(folder), folder / "tokenizer_config.json"
    told = settings.get("max_seq_length")
    if told is None and settings and file.is_file():
        told = read_json(file).get("model_max_length")
    if not isinstance(told, int | float | None):
        raise CheckpointError(f"{folder}: the most tokens of a text: {told!r}; expected a number")
    return int(told) if told and told < _NO_LIMIT else 0


def read_pad_token(folder: Path, config: Any) -> int:
    """The token that a text is filled up with, where its network reads all of its length: as the tokenizer's files say.

    Args:
        folder: With tokenizer.json.
        config: Of the network, which is asked where these do not say.

    Raises:
        CheckpointError: Nothing says so, or the tokenizer has no such token.
    """
    tokenizer = _read_tokenizer(folder / "tokenizer.json")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        told = read_json(folder / file).get("pad_token") if (folder / file).is_file() else None
        token = told.get("content") if isinstance(told, dict) else told
        if isinstance(token, str):
            if (number := tokenizer.token_to_id(token)) is None:
                raise CheckpointError(f"{folder / file}: pad_token: {token!r}; expected one that tokenizer.json has")
            return int(number)
    padding = tokenizer.padding
    number = padding["pad_id"] if padding else getattr(config, "pad_token_id", None)
    if not isinstance(number, int):
        raise CheckpointError(f"{folder}: pad_token: missing; expected one in tokenizer_config.json")
    return number


def _read_tokenizer(file: Path) -> Tokenizer:
    if not file.is_file():
        raise CheckpointError(f"{file}: not found; expected a file of the tokenizers library")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{file}: the tokenizers library cannot read it: {error}") from error


def _sentence_settings(folder: Path) -> dict[str, Any]:
    """What sentence-transformers says of how texts are read."""
    file = folder / _SENTENCE_FILE
    return read_json(file) if file.is_file() else {}
