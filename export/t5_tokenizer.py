"""Makes a file of the tokenizers library of what older T5 folders have in its place: one model of SentencePiece.

It is what the transformers library makes of such a model: behind its pieces stand the sentinels, <extra_id_0> the last.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from export.marian_tokenizer import read_model
from model.checkpoint import CheckpointError, read_json

PIECES_FILE = "spiece.model"
_END, _PAD = "</s>", "<pad>"
_UNKNOWN = 2  # sentencepiece_model.proto: ModelProto.SentencePiece.Type
_USUAL_SENTINELS, _MAX_SENTINELS = 100, 10_000


def make_tokenizer(folder: Path) -> str:
    """Make it, for what is read and for what is written.

    Raises:
        CheckpointError: The model cannot be read, or lacks the token behind a text's end or that for what is unknown.
    """
    file = folder / PIECES_FILE
    model = read_model(file)
    pieces = [(str(one.piece), float(one.score)) for one in model.pieces]
    unknown = next((place for place, one in enumerate(model.pieces) if one.type == _UNKNOWN), None)
    numbers = {text: token for token, (text, _) in enumerate(pieces)}
    if unknown is None or _END not in numbers:
        raise CheckpointError(f"{file}: has no {'unknown piece' if unknown is None else _END}; expected one")
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(_count_sentinels(folder)))]
    vocabulary = [*pieces, *((text, 0.0) for text in sentinels)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, byte_fallback=False))
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    spaced = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaced])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = [text for text in (_PAD, _END, pieces[unknown][0]) if text in numbers]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (*special, *sentinels)])
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {_END}", special_tokens=[(_END, numbers[_END])])
    return str(tokenizer.to_str())


def _count_sentinels(folder: Path) -> int:
    file = folder / "tokenizer_config.json"
    told = read_json(file).get("extra_ids", _USUAL_SENTINELS) if file.is_file() else _USUAL_SENTINELS
    if not isinstance(told, int) or not 0 <= told <= _MAX_SENTINELS:
        raise CheckpointError(f"{file}: extra_ids: {told!r}; expected 0 to {_MAX_SENTINELS}")
    return told
