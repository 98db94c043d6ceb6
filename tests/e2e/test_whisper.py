"""Sound over gRPC: what is written of it, what is told of it, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import regard
from server.api.open_inference import open_inference_pb2 as inference
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.artifact.sounds import noise, write_sound
from tests.golden import GOLDEN_WHISPER
from tests.processes import ServerProcess, serving

MODEL = "tiny-whisper"
LOG_PROBABILITY = 1e-4


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with the golden model."""
    with serving("--models", str(GOLDEN_WHISPER)) as started:
        yield started


@pytest.fixture
def client(server: ServerProcess) -> Iterator[regard.Client]:
    """A client of it."""
    with regard.Client(server.address) as made:
        yield made


def test_a_model_says_that_it_hears(client: regard.Client) -> None:
    """How long, and what it may begin with."""
    model = client.model(MODEL)
    assert (model.modality, model.max_audio_seconds, model.max_tokens) == ("audio", 1.0, 0)
    assert model.generation is not None
    chosen = {"detect", "detect-translate"}
    assert set(model.generation.starts) == chosen | {"de", "de-translate", "en", "en-translate"}
    assert model.generation.default_start == "detect"


def test_a_text_is_written_of_a_sound(client: regard.Client, tmp_path: Path) -> None:
    """Streamed and whole, from bytes and from a file, WAV and FLAC; of another sound or start it is not as likely."""
    samples = noise(0.8)
    content, file = write_sound(samples), tmp_path / "speech.flac"
    file.write_bytes(write_sound(samples, kind="FLAC"))
    tokens = client.generate(audio=content, model=MODEL)
    streamed = "".join(token.text for token in tokens)
    whole = client.generate_text(audio=file, model=MODEL)
    assert streamed == tokens.finish().text == whole.text != ""
    sound = whole.sound
    assert sound is not None
    assert (sound.count, sound.position_seconds, sound.seconds) == (50, 0.02, 0.8)
    assert (whole.source, whole.truncated) == ((), False)
    others = [
        client.generate_text(audio=write_sound(np.sin(np.arange(12_800) / 4) / 2), model=MODEL),
        client.generate_text(audio=content, model=MODEL, start="de-translate"),
    ]
    assert others[1].start == "de-translate"
    likely = whole.results[0].log_probability
    assert all(abs(other.results[0].log_probability - likely) > 10 * LOG_PROBABILITY for other in others)
    assert client.generate_text(audio=content, model=MODEL, num_beams=3).results[0].tokens


def test_the_language_is_told_that_was_the_likeliest(client: regard.Client) -> None:
    """What is written is what would be of that one, greedily and by beams; other sounds are of the other."""
    found = set[str]()
    for octave in (0, 1, 4, 5):
        content = write_sound(0.5 * np.sin(2 * np.pi * 100 * 2**octave * np.arange(8000) / 16_000))
        for beams in (1, 3):
            heard = client.generate_text(audio=content, model=MODEL, start="detect-translate", num_beams=beams)
            asked = client.generate_text(audio=content, model=MODEL, start=heard.start, num_beams=beams)
            assert heard.text == asked.text
            assert heard.start == asked.start
        stream = client.generate(audio=content, model=MODEL, start="detect-translate")
        assert stream.finish().start == heard.start
        found.add(heard.start)
    assert found == {"en-translate", "de-translate"}


def test_each_step_tells_what_it_heard(client: regard.Client) -> None:
    """Cross attention has as many keys as there are positions; each row sums to 1."""
    asked = regard.AttentionRequest(layers=(-1,), reduce_heads="mean")
    found = client.generate_text(audio=write_sound(noise(0.5)), model=MODEL, cross_attention=asked)
    weights = found.results[0].alignment().weights
    assert weights.shape == (len(found.results[0].tokens), 50)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_words_have_times(client: regard.Client) -> None:
    """By what the heads attended to that the model names; of several beams nothing is told."""
    model = client.model(MODEL)
    assert model.generation is not None
    assert model.generation.alignment_heads == ((1, 0), (2, 3))
    asked = regard.request_word_times(model)
    assert (asked.layers, asked.heads) == ((1, 2), (0, 3))
    found = client.generate_text(audio=write_sound(noise(0.6)), model=MODEL, num_beams=1, cross_attention=asked)
    times = regard.word_times(found, model)
    assert "".join(one.text for one in times) == found.text.replace(" ", "") != ""
    bounds = [seconds for one in times for seconds in (one.start_seconds, one.end_seconds)]
    assert bounds == sorted(bounds)
    assert 0 <= bounds[0] < bounds[-1] <= 0.6 + 1e-9


def test_standard_clients_are_not_told_that_it_writes(client: regard.Client) -> None:
    """There they can bring it no sound."""
    stub = GRPCInferenceServiceStub(client._channel)
    config = stub.ModelConfig(inference.ModelConfigRequest(name=MODEL)).config
    assert not config.model_transaction_policy.decoupled
    outputs = {one.name for one in stub.ModelMetadata(inference.ModelMetadataRequest(name=MODEL)).outputs}
    assert "cross_key.0" in outputs
    assert "generated_text" not in outputs


def test_what_was_written_can_be_scored(client: regard.Client) -> None:
    """As the likeliest text it is as likely as when it was written."""
    content = write_sound(noise(0.7))
    found = client.generate_text(audio=content, model=MODEL, max_tokens=5)
    words = found.text.replace("w", " w").strip()
    scored = client.generate_text(audio=content, model=MODEL, target=words)
    for one, other in zip(found.results[0].tokens, scored.results[0].tokens[:5], strict=True):
        assert one.token == other.token
        assert one.log_probability == pytest.approx(other.log_probability, abs=LOG_PROBABILITY)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"audio": write_sound(noise(1.2))}, r"audio: 1\.20 seconds; expected at most 1, which the model hears"),
        ({"audio": b"no sound"}, "audio: 8 bytes that start with 6e 6f .*; expected a WAV or FLAC file"),
        ({}, "audio: empty; expected a WAV or FLAC file"),
        ({"audio": write_sound(noise(0.1)), "text": "hello"}, "text: beside audio; expected one of both"),
        ({"audio": write_sound(noise(0.1)), "truncate": True}, "truncate: true; expected false with audio"),
        ({"audio": write_sound(noise(0.1)), "start": "fr"}, "start: 'fr'; expected one of"),
    ],
)
def test_what_cannot_be_used_is_refused(asked: dict[str, object], message: str, server: ServerProcess) -> None:
    """The field is named."""
    with regard.Client(server.address) as client, pytest.raises(regard.InvalidArgument, match=message):
        client.generate_text(model=MODEL, **asked)  # type: ignore[arg-type]


def test_a_text_is_refused_by_what_hears(client: regard.Client) -> None:
    """And sound by what reads."""
    with pytest.raises(regard.FailedPrecondition, match="text: tiny-whisper takes no text; expected audio"):
        client.generate_text("hello", model=MODEL)
    with pytest.raises(regard.FailedPrecondition, match="image: tiny-whisper takes no images; expected audio"):
        list(client.attend(image=b"image", model=MODEL))
    refusal = pytest.raises(regard.FailedPrecondition, match="audio: g2p takes no audio; expected a text")
    with serving() as other, regard.Client(other.address) as reader, refusal:
        reader.generate_text(audio=write_sound(noise(0.1)), model="g2p")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--max-audio-bytes", "1000"),
            r"audio: 32044 bytes; expected at most 1000 .*--max-audio-bytes\)",
        ),
        (("--max-audio-samples", "15999"), r"audio: 16000 samples in 2 channels; .*--max-audio-samples\)"),
    ],
)
def test_bounds_are_flags(flags: tuple[str, str], message: str) -> None:
    """Of bytes and of samples, and their errors name them."""
    content, refusal = write_sound(noise(0.5, channels=2)), pytest.raises(regard.InvalidArgument, match=message)
    with serving("--models", str(GOLDEN_WHISPER), *flags) as other, regard.Client(other.address) as client, refusal:
        client.generate_text(audio=content, model=MODEL)


def test_the_clients_own_checks_come_first(client: regard.Client, tmp_path: Path) -> None:
    """A file that is not there, and what is no file."""
    with pytest.raises(regard.RegardError, match=r"audio: .*expected a file's path"):
        client.generate(audio=tmp_path / "none.wav", model=MODEL)
    for wrong in (3, b""):
        with pytest.raises(regard.InvalidArgument, match="audio: "):
            client.generate(audio=wrong, model=MODEL)  # type: ignore[arg-type]


def run(*arguments: str) -> int:
    """Run `regard generate` in this process; returns its exit code."""
    from regard import cli

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["regard", "generate", *arguments])
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_the_command_line_hears(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file, and prints what was written; a text beside it, or neither, is refused."""
    pytest.importorskip("typer", reason="the command line needs the extra explore")
    monkeypatch.setenv("REGARD_SERVER", server.address)
    file = tmp_path / "speech.wav"
    file.write_bytes(write_sound(noise(0.8)))
    with regard.Client(server.address) as client:
        expected = client.generate_text(audio=file, model=MODEL)
    assert run(MODEL, "--audio", str(file)) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == expected.text
    assert f"regard: begun with {expected.start}: " in captured.err
    assert run(MODEL, "--audio", str(file), "--words") == 0
    assert "".join(line.split()[2] for line in capsys.readouterr().out.splitlines()) == expected.text.replace(" ", "")
    for arguments, message in (
        (("--audio", str(file), "hello"), "a text: given; expected none with --audio, which is"),
        (("--audio", str(file), "-o", "map.png"), "-o: given; expected none with --audio, of which no"),
        (("hello", "--words"), "--words: given without --audio; expected a sound"),
        (("--audio", str(file), "--words", "--beams", "2"), "--beams 2: times are of one"),
        ((), "FILE|TEXT: missing; expected a text, a text file, - or --audio"),
    ):
        assert run(MODEL, *arguments) != 0
        assert message in " ".join(capsys.readouterr().err.split())
