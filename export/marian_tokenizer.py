"""Makes files of the tokenizers library of what Marian's folders have in their place: SentencePiece's models.

source.spm and target.spm cut texts into pieces, vocab.json numbers the pieces of both (target_vocab.json those of the
target where each side has its own).
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers.utils import sentencepiece_model_pb2_new

from model.checkpoint import CheckpointError, read_json

SOURCE_FILE, TARGET_FILE = "source.spm", "target.spm"
_UNIGRAM = 1  # sentencepiece_model.proto: TrainerSpec.ModelType
_NORMAL, _USER_DEFINED = 1, 4  # ModelProto.SentencePiece.Type: what texts are cut into
_UNKNOWN, _END = "<unk>", "</s>"
# Before what no text may become: spaces are "\u2581" when pieces are looked up, so nothing with one is found.
_HIDDEN = " "


def make_tokenizers(folder: Path) -> tuple[str, str, str]:
    """Make the tokenizers of source and target.

    Returns:
        Two files of the tokenizers library, and what is left out, for people.

    Raises:
        CheckpointError: A file is missing, or is not what it should be.
    """
    config = folder / "tokenizer_config.json"
    separate = config.is_file() and read_json(config).get("separate_vocabs")
    source, missing = _make(folder / SOURCE_FILE, folder / "vocab.json", writes=False)
    target, _ = _make(folder / TARGET_FILE, folder / ("target_vocab.json" if separate else "vocab.json"), writes=True)
    told = f"{missing} pieces of {SOURCE_FILE} are not in vocab.json: texts are cut into others" if missing else ""
    return source, target, told


def _make(file: Path, numbers: Path, *, writes: bool) -> tuple[str, int]:
    vocabulary, model = _read_vocabulary(numbers), read_model(file)
    scores = {one.piece: one.score for one in model.pieces if one.type in (_NORMAL, _USER_DEFINED)}
    special = {_END, _UNKNOWN, "<pad>"} & vocabulary.keys()
    codes = [text for text in vocabulary if text.startswith(">>") and text.endswith("<<")]
    shown = {*codes, *(special if writes else ())}
    tokenizer = Tokenizer(_unigram(vocabulary, scores, shown))
    charsmap = model.normalizer_spec.precompiled_charsmap
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Precompiled(charsmap)] if charsmap else []),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_HIDDEN, ""), decoders.Metaspace(prepend_scheme="always")])
    tokenizer.add_tokens([AddedToken(code, normalized=False) for code in codes])
    if writes:
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in sorted(special)])
    else:
        template = [(_END, vocabulary[_END])]
        tokenizer.post_processor = processors.TemplateProcessing(f"$A {_END}", special_tokens=template)
    return str(tokenizer.to_str()), len(scores.keys() - vocabulary.keys())


def _unigram(vocabulary: Mapping[str, int], scores: Mapping[str, float], shown: Collection[str]) -> models.Unigram:
    """Number the pieces as the vocabulary does; what is no piece of this side is hidden from texts, unless shown."""
    lowest = min(scores.values(), default=0.0)
    pieces = [(f"{_HIDDEN}{token}", lowest) for token in range(max(vocabulary.values()) + 1)]
    for text, token in vocabulary.items():
        spelt = text if text in scores or text in shown else f"{_HIDDEN}{text}"
        pieces[token] = (spelt, scores.get(text, lowest))
    return models.Unigram(pieces, vocabulary[_UNKNOWN], byte_fallback=False)


def _read_vocabulary(file: Path) -> dict[str, int]:
    vocabulary = read_json(file)
    numbers = list(vocabulary.values())
    if not all(isinstance(one, int) and one >= 0 for one in numbers) or len(set(numbers)) != len(numbers):
        raise CheckpointError(f"{file}: expected each piece with a number of its own")
    for text in (_UNKNOWN, _END):
        if text not in vocabulary:
            raise CheckpointError(f"{file}: {text}: missing; expected a number for it")
    return vocabulary


def read_model(file: Path) -> Any:
    """Read a model of SentencePiece that cuts texts by unigrams.

    Raises:
        CheckpointError: It is not there, or is none.
    """
    try:
        messages: Any = sentencepiece_model_pb2_new  # whose classes are made when it is imported
        model = messages.ModelProto.FromString(file.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: not found; expected a model of SentencePiece") from error
    except Exception as error:  # protobuf's errors have no common base that is typed
        raise CheckpointError(f"{file}: not a model of SentencePiece: {error}") from error
    if model.trainer_spec.model_type != _UNIGRAM:
        raise CheckpointError(f"{file}: model_type: {model.trainer_spec.model_type}; expected {_UNIGRAM}, unigram")
    return model
