"""Sound files to the input of a network, as a contract says: libsndfile decodes, libsoxr resamples."""

import io
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from artifact.audio_contract import AudioContract
from artifact.audio_files import FORMATS, AudioFile, read_audio_file
from artifact.errors import InputError
from artifact.log_mel import log_mel

MAX_CHANNELS, MIN_RATE, MAX_RATE = 8, 4_000, 192_000
_BLOCK_FRAMES = 2**18  # decoded at a time
_LOUDEST = 2.0**15  # a file of floats may hold what others have as integers of 16 bits; beyond it there is no sound


@dataclass(frozen=True)
class AudioLimits:
    """The largest sound file that is decoded.

    Attributes:
        size_bytes: Of the file.
        samples: Of all channels together.
    """

    size_bytes: int = 16 * 2**20
    samples: int = 16_000_000


@dataclass(frozen=True)
class SoundLength:
    """How long a sound is.

    Attributes:
        seconds: Of the sound that was sent.
        max_seconds: What is read, silence behind it included.
    """

    seconds: float
    max_seconds: float


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound as a network reads it, and how long it was.

    Attributes:
        values: float32 [num_mel_bins, num_frames].
        length: See SoundLength.
    """

    values: NDArray[np.float32]
    length: SoundLength


def open_audio(content: bytes, contract: AudioContract, limits: AudioLimits) -> AudioFile:
    """Look at a file's header, and refuse what would take too long to decode, or is longer than is read.

    Raises:
        InputError: Not such a file, damaged, or too large.
    """
    if len(content) > limits.size_bytes:
        expected = f"at most {limits.size_bytes} (the server's --max-audio-bytes)"
        raise InputError("audio", f"{len(content)} bytes", expected)
    opened = read_audio_file(content)
    if not 1 <= opened.channels <= MAX_CHANNELS:
        raise InputError("audio", f"{opened.channels} channels", f"1 to {MAX_CHANNELS}")
    if not MIN_RATE <= opened.rate <= MAX_RATE:
        raise InputError("audio", f"{opened.rate} samples a second", f"{MIN_RATE} to {MAX_RATE}")
    _check_frames(opened, contract, limits)
    return opened


def _check_frames(opened: AudioFile, contract: AudioContract, limits: AudioLimits) -> None:
    frames = opened.frames
    if not frames:
        raise InputError("audio", "no samples", "at least one")
    if frames > contract.max_seconds * opened.rate:
        seconds = f"{frames / opened.rate:.2f} seconds"
        raise InputError("audio", seconds, f"at most {contract.max_seconds:g}, which the model hears")
    if (samples := frames * opened.channels) > limits.samples:
        expected = f"at most {limits.samples} (the server's --max-audio-samples)"
        raise InputError("audio", f"{samples} samples in {opened.channels} channels", expected)


def decode_audio(opened: AudioFile, contract: AudioContract) -> Sound:
    """Decode, mix channels, resample, and tell as a spectrogram.

    Raises:
        InputError: It is damaged, or not as long as it said.
    """
    samples = _decode(opened)
    seconds = len(samples) / opened.rate
    if opened.rate != contract.sampling_rate:
        samples = soxr.resample(samples, opened.rate, contract.sampling_rate)[: contract.max_samples]
    return Sound(log_mel(samples, contract), SoundLength(seconds, contract.max_seconds))


def _decode(opened: AudioFile) -> NDArray[np.float32]:
    """Return the mean of all channels, float32 [frames]."""
    samples, frames = np.empty(opened.frames, np.float32), 0
    mixing = np.full(opened.channels, 1 / opened.channels, np.float32)
    try:
        with soundfile.SoundFile(io.BytesIO(opened.content)) as file:
            if (file.samplerate, file.channels) != (opened.rate, opened.channels):
                raise InputError("audio", f"{len(opened.content)} bytes that say two things", f"a whole {FORMATS} file")
            while len(block := file.read(min(_BLOCK_FRAMES, opened.frames - frames), "float32", always_2d=True)):
                _check_loudness(block)
                np.dot(block, mixing, out=samples[frames : frames + len(block)])
                frames += len(block)
    except soundfile.SoundFileError as error:
        why = getattr(error, "error_string", "cannot be decoded")
        raise InputError("audio", f"{len(opened.content)} bytes: {why}", f"a whole {FORMATS} file") from error
    if frames < opened.frames:
        raise InputError("audio", f"{frames} of {opened.frames} samples", f"a whole {FORMATS} file")
    return samples


def _check_loudness(block: NDArray[np.float32]) -> None:
    """Refuse what is no sound."""
    if not max(block.max(), -block.min()) <= _LOUDEST:  # which NaN is not
        raise InputError("audio", "samples that are no sound", f"finite ones from -{_LOUDEST:g} to {_LOUDEST:g}")
