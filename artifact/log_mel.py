"""Log-mel spectrograms, as Whisper was trained with and the transformers library computes them, in numpy."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from artifact.audio_contract import AudioContract

_MAX_HZ = 8_000.0
_FLOOR, _RANGE, _SHIFT = 1e-10, 8.0, 4.0  # of the logarithms to base 10: the least power, what is kept, and the scale
# Slaney 1998, "Auditory Toolbox": below 1 kHz three mels are 200 Hz, above it 27 mels are a factor of 6.4.
_LINEAR_HZ, _BREAK_HZ, _LOG_STEP = 200 / 3, 1_000.0, np.log(6.4) / 27


def log_mel(samples: NDArray[np.float32], contract: AudioContract) -> NDArray[np.float32]:
    """Return float32 [num_mel_bins, num_frames] of float32 [samples], at most max_samples, silence behind them."""
    window, hop = contract.window_samples, contract.hop_samples
    # What follows lies in silence, whose power is 0: windows of it are not looked at.
    frames = min(contract.num_frames, (len(samples) + window // 2) // hop + 1)
    around = np.zeros(contract.max_samples, np.float32)
    around[: len(samples)] = samples
    around = np.pad(around, window // 2, mode="reflect")
    cut = np.lib.stride_tricks.sliding_window_view(around, window)[::hop][:frames]  # [frames, window]
    spectrum = np.fft.rfft(cut * _hann(window), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    told = np.full((contract.num_mel_bins, contract.num_frames), np.log10(_FLOOR), np.float32)
    filters = mel_filters(window, contract.num_mel_bins, contract.sampling_rate)
    told[:, :frames] = np.log10(np.maximum(filters @ power.T, _FLOOR))
    return np.asarray((np.maximum(told, told.max() - np.float32(_RANGE)) + np.float32(_SHIFT)) / np.float32(_SHIFT))


@lru_cache(maxsize=8)
def _hann(window: int) -> NDArray[np.float32]:
    """A periodic one."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


@lru_cache(maxsize=8)
def mel_filters(window: int, bins: int, sampling_rate: int) -> NDArray[np.float32]:
    """Return triangles over the frequencies of a window, each of the area of 1 Hz: float32 [bins, window // 2 + 1]."""
    corners = _hertz(np.linspace(_mel(0.0), _mel(_MAX_HZ), bins + 2))
    frequencies = np.linspace(0, sampling_rate // 2, window // 2 + 1)
    away = corners[:, None] - frequencies  # [bins + 2, frequencies]
    widths = np.diff(corners)[:, None]
    rising, falling = -away[:-2] / widths[:-1], away[2:] / widths[1:]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (corners[2:] - corners[:-2]))[:, None]
    return filters.astype(np.float32)


def _mel(hertz: float) -> float:
    linear = hertz / _LINEAR_HZ
    return linear if hertz < _BREAK_HZ else _BREAK_HZ / _LINEAR_HZ + float(np.log(hertz / _BREAK_HZ)) / _LOG_STEP


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = mels - _BREAK_HZ / _LINEAR_HZ
    return np.where(above < 0, mels * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * above))
