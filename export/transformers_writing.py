"""Reads encoder-decoders of the transformers library that write text: Marian, BART and mBART, T5, MT5 and UMT5."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from pydantic import ValidationError
from tokenizers import Tokenizer
from torch import Tensor, nn

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS
from artifact.errors import explain
from artifact.generation import TOKENS, GenerationContract
from export.encoder_decoder import MASK, TARGET_TOKENIZER_FILE, Writing, name_source
from export.marian_tokenizer import SOURCE_FILE, TARGET_FILE, make_tokenizers
from export.next_token import LibraryNextToken
from export.t5_tokenizer import PIECES_FILE, make_tokenizer
from export.tokenizer_files import check_tokenizer
from export.traits import InputSpec, Traits
from export.transformers_checkpoint import read_writer
from export.transformers_parts import Parts, find_parts
from export.transformers_step import LibraryStep
from model.attention import KeysValues
from model.checkpoint import CheckpointError

_LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")  # as mBART's tokenizers name it: en_XX
# Of a generation's settings, those that change what is written and are not followed, with what means nothing.
_UNFOLLOWED: Mapping[str, tuple[Any, ...]] = {
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beam_groups": (None, 1),
    "do_sample": (None, False),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
}


class LibraryReader(nn.Module):
    """The half that reads: token ids to each decoder layer's keys and values of them."""

    input_names: tuple[str, ...] = (TOKENS, MASK)

    def __init__(self, fused: Any, explained: Any, parts: Parts) -> None:
        """Take the network twice, with the same weights: with fused attention, and with eager."""
        super().__init__()
        self.fused, self.explained, self.parts = fused, explained, parts

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Read int64 [B, S] with a mask of 1 and 0."""
        return self._read(self.fused, inputs)[0]

    def explain(self, *inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return each layer's weights, too."""
        outputs, answer = self._read(self.explained, inputs, output_attentions=True)
        return outputs, list(answer.attentions)

    def show_states(self, *inputs: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the hidden states, too."""
        outputs, answer = self._read(self.fused, inputs, output_hidden_states=True)
        return outputs, list(answer.hidden_states)

    def _read(self, network: Any, inputs: tuple[Tensor, ...], **options: bool) -> tuple[dict[str, Tensor], Any]:
        given = dict(zip(self.input_names, inputs, strict=True))
        answer = network.get_encoder()(**given, return_dict=True, **options)
        hidden, layers = answer.last_hidden_state, list[KeysValues]()
        for cross in self.parts.cross:
            shape = (*hidden.shape[:2], -1, self.parts.head_dim)
            layers.append(KeysValues(*(project(hidden).view(shape).transpose(1, 2) for project in cross)))
        return name_source(layers), answer


def load_writer(folder: Path) -> tuple[LibraryReader, Traits, Writing, str]:
    """Read a folder; returns also what of it is not followed, for people.

    Raises:
        CheckpointError: It cannot be read, lacks weights, or its files do not say how text is read and written.
    """
    fused, explained = read_writer(folder, transformers.AutoModelForSeq2SeqLM)
    parts = find_parts(fused)
    source, target, left_out = _read_tokenizers(folder, _target_size(fused))
    axes = (BATCH_AXIS, SEQUENCE_AXIS)
    ids = InputSpec(TOKENS, axes, "int64", bound=fused.get_encoder().embed_tokens.num_embeddings)
    mask = InputSpec(MASK, axes, "int64", bound=2, mask=True)
    traits = Traits((ids, mask), parts.max_positions)
    settings = read_settings(folder, fused)
    starts, default = _find_starts(folder, settings, Tokenizer.from_str(target))
    longest, positions = max(map(len, starts.values())), parts.max_positions
    forced = int(settings.forced_bos_token_id is not None)  # which the library counts as written
    most = settings.max_new_tokens - forced if settings.max_new_tokens else (settings.max_length or positions) - longest
    generation = describe_generation(
        folder,
        fused,
        parts,
        settings,
        starts,
        default,
        max_tokens=min(most, positions - longest),
        forced_start_tokens=forced,
    )

    def tell(
        source_ids: Tensor, mask: Tensor, target_ids: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        answer = explained(
            input_ids=source_ids,
            attention_mask=mask,
            decoder_input_ids=target_ids,
            output_attentions=True,
            use_cache=False,
        )
        return answer.logits, answer.decoder_attentions, answer.cross_attentions

    step = LibraryStep(fused, parts)
    next_token = LibraryNextToken(explained, (TOKENS, MASK), parts.output_scale)
    writing = Writing(step, tell, next_token, generation, parts.max_positions, source, target)
    assumed = "; ".join(filter(None, (left_out, name_unfollowed(settings))))
    return LibraryReader(fused, explained, parts), traits, writing, assumed


def describe_generation(
    folder: Path,
    network: Any,
    parts: Parts,
    settings: Any,
    starts: dict[str, tuple[int, ...]],
    default: str,
    *,
    max_tokens: int,
    **further: Any,
) -> GenerationContract:
    """Put into a contract what a network has and its settings say.

    Args:
        folder: For errors.
        network: It.
        parts: Of it.
        settings: See read_settings.
        starts: What it may begin with.
        default: The name of one of these.
        max_tokens: The most that may be written; 1 at least.
        further: Fields of the contract that others leave out.

    Raises:
        CheckpointError: A token is missing, or something is said that cannot be.
    """
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if None in ends or settings.pad_token_id is None:
        field = "pad_token_id" if settings.pad_token_id is None else "eos_token_id"
        raise CheckpointError(f"{folder}: {field}: missing; expected a token in generation_config.json or config.json")
    last = settings.forced_eos_token_id
    never = [words[0] for words in settings.bad_words_ids or () if len(words) == 1]
    try:
        return GenerationContract(
            num_layers=len(parts.cross),
            num_heads=parts.num_heads,
            head_dim=parts.head_dim,
            scale=parts.scale,
            self_biases=len(parts.biases),
            vocab_size=_target_size(network),
            starts=starts,
            default_start=default,
            end_tokens=tuple(ends),
            forced_end_token=min(last, default=None) if isinstance(last, list) else last,
            pad_token=settings.pad_token_id,
            max_tokens=max(1, max_tokens),
            tokenizer_file=TARGET_TOKENIZER_FILE,
            suppressed_tokens=tuple(dict.fromkeys([*never, *(settings.suppress_tokens or ())])),
            first_suppressed_tokens=tuple(settings.begin_suppress_tokens or ()),
            num_beams=settings.num_beams or 1,
            length_penalty=1.0 if settings.length_penalty is None else settings.length_penalty,
            early_stopping=settings.early_stopping or False,
            **further,
        )
    except ValidationError as error:
        raise CheckpointError(f"{folder}: what is said of generation: {explain(error)}") from error


def _find_starts(folder: Path, settings: Any, tokenizer: Tokenizer) -> tuple[dict[str, tuple[int, ...]], str]:
    """What it begins with, a token that is forced included; of mBART one for each language."""
    start, forced = settings.decoder_start_token_id, settings.forced_bos_token_id
    if start is None:
        raise CheckpointError(f"{folder}: decoder_start_token_id: missing; expected a token")
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    languages = {text: token for text, token in vocabulary.items() if _LANGUAGE.fullmatch(text)}
    default = (start,) if forced is None else (start, forced)
    name = tokenizer.id_to_token(default[-1])
    if name not in languages:
        return {"default": default}, "default"
    return {text: (*default[:-1], token) for text, token in sorted(languages.items())}, name


def read_settings(folder: Path, network: Any) -> Any:
    """What generation_config.json says, or config.json where there is none, as the library reads it."""
    settings = network.generation_config
    if (folder / "generation_config.json").is_file() and settings is not None:
        return settings
    return transformers.GenerationConfig.from_model_config(network.config)


def name_unfollowed(settings: Any) -> str:
    """Which settings are not followed."""
    named = [
        f"{name} {getattr(settings, name)}"
        for name, nothing in _UNFOLLOWED.items()
        if getattr(settings, name, None) not in nothing
    ]
    named += [f"bad_words_ids {words}" for words in settings.bad_words_ids or () if len(words) > 1]
    return f"not followed when text is written: {', '.join(named)}" if named else ""


def _target_size(network: Any) -> int:
    return int(network.get_output_embeddings().weight.shape[0])


def _read_tokenizers(folder: Path, vocab_size: int) -> tuple[str, str, str]:
    """Read tokenizer.json, for both sides, or what Marian or T5 has in its place; and say what is left out.

    Raises:
        CheckpointError: It is not there, cannot be read, or has more tokens than the network.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() and (folder / PIECES_FILE).is_file():
        content = make_tokenizer(folder)
        _check_size(folder / PIECES_FILE, content, vocab_size)
        return content, content, ""
    if file.is_file() or not (folder / SOURCE_FILE).is_file():
        check_tokenizer(file, vocab_size)
        content = file.read_text(encoding="utf-8")
        return content, content, ""
    source, target, left_out = make_tokenizers(folder)
    for name, tokenizer in ((SOURCE_FILE, source), (TARGET_FILE, target)):
        _check_size(folder / name, tokenizer, vocab_size)
    return source, target, left_out


def _check_size(file: Path, tokenizer: str, vocab_size: int) -> None:
    if (found := Tokenizer.from_str(tokenizer).get_vocab_size()) > vocab_size:
        raise CheckpointError(f"{file}: has {found} tokens; expected at most the network's {vocab_size}")
