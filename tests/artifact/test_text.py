from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from artifact.errors import ArtifactError, InputError
from artifact.text import TextReader
from tests.golden import GOLDEN_NETWORK

FILE = GOLDEN_NETWORK / "tokenizer.json"
READER = TextReader(FILE, max_tokens=8)


def read(text: str, *, truncate: bool = False) -> list[str]:
    """The tokens of a text, as the vocabulary spells them."""
    return READER.read(text, truncate=truncate, max_bytes=1000).texts


def test_tokens_equal_the_tokenizers_library() -> None:
    """Ids, spelling and special tokens."""
    tokens = READER.read("The cat sat.", truncate=False, max_bytes=1000)
    encoding = Tokenizer.from_file(str(FILE)).encode("The cat sat.")
    assert tokens.ids.tolist() == encoding.ids
    assert tokens.texts == ["[CLS]", "the", "cat", "sat", ".", "[SEP]"]
    assert tokens.special == [True, False, False, False, False, True]
    assert tokens.ids.dtype == np.int64


def test_offsets_count_characters_of_the_sent_text_not_bytes() -> None:
    """An emoji and an accent before a word do not shift it."""
    text = "é🙂 cat"
    tokens = READER.read(text, truncate=False, max_bytes=1000)
    start, end = tokens.offsets[tokens.texts.index("cat")]
    assert text[start:end] == "cat"


def test_a_text_with_too_many_tokens_is_refused_unless_it_may_be_cut() -> None:
    """The special token at the end stays."""
    with pytest.raises(InputError, match="text: 12 tokens; expected at most 8, or truncate set"):
        read("the cat " * 5)
    tokens = READER.read("the cat " * 5, truncate=True, max_bytes=1000)
    assert tokens.truncated
    assert tokens.texts == ["[CLS]", "the", "cat", "the", "cat", "the", "cat", "[SEP]"]


def test_a_prompt_is_read_before_the_text_and_is_no_part_of_it() -> None:
    """Its tokens came from nowhere in the text; a text that is only a prompt is empty still."""
    tokens = READER.read("é cat", truncate=False, max_bytes=6, prompt="the dog: ")
    assert tokens.texts == ["[CLS]", "the", "dog", ":", "e", "cat", "[SEP]"]
    assert tokens.offsets == [(0, 0), (0, 0), (0, 0), (0, 0), (0, 1), (2, 5), (0, 0)]
    with pytest.raises(InputError, match="text: empty"):
        READER.read(" ", truncate=False, max_bytes=6, prompt="the dog: ")
    assert READER.read("cat " * 9, truncate=True, max_bytes=99, prompt="the dog ").texts[:3] == ["[CLS]", "the", "dog"]


def test_a_text_of_which_no_token_is_left_is_refused() -> None:
    """The vector would be that of the prompt, or of nothing."""
    prompt = "the dog the dog the dog "
    with pytest.raises(InputError, match="text: no token left of 8; expected a text of which tokens are among"):
        READER.read("cat", truncate=True, max_bytes=99, prompt=prompt)
    with pytest.raises(InputError, match="text: no token left of 2; expected a text of which tokens"):
        read("\u200b")
    assert READER.read("cat", truncate=True, max_bytes=99, prompt="the dog the dog the ").texts[-2:] == ["cat", "[SEP]"]


def test_a_text_that_fits_is_not_marked_as_cut() -> None:
    """Even where it might have been; six words and two special tokens are as many as fit."""
    assert not READER.read("the cat", truncate=True, max_bytes=1000).truncated
    assert not READER.read("the cat " * 3, truncate=True, max_bytes=len("the cat " * 3)).truncated


def test_what_a_tokenizer_pads_or_cuts_by_itself_is_its_own_affair(tmp_path: Path) -> None:
    """Files come with both set; here a text keeps its tokens, or is cut where its caller says so."""
    tokenizer = Tokenizer.from_file(str(FILE))
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    reader = TextReader(tmp_path / "tokenizer.json", 8)
    for text, truncate in (("the cat sat.", False), ("the cat " * 5, True)):
        found = reader.read(text, truncate=truncate, max_bytes=1000)
        assert found.texts == READER.read(text, truncate=truncate, max_bytes=1000).texts


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_refused(text: str) -> None:
    """White space is nothing to look at."""
    with pytest.raises(InputError, match="text: empty; expected a text with something in it"):
        read(text)


def test_a_text_of_ten_megabytes_is_refused_before_it_is_tokenised() -> None:
    """By its size in bytes."""
    with pytest.raises(InputError, match="text: 10000000 bytes; expected at most 1000 "):
        read("x" * 10_000_000)


def test_a_damaged_tokenizer_stops_the_start(tmp_path: Path) -> None:
    """With the file's name."""
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: the tokenizers library cannot read it"):
        TextReader(tmp_path / "tokenizer.json", 8)


@pytest.mark.parametrize("text", ["the cat sat.", "see: not (a) very good film!", "cat"])
def test_ids_are_the_text_that_they_spell(text: str) -> None:
    """The same tokens again, with the special ones at both ends or without; also where texts are filled up."""
    filled = TextReader(FILE, max_tokens=32, pad_token=0)
    ids = Tokenizer.from_file(str(FILE)).encode(text).ids
    for reader in (READER, filled):
        for given in (ids, ids[1:-1]):
            spelt = reader.text_of(given, 1000)
            assert Tokenizer.from_file(str(FILE)).encode(spelt).ids == ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([6, 999], "id 999; expected ids of the model's own tokenizer, up to 159"),
        ([6, 2, 6], "3 ids, of which it would make others from the 2. on; expected those that the model's own"),
        ([2, 2, 6, 3, 3], "5 ids, of which it would make others from the 2. on"),
        ([2, 3], "empty; expected a text with something in it"),
        ([6] * 1001, "1001 ids; expected at most 1000 (the server's --max-text-bytes)"),
        ([6] * 500, "1999 bytes; expected at most 1000 (the server's --max-text-bytes)"),
    ],
)
def test_ids_that_no_text_has_are_refused(ids: list[int], message: str) -> None:
    """They would be another tokenizer's, and mean something else."""
    with pytest.raises(InputError) as caught:
        READER.text_of(ids, 1000)
    assert str(caught.value).startswith(f"token_ids: {message}")
