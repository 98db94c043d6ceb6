"""Sound files are decoded, mixed and resampled, and refused by name where they cannot be."""

import dataclasses
import struct
from typing import Any

import numpy as np
import pytest

from artifact.audio_contract import AudioContract
from artifact.errors import InputError
from artifact.log_mel import log_mel
from server.inference.sound import AudioLimits, Sound, SoundLength, decode_audio, open_audio
from tests.artifact.sounds import noise, write_sound

CONTRACT = AudioContract(sampling_rate=16_000, max_samples=32_000, window_samples=400, hop_samples=160, num_mel_bins=8)
LIMITS = AudioLimits(size_bytes=2**20, samples=100_000)
ROUNDED = 0.02  # what samples of 16 bits change of a spectrogram of quiet noise


def read(content: bytes, limits: AudioLimits = LIMITS) -> Sound:
    """Open and decode."""
    return decode_audio(open_audio(content, CONTRACT, limits), CONTRACT)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", name) for name in ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
        ("WAVEX", "PCM_16"),
        ("WAV", "ALAW"),
        ("WAV", "ULAW"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_channels_are_mixed(kind: str, subtype: str, channels: int) -> None:
    """Whatever the file's kind."""
    samples = noise(0.7, channels=channels)
    found = read(write_sound(samples, kind=kind, subtype=subtype))
    assert (found.length, found.values.shape) == (SoundLength(0.7, 2.0), (8, 200))
    np.testing.assert_allclose(found.values, log_mel(samples.mean(axis=1), CONTRACT), atol=ROUNDED)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_other_rates_are_resampled(rate: int) -> None:
    """A tone keeps its pitch and its length."""
    tone, expected = (
        (0.5 * np.sin(2 * np.pi * 440 * np.arange(one) / one)).astype(np.float32) for one in (rate, 16_000)
    )
    found = read(write_sound(tone, rate, subtype="FLOAT"))
    assert found.length.seconds == 1.0
    inside = slice(3, 95)  # at both ends the filter sees silence
    np.testing.assert_allclose(found.values[0, inside], log_mel(expected, CONTRACT)[0, inside], atol=ROUNDED)


def test_the_longest_is_read_whole_at_any_rate() -> None:
    """And no sample more."""
    for rate in (16_000, 22_050, 11_025):
        assert read(write_sound(noise(2.0, rate), rate)).length.seconds == 2.0


def test_a_length_that_nobody_knew_is_told_by_what_there_is() -> None:
    """As programs write a WAV into a pipe."""
    wav = bytearray(write_sound(noise(0.5)))
    wav[40:44] = b"\xff" * 4
    assert read(bytes(wav)).length.seconds == 0.5


def test_what_makes_no_samples_is_left_out() -> None:
    """Chunks of a WAV, and blocks of a FLAC, that a decoder would look at."""
    wav, flac = write_sound(noise(0.1)), write_sound(noise(0.1), kind="FLAC")
    padded = wav[:12] + (b"LIST" + struct.pack("<I", 5) + b"hidden") * 3 + wav[12:]
    opened = open_audio(padded, CONTRACT, LIMITS)
    assert b"hidden" not in opened.content
    size = int.from_bytes(flac[5:8], "big")
    block = b"\x01" + (6).to_bytes(3, "big") + b"hidden"
    padded = flac[:4] + bytes([flac[4] & 0x7F]) + flac[5 : 8 + size] + block + flac[8 + size :]
    opened = open_audio(padded, CONTRACT, LIMITS)
    assert b"hidden" not in opened.content
    np.testing.assert_array_equal(read(padded).values, read(flac).values)


def bomb(frames: int, rate: int = 16_000) -> bytes:
    """A FLAC that says it has so many samples."""
    flac = bytearray(write_sound(noise(0.1), kind="FLAC"))
    told = int.from_bytes(flac[18:26], "big") & (2**44 - 1) & ~(2**36 - 1)
    flac[18:26] = (told | rate << 44 | frames).to_bytes(8, "big")
    return bytes(flac)


def chunks(count: int) -> bytes:
    """A WAV of many parts."""
    return b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * count


def form(**changes: int) -> bytes:
    """A WAV with another format."""
    values = {"kind": 1, "channels": 1, "rate": 16_000, "bytes": 32_000, "frame": 2, "bits": 16} | changes
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, *values.values()) + b"data" + struct.pack("<I", 8) * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "audio: empty; expected a WAV or FLAC file"),
        (b"ID3\x04MP3 and so on", "audio: 17 bytes that start with 49 44 33 04 .*; expected a WAV or FLAC file"),
        (write_sound(noise(2.01)), r"audio: 2\.01 seconds; expected at most 2, which the model hears"),
        (write_sound(np.zeros((0, 1), np.float32)), "audio: no samples; expected at least one"),
        (write_sound(noise(0.1, channels=9)), "audio: 9 channels; expected 1 to 8"),
        (write_sound(noise(0.1, 3_999), 3_999), "audio: 3999 samples a second; expected 4000 to 192000"),
        (write_sound(noise(0.1), 192_001), "audio: 192001 samples a second; expected 4000 to 192000"),
        (write_sound(noise(1.9, channels=4)), r"audio: 121600 samples in 4 channels; expected at most 100000 \(the"),
        (bytes(2**20 + 1), r"audio: 1048577 bytes; expected at most 1048576 \(the server's --max-audio-bytes\)"),
        (bomb(2**36 - 1), r"audio: 4294967\.\d+ seconds; expected at most 2"),
        (bomb(0), "audio: a FLAC that does not say how many samples it has; expected one that says it, as programs"),
        (bomb(20_000), "audio: .*; expected a whole WAV or FLAC file"),
        (write_sound(noise(1.0), kind="FLAC")[:-4_000], "audio: .*; expected a whole WAV or FLAC file"),
        (write_sound(noise(0.1), kind="FLAC")[:30], "audio: a FLAC.*; expected"),
        (chunks(5_000), "audio: more than 4096 parts; expected a file of fewer chunks or blocks"),
        (b"fLaC\x00\0\0\x22" + bytes(34) + b"\x01\0\0\0" * 5_000, "audio: more than 4096 parts"),
        (chunks(3), "audio: a WAV of 36 bytes without samples; expected a chunk 'fmt ', then 'data'"),
        (form(kind=2), "audio: a WAV with samples of kind 2; expected one of integers, floats, A-law, mu-law"),
        (
            form(frame=0),
            "audio: a WAV of 1 channels, integers of 16 bits and 0 bytes for each of its frames; expected 8",
        ),
        (
            form(kind=1, bits=64, frame=8),
            "audio: a WAV of 1 channels, integers of 64 bits .* expected 8 or 16 or 24 or 32",
        ),
        (form(kind=3), "audio: a WAV of 1 channels, floats of 16 bits and 2 bytes .*; expected 32 or 64 bits"),
        (form(kind=7), "audio: a WAV of 1 channels, mu-law of 16 bits"),
        (
            write_sound(noise(1.0))[:-16_000],
            "audio: a WAV with 16000 of 32000 bytes of samples; expected a whole WAV or",
        ),
        (form(channels=0, frame=0), "audio: a WAV of 0 channels"),
        (form(bits=17, frame=3), "audio: a WAV of 1 channels, integers of 17 bits"),
        (b"fLaC\x84\0\0\0", "audio: a FLAC that does not begin with STREAMINFO"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(content: bytes, message: str) -> None:
    """The error says what was found and what was expected."""
    with pytest.raises(InputError, match=message) as refused:
        read(content)
    assert "0x" not in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_samples_that_are_no_sound_are_refused(value: float) -> None:
    """They would make numbers that harm whoever shares the batch."""
    samples: Any = noise(0.5)
    samples[100] = value
    with pytest.raises(InputError, match="audio: samples that are no sound; expected finite ones from -32768 to 32768"):
        read(write_sound(samples, subtype="FLOAT"))


def test_fewer_samples_than_the_header_says_are_no_whole_file() -> None:
    """Where the decoder itself does not mind."""
    opened = dataclasses.replace(open_audio(write_sound(noise(0.1)), CONTRACT, LIMITS), frames=2_000)
    with pytest.raises(InputError, match="audio: 1600 of 2000 samples; expected a whole WAV or FLAC file"):
        decode_audio(opened, CONTRACT)


def test_any_damage_is_an_error_of_its_own_kind() -> None:
    """Bytes that are changed anywhere."""
    random = np.random.default_rng(0)
    for content in (write_sound(noise(0.2), kind="FLAC"), write_sound(noise(0.2))):
        for _ in range(300):
            damaged = bytearray(content)
            for place in random.integers(len(damaged) if random.random() < 0.5 else 60, size=3):
                damaged[place] = random.integers(256)
            try:
                found = read(bytes(damaged))
            except InputError as error:
                assert error.field == "audio"
                assert "0x" not in str(error), "an address"
            else:
                assert np.isfinite(found.values).all()
