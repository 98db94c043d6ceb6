"""Marian's tokenizers: tests/export/small/marian holds models of 90 pieces, and what the library does with them.

They were trained by SentencePiece on words of this repository's documents, the target's on the same words reversed;
expected.json is transformers' MarianTokenizer on the same files.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from export.marian_tokenizer import make_tokenizers
from model.checkpoint import CheckpointError

FOLDER = Path(__file__).parent / "small" / "marian"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
VOCABULARY = json.loads((FOLDER / "vocab.json").read_text())


def test_texts_are_read_and_written_as_the_library_does() -> None:
    """Composed characters, spaces, lines, languages, and letters that nobody knows."""
    source, target = (Tokenizer.from_str(one) for one in make_tokenizers(FOLDER)[:2])
    assert len(EXPECTED["read"]) == 40
    assert [source.encode(text).ids for text, _ in EXPECTED["read"]] == [ids for _, ids in EXPECTED["read"]]
    assert [target.encode(text).ids for text, _ in EXPECTED["targets"]] == [ids for _, ids in EXPECTED["targets"]]
    assert [target.decode(ids).strip() for ids, _ in EXPECTED["written"]] == [text for _, text in EXPECTED["written"]]


def test_a_language_is_a_token_and_the_end_is_not_read_from_text() -> None:
    """What a caller writes cannot end the source."""
    source = Tokenizer.from_str(make_tokenizers(FOLDER)[0])
    encoding = source.encode(">>fra<< the</s>")
    assert encoding.ids[0] == VOCABULARY[">>fra<<"]
    assert encoding.ids.count(VOCABULARY["</s>"]) == 1
    assert encoding.ids[-1] == VOCABULARY["</s>"]
    assert encoding.tokens[-1] == "</s>"
    assert encoding.special_tokens_mask[-1] == 1


def test_pieces_without_a_number_are_told() -> None:
    """vocab.json was made without one."""
    assert make_tokenizers(FOLDER)[2] == "1 pieces of source.spm are not in vocab.json: texts are cut into others"


def test_each_side_may_have_numbers_of_its_own(tmp_path: Path) -> None:
    """Where the folder says so."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    own = {text: len(VOCABULARY) - 1 - token for text, token in VOCABULARY.items()}
    (tmp_path / "target_vocab.json").write_text(json.dumps(own))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    source, target, _ = make_tokenizers(tmp_path)
    assert Tokenizer.from_str(source).to_str() == Tokenizer.from_str(make_tokenizers(FOLDER)[0]).to_str()
    ids, text = EXPECTED["written"][0]
    assert Tokenizer.from_str(target).decode([len(VOCABULARY) - 1 - one for one in ids]).strip() == text


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "target.spm").unlink(), r"target\.spm: not found; expected a model of SentencePiece"),
        (lambda folder: (folder / "source.spm").write_bytes(b"\xff" * 9), r"source\.spm: not a model of SentencePiece"),
        (lambda folder: (folder / "vocab.json").write_text('{"a": 0}'), r"vocab\.json: <unk>: missing; expected a"),
        (lambda folder: (folder / "vocab.json").write_text('{"a": 0, "b": 0}'), "expected each piece with a number of"),
        (lambda folder: (folder / "vocab.json").write_text('{"a": "0"}'), "expected each piece with a number of its"),
    ],
)
def test_files_that_cannot_be_read_are_refused(harm: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """The error names the file."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    harm(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        make_tokenizers(tmp_path)
