"""T5's tokenizer made of a model of SentencePiece alone: as the transformers library makes it."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer
from transformers.utils import sentencepiece_model_pb2_new

from export.t5_tokenizer import make_tokenizer
from export.transformers_writing import load_writer
from model.checkpoint import CheckpointError
from tests.export.t5_folders import write_t5
from tests.export.test_marian_tokenizer import FOLDER as MARIAN

CONTROL, UNKNOWN, NORMAL = 3, 2, 1  # types of pieces
TEXTS = (
    "the attention of a model", "two  spaces\nand a line", "\ufb01ne \u00e9t\u00e9", "zq\u4e00 7", "",
    "a <extra_id_0> b <extra_id_2>", " before and behind ", "<unk> and </s>",
)  # fmt: skip


def write_pieces(folder: Path, special: tuple[tuple[str, int], ...]) -> Any:
    """Write the pieces of Marian's small model, T5's own tokens before them; returns the model."""
    messages: Any = sentencepiece_model_pb2_new
    model = messages.ModelProto.FromString((MARIAN / "source.spm").read_bytes())
    spelt = [(one.piece, one.score) for one in model.pieces if one.type == NORMAL]
    del model.pieces[:]
    for text, kind in special:
        model.pieces.add(piece=text, score=0.0, type=kind)
    for text, score in spelt:
        model.pieces.add(piece=text, score=score, type=NORMAL)
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 3}))
    return model


SPECIAL = (("<pad>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN))


def test_texts_are_read_and_written_as_the_library_does(tmp_path: Path) -> None:
    """Composed characters, spaces, sentinels, what nobody knows; and back."""
    model = write_pieces(tmp_path, SPECIAL)
    pieces = [(one.piece, one.score) for one in model.pieces]
    expected = transformers.T5Tokenizer(
        [*pieces, *((f"<extra_id_{number}>", 0.0) for number in (2, 1, 0))],
        _spm_precompiled_charsmap=model.normalizer_spec.precompiled_charsmap,
        extra_ids=3,
    )
    found = Tokenizer.from_str(make_tokenizer(tmp_path))
    assert found.get_vocab() == expected.get_vocab()
    assert found.token_to_id("<extra_id_0>") == len(pieces) + 2
    for text in TEXTS:
        ids = found.encode(text).ids
        assert ids == expected(text).input_ids
        assert ids[-1] == 1
        assert found.decode(ids, skip_special_tokens=True) == expected.decode(ids, skip_special_tokens=True)


def test_a_folder_with_the_model_alone_is_read(tmp_path: Path) -> None:
    """Where the network has as many tokens."""
    (write_t5(tmp_path, "t5") / "tokenizer.json").unlink()
    write_pieces(tmp_path, SPECIAL)
    with pytest.raises(CheckpointError, match=r"spiece\.model: has \d+ tokens; expected at most the network's 48"):
        load_writer(tmp_path)
    write_t5(tmp_path, "t5", vocab_size=128)
    (tmp_path / "tokenizer.json").unlink()
    writing = load_writer(tmp_path)[2]
    assert writing.tokenizer == writing.target_tokenizer == make_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("special", "config", "message"),
    [
        (SPECIAL[:2], {}, r"spiece\.model: has no unknown piece; expected one"),
        (SPECIAL[::2], {}, r"spiece\.model: has no </s>; expected one"),
        (SPECIAL, {"extra_ids": -1}, r"tokenizer_config\.json: extra_ids: -1; expected 0 to 10000"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    special: tuple[tuple[str, int], ...], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The error names the file and what is missing."""
    write_pieces(tmp_path, special)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        make_tokenizer(tmp_path)
