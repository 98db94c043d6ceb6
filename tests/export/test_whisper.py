"""Whisper folders become artifacts that write what transformers' own generate writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from numpy.typing import NDArray

import regard
from artifact.audio_contract import AudioContract
from artifact.detokenizing import TextWriter
from artifact.generation import TOKEN_RELEVANCE
from artifact.log_mel import log_mel
from export.build import Built, build
from export.encoder_decoder import Writing as Exported
from export.sources import load_folder
from model.checkpoint import CheckpointError
from server.context import RpcContext
from server.engine.device import Instances, choose_devices
from server.generation.plan import AttentionPlan, GenerationPlan
from server.generation.request import GeneratedText
from server.generation.steps import Steps
from server.generation.writing import BeamWriting, StraightWriting, Writing
from server.repository.limits import Usage
from server.repository.loading import LoadedModel, load_model
from server.repository.settings import ModelSettings
from tests.export.whispers import (
    END,
    ENGLISH,
    GERMAN,
    NO_TIMESTAMPS,
    START,
    TIMESTAMP,
    TRANSCRIBE,
    TRANSLATE,
    write_whisper,
)
from tests.processes import serving

LOG_PROBABILITIES, WEIGHTS = 1e-4, 1e-5  # tolerances
SUPPRESSED = [7, 11, *range(START, 60)]
# And what the library calls them; without a language it takes the likeliest.
STARTS = {
    "en": ("en", "transcribe"),
    "de-translate": ("de", "translate"),
    "detect": (None, "transcribe"),
    "detect-translate": (None, "translate"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has two languages, and suppresses tokens."""
    return write_whisper(tmp_path_factory.mktemp("whisper") / "network", suppress_tokens=SUPPRESSED)


@pytest.fixture(scope="module")
def built(folder: Path) -> Built:
    """Its artifact, verified."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.longest.free_bytes", lambda: 2**29)
        return build(load_folder(folder, name="whisper-small"), folder.parent / "models")


@pytest.fixture(scope="module")
def loaded(built: Built) -> LoadedModel:
    """The artifact as a server loads it."""
    return load_model(built.folder, choose_devices("cpu"), Instances(1, 1), Usage(ModelSettings()))


@pytest.fixture(scope="module")
def network(folder: Path) -> Any:
    """The library's own."""
    library: Any = transformers.WhisperForConditionalGeneration
    return library.from_pretrained(folder, attn_implementation="eager").eval()


def features(seed: int, audio: AudioContract) -> NDArray[np.float32]:
    """Of half a second of noise, float32 [1, bins, frames]."""
    samples = np.random.default_rng(seed).standard_normal(audio.max_samples // 2).astype(np.float32)
    return log_mel(samples * 0.1, audio)[None]


def write(
    model: LoadedModel, given: NDArray[np.float32], start: str, num_beams: int = 1, *, looks: bool = False
) -> tuple[GeneratedText, tuple[int, ...]]:
    """Write as a server does, but for its event loop; returns also the tokens that it began with."""
    generation, decoder = model.contract.generation, model.engine.decoder
    assert generation is not None
    assert decoder is not None
    assert isinstance(model.writer, TextWriter)
    heads = tuple(range(generation.num_heads))
    attention = tuple(AttentionPlan("cross", layer, heads, None) for layer in range(generation.num_layers))
    plan = GenerationPlan(
        generation,
        dict(zip(generation.names_of_start(start), generation.beginnings(start), strict=True)),
        generation.max_tokens,
        num_beams,
        attention=attention if looks else (),
    )
    outputs = model.engine.plain.run({"input_features": given}, generation.source_names)
    source = [np.asarray(outputs[name]) for name in generation.source_names]
    kind: Callable[..., Writing] = BeamWriting if num_beams > 1 else StraightWriting
    writing, steps = kind(plan, source, model.writer, RpcContext()), Steps(decoder, 8, lambda: False, lambda told: None)
    steps.join(writing)
    while steps.all:
        steps.run({}, [])
    return writing.results[0], writing.start


def library_writes(network: Any, given: NDArray[np.float32], start: str, num_beams: int = 1) -> list[int]:
    """What generate of the library writes, the end token included."""
    language, task = STARTS[start]
    found = network.generate(
        torch.from_numpy(given), language=language, task=task, num_beams=num_beams, return_dict_in_generate=True,
        max_new_tokens=20, return_timestamps=False,
    )  # fmt: skip
    tokens = [int(token) for token in found["sequences"][0]]
    written = tokens[4:] if tokens[0] == START else tokens
    return written[: written.index(END) + 1] if END in written else written


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_texts_are_the_librarys(seed: int, start: str, loaded: LoadedModel, network: Any) -> None:
    """Tokens, log-probabilities and the cross attention of every step."""
    given = features(seed, audio_of(loaded))
    found, begun = write(loaded, given, start, looks=True)
    tokens = [token.token for token in found.tokens]
    assert tokens == library_writes(network, given, start)
    generation = loaded.contract.generation
    assert generation is not None
    assert begun in generation.beginnings(start)
    with torch.inference_mode():
        read = torch.tensor([[*begun, *tokens[:-1]]])
        answer = network(torch.from_numpy(given), decoder_input_ids=read, output_attentions=True)
    expected = answer.logits[0, len(begun) - 1 :].log_softmax(-1)
    for place, token in enumerate(found.tokens):
        assert token.log_probability == pytest.approx(float(expected[place, token.token]), abs=LOG_PROBABILITIES)
        assert len(token.attention) == generation.num_layers
        for layer in token.attention:
            weights = answer.cross_attentions[layer.layer][0, :, len(begun) - 1 + place]
            np.testing.assert_allclose(layer.weights, weights, atol=WEIGHTS)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("num_beams", [2, 5])
def test_beams_find_the_librarys_texts(num_beams: int, start: str, loaded: LoadedModel, network: Any) -> None:
    """The best of each search."""
    for seed in range(3):
        given = features(seed, audio_of(loaded))
        found, _ = write(loaded, given, start, num_beams)
        assert [token.token for token in found.tokens] == library_writes(network, given, start, num_beams)


def test_the_likeliest_language_is_the_librarys(loaded: LoadedModel, network: Any) -> None:
    """Of low and high tones, which are not all of one."""
    detected, seconds = set[int](), np.arange(8000) / 16_000
    for octave in range(7):
        tone = 0.5 * np.sin(2 * np.pi * 100 * 2**octave * seconds)
        given = log_mel(tone.astype(np.float32), audio_of(loaded))[None]
        _, begun = write(loaded, given, "detect")
        assert begun == (START, int(network.detect_language(torch.from_numpy(given))[0]), TRANSCRIBE, NO_TIMESTAMPS)
        detected.add(begun[1])
    assert detected == {ENGLISH, GERMAN}


def test_tokens_are_explained_by_what_was_heard(built: Built, tmp_path: Path) -> None:
    """A row for each token, a column for each position of the sound; completely."""
    noise = np.random.default_rng(0).integers(-9000, 9000, 12_000, dtype=np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    with serving("--models", str(built.folder.parent.parent)) as server, regard.Client(server.address) as client:
        found = client.generate_text(audio=tmp_path / "noise.wav", model="whisper-small", relevance=True)
    why, count = found.relevance, len(found.results[0].tokens)
    assert why is not None and found.sound is not None
    assert why.source.shape == (count, found.sound.count)
    assert why.target.shape == (count, why.num_start_tokens + count - 1)
    assert why.relative_error.max() < 1e-5
    assert why.source.any(axis=1).all()
    with pytest.raises(LookupError, match="but a sound"):
        why.by_word()


def audio_of(model: LoadedModel) -> AudioContract:
    """How sound is read."""
    assert model.contract.audio is not None
    return model.contract.audio


def test_the_contract_says_how_sound_is_read_and_text_written(built: Built) -> None:
    """Its encoder's attention and states can be had, and each step was compared with torch."""
    contract = built.contract
    assert (contract.family, contract.text, contract.image) == ("whisper", None, None)
    assert contract.explains_tokens
    assert contract.generation is not None
    assert contract.further_axes[TOKEN_RELEVANCE.source] == ("batch", contract.generation.source_positions)
    assert contract.audio == AudioContract(
        sampling_rate=16_000, max_samples=16_000, window_samples=400, hop_samples=160, num_mel_bins=8
    )
    assert [(spec.name, spec.axes) for spec in contract.inputs] == [("input_features", ("batch", 8, 100))]
    generation = contract.generation
    assert generation is not None
    assert (generation.source_positions, generation.max_tokens, generation.scale) == (50, 20, 8**-0.5)
    assert generation.starts == {
        "en": (START, ENGLISH, TRANSCRIBE, NO_TIMESTAMPS),
        "en-translate": (START, ENGLISH, TRANSLATE, NO_TIMESTAMPS),
        "de": (START, GERMAN, TRANSCRIBE, NO_TIMESTAMPS),
        "de-translate": (START, GERMAN, TRANSLATE, NO_TIMESTAMPS),
    }
    assert generation.chosen_starts == {"detect": ("de", "en"), "detect-translate": ("de-translate", "en-translate")}
    assert (generation.default_start, generation.alignment_heads) == ("detect", ((1, 0), (2, 3)))
    assert (generation.suppressed_tokens, generation.first_suppressed_tokens) == (tuple(SUPPRESSED), (END,))
    assert [(layer.num_heads, layer.query_axis, layer.key_axis) for layer in contract.attention] == [(2, 50, 50)] * 2
    assert len(contract.hidden_states) == 3
    told = {line.tensor for line in contract.verification if line.check == "against torch"}
    assert {"decoder.logits", *(f"decoder.{kind}.{layer}" for kind in ("self", "cross") for layer in range(3))} <= told


def read(folder: Path) -> Exported:
    """What is exported of how it writes."""
    writing = load_folder(folder).writing
    assert writing is not None
    return writing


@pytest.mark.parametrize(
    ("settings", "starts", "default"),
    [
        ({"language": "german"}, 4, "de"),
        ({"language": "<|de|>", "task": "translate"}, 4, "de-translate"),
        ({"forced_decoder_ids": [[1, GERMAN], [2, TRANSCRIBE]]}, 4, "de"),
        ({"forced_decoder_ids": [[1, GERMAN], [2, TRANSLATE]]}, 4, "de-translate"),
        ({"forced_decoder_ids": [[1, None], [2, TRANSLATE]]}, 4, "detect-translate"),
        ({"forced_decoder_ids": [[1, GERMAN], [2, TRANSLATE]], "task": "transcribe"}, 4, "detect"),
        ({"task": "translate"}, 4, "detect-translate"),
        ({"lang_to_id": {"<|de|>": GERMAN}}, 2, "de"),
        ({"is_multilingual": False, "lang_to_id": None}, 1, "default"),
    ],
)
def test_languages_and_tasks_are_starts(settings: dict[str, Any], starts: int, default: str, tmp_path: Path) -> None:
    """The default is what the settings say."""
    generation = read(write_whisper(tmp_path / "network", **settings)).generation
    assert (len(generation.starts), generation.default_start) == (starts, default)
    assert all(tokens[-1] == NO_TIMESTAMPS for tokens in generation.starts.values())
    assert len(generation.chosen_starts) == (2 if starts == 4 else 0)


def test_tokens_that_the_networks_own_settings_force_are_the_default(tmp_path: Path) -> None:
    """Where those of generation force none, as the library has it."""
    folder = write_whisper(tmp_path / "network")
    edit(folder, "config.json", forced_decoder_ids=[[1, GERMAN], [2, TRANSLATE]])
    assert read(folder).generation.default_start == "de-translate"
    edit(folder, "generation_config.json", forced_decoder_ids=[[1, ENGLISH], [2, TRANSCRIBE]])
    assert read(folder).generation.default_start == "en"


def test_forced_tokens_begin_what_has_one_language(tmp_path: Path) -> None:
    """The last says that there are no timestamps, and is not said twice."""
    settings = {"is_multilingual": False, "lang_to_id": None, "forced_decoder_ids": [[1, NO_TIMESTAMPS]]}
    generation = read(write_whisper(tmp_path / "network", **settings)).generation
    assert generation.starts == {"default": (START, NO_TIMESTAMPS)}


@pytest.mark.parametrize(("settings", "most"), [({"max_length": 12}, 12), ({"max_new_tokens": 5, "max_length": 12}, 5)])
def test_what_it_begins_with_is_not_counted(settings: dict[str, int], most: int, tmp_path: Path) -> None:
    """As the library's max_length counts for Whisper alone."""
    assert read(write_whisper(tmp_path / "network", **settings)).generation.max_tokens == most


def test_timestamps_are_no_part_of_a_text(folder: Path, built: Built) -> None:
    """Though Whisper's own tokenizer takes them for words."""
    writer = TextWriter(built.folder / "target_tokenizer.json")
    assert writer.text([3, TIMESTAMP, 4, END]) == "w3w4"


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Change a file of JSON."""
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("preprocessor_config.json", {"dither": 0.5}, r"dither: 0\.5; expected 0\.0"),
        ("preprocessor_config.json", {"feature_size": 80}, "80 bins of 100 frames; expected what the network takes, 8"),
        ("preprocessor_config.json", {"hop_length": 161}, "8 bins of 99 frames; expected what the network takes"),
        ("generation_config.json", {"task_to_id": {}}, r"task_to_id: \[\]; expected transcribe among them"),
        ("generation_config.json", {"language": "fr"}, "language and task: 'fr'; expected one of de, de-translate, en"),
        ("generation_config.json", {"task": "sing"}, "language and task: 'detect-sing'; expected one of de, de-trans"),
        ("generation_config.json", {"suppress_tokens": [60]}, "suppressed_tokens: 60; expected a token below"),
        (
            "generation_config.json",
            {"lang_to_id": None, "forced_decoder_ids": [[1, None], [2, TRANSCRIBE]]},
            "lang_to_id: missing; expected the token of each language",
        ),
    ],
)
def test_a_folder_that_cannot_be_exported_is_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The error names what is wrong."""
    folder = write_whisper(tmp_path / "network")
    edit(folder, name, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_folder(folder)


def test_without_a_preprocessor_whispers_own_settings_are_taken(tmp_path: Path) -> None:
    """As all checkpoints have them."""
    folder = write_whisper(tmp_path / "network")
    (folder / "preprocessor_config.json").unlink()
    audio = read(folder).audio
    assert audio is not None
    assert (audio.sampling_rate, audio.max_samples, audio.num_mel_bins) == (16_000, 16_000, 8)
