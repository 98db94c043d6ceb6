"""Reads Whisper folders of the transformers library: what reads sound, and writes what is said."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from artifact.contract import BATCH_AXIS
from export.encoder_decoder import Writing
from export.next_token import LibraryNextToken
from export.sound import read_audio_contract
from export.tokenizer_files import check_tokenizer
from export.traits import InputSpec, Traits
from export.transformers_checkpoint import read_writer
from export.transformers_parts import Parts, find_parts
from export.transformers_step import LibraryStep
from export.transformers_writing import LibraryReader, describe_generation, name_unfollowed, read_settings
from model.checkpoint import CheckpointError

FEATURES = "input_features"
_TASKS = {"transcribe": "", "translate": "-translate"}  # behind a language in the name of a start
_DETECT = "detect"  # in place of a language


class SoundReader(LibraryReader):
    """The half that reads: float32 [B, num_mel_bins, num_frames] to each decoder layer's keys and values of it."""

    input_names = (FEATURES,)


class WhisperStep(LibraryStep):
    """A step of a decoder that takes one mask alone, and scales queries itself: these are left as they are."""

    masks = ("attention_mask",)

    def __init__(self, network: Any, parts: Parts) -> None:
        """Take a network as LibraryStep does."""
        super().__init__(network, parts)
        for layer in self.network.get_decoder().layers:
            layer.self_attn.scaling = layer.encoder_attn.scaling = 1.0


def load_whisper(folder: Path) -> tuple[SoundReader, Traits, Writing, str]:
    """Read a folder; returns also what of it is not followed, for people.

    Raises:
        CheckpointError: It cannot be read, lacks weights, or its files do not say how sound is read or text written.
    """
    fused, explained = read_writer(folder, transformers.AutoModelForSpeechSeq2Seq)
    config, settings, parts = fused.config, read_settings(folder, fused), find_parts(fused)
    audio = read_audio_contract(folder, config)
    sound = InputSpec(FEATURES, (BATCH_AXIS, audio.num_mel_bins, audio.num_frames))
    starts, chosen, default = _find_starts(folder, settings, config)
    positions = config.max_target_positions
    # The library does not count what it begins with.
    most = settings.max_new_tokens or settings.max_length or positions
    generation = describe_generation(
        folder,
        fused,
        parts,
        settings,
        starts,
        default,
        max_tokens=min(most, positions - max(map(len, starts.values()))),
        chosen_starts=chosen,
        alignment_heads=getattr(settings, "alignment_heads", None) or (),
        source_positions=config.max_source_positions,
    )

    def tell(features: Tensor, target_ids: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        given = {FEATURES: features, "decoder_input_ids": target_ids}
        answer = explained(**given, output_attentions=True, use_cache=False)
        return answer.logits, answer.decoder_attentions, answer.cross_attentions

    tokenizer = _read_tokenizer(folder, settings, generation.vocab_size)
    next_token = LibraryNextToken(explained, (FEATURES,), parts.output_scale)
    step = WhisperStep(fused, parts)
    writing = Writing(step, tell, next_token, generation, positions, None, tokenizer, audio)
    traits = Traits((sound,), longest=config.max_source_positions)
    return SoundReader(fused, explained, parts), traits, writing, name_unfollowed(settings)


def _find_starts(
    folder: Path, settings: Any, config: Any
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, ...]], str]:
    """What it begins with: of a multilingual network one for each language and task, of another the only one.

    The last token says that no timestamps are written. Of several languages the likeliest can be taken, as the library
    does where its settings name none. Where they name no task, it transcribes; the library leaves the task open.
    """
    start, languages = settings.decoder_start_token_id, getattr(settings, "lang_to_id", None)
    if start is None:
        raise CheckpointError(f"{folder}: decoder_start_token_id: missing; expected a token")
    last = getattr(settings, "no_timestamps_token_id", None)
    forced_ids = (
        getattr(one, "forced_decoder_ids", None) for one in (settings, config)
    )  # generation_config.json first
    forced = [token for _, token in sorted(next(filter(None, forced_ids), ()))]
    if not languages or getattr(settings, "is_multilingual", True) is False:
        if None in forced:
            raise CheckpointError(f"{folder}: lang_to_id: missing; expected the token of each language")
        return {"default": _close((start, *forced), last)}, {}, "default"
    tasks = _read_tasks(folder, settings)
    names = {language.strip("<|>"): token for language, token in languages.items()}
    endings = {ending: tasks[task] for task, ending in _TASKS.items() if task in tasks}
    starts = {
        name + ending: _close((start, token, task), last)
        for name, token in names.items()
        for ending, task in endings.items()
    }
    chosen = {_DETECT + ending: tuple(name + ending for name in names) for ending in endings if len(names) > 1}
    default, known = _read_default(settings, names, tasks, forced), [*starts, *chosen]
    if default not in known:
        raise CheckpointError(f"{folder}: language and task: {default!r}; expected one of {', '.join(known)}")
    return starts, chosen, default


def _close(tokens: tuple[int, ...], last: int | None) -> tuple[int, ...]:
    return tokens if last is None or tokens[-1] == last else (*tokens, last)


def _read_tasks(folder: Path, settings: Any) -> Mapping[str, int]:
    tasks: Mapping[str, int] = getattr(settings, "task_to_id", None) or {}
    if "transcribe" not in tasks:
        raise CheckpointError(f"{folder}: task_to_id: {sorted(tasks)}; expected transcribe among them")
    return tasks


def _read_default(settings: Any, names: Mapping[str, int], tasks: Mapping[str, int], forced: list[Any]) -> str:
    """Name the default: what the settings say of language and task, or, of neither, by the tokens that they force."""
    language = (getattr(settings, "language", None) or "").strip("<|>").lower()
    language, task = TO_LANGUAGE_CODE.get(language, language), getattr(settings, "task", None)
    if not language and not task:
        language = next((name for name, token in names.items() if token in forced), "")
        task = next((name for name, token in tasks.items() if token in forced), None)
    some = _DETECT if len(names) > 1 else next(iter(names))
    return (language or some) + _TASKS.get(task or "transcribe", f"-{task}")


def _read_tokenizer(folder: Path, settings: Any, vocab_size: int) -> str:
    """Read tokenizer.json; timestamps, should one be written, are made no part of the text."""
    file = folder / "tokenizer.json"
    check_tokenizer(file, vocab_size)
    content = json.loads(file.read_text(encoding="utf-8"))
    last = getattr(settings, "no_timestamps_token_id", None)
    for token in content.get("added_tokens", ()):
        token["special"] = token["special"] or (last is not None and token["id"] > last)
    return json.dumps(content, ensure_ascii=False)
