"""Sound files that tests make."""

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray


def noise(seconds: float, rate: int = 16_000, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Quiet noise, float32 [frames, channels]."""
    random = np.random.default_rng(seed)
    return random.uniform(-0.2, 0.2, (round(seconds * rate), channels)).astype(np.float32)


def write_sound(samples: NDArray[Any], rate: int = 16_000, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()
