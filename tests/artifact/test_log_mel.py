"""Log-mel spectrograms against the transformers library's, and what a contract of them refuses."""

import numpy as np
import pytest
from pydantic import ValidationError

from artifact.audio_contract import AudioContract
from artifact.log_mel import log_mel, mel_filters

WHISPER = {
    "sampling_rate": 16_000, "max_samples": 480_000, "window_samples": 400, "hop_samples": 160, "num_mel_bins": 80,
}  # fmt: skip


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("samples", [1, 199, 201, 16_000, 50_001, 479_990, 480_000])
def test_it_is_the_librarys(bins: int, samples: int) -> None:
    """Of noise that swells, and of silence, however long."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    extractor = transformers.WhisperFeatureExtractor(feature_size=bins)
    contract = AudioContract(**(WHISPER | {"num_mel_bins": bins}))
    noise = np.random.default_rng(0).standard_normal(samples) * 0.1 * np.sin(np.arange(samples) / 3000)
    for sound in (noise.astype(np.float32), np.zeros(samples, np.float32)):
        expected = extractor(sound, sampling_rate=16_000, return_tensors="np")["input_features"][0]
        found = log_mel(sound, contract)
        assert (found.dtype.name, found.shape) == ("float32", (bins, 3000))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_tone_stands_in_the_filter_of_its_pitch() -> None:
    """Filters overlap, and the loudest is the one whose middle is nearest."""
    contract = AudioContract(**WHISPER)
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32)
    loudest = log_mel(tone, contract)[:, 50].argmax()
    assert loudest == mel_filters(400, 80, 16_000)[:, 11].argmax()  # 440 Hz is bin 11 of 40 Hz each


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_samples": 480_001}, "max_samples: 480001; expected a multiple of hop_samples, 160"),
        ({"max_samples": 320}, "max_samples: 320; expected more than a window, 400"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"num_mel_bins": 0}, "num_mel_bins"),
    ],
)
def test_a_contract_that_cannot_be_followed_is_refused(changes: dict[str, int], message: str) -> None:
    """The field is named."""
    with pytest.raises(ValidationError, match=message):
        AudioContract(**(WHISPER | changes))
