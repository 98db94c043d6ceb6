"""How speech becomes the input of a network, as its contract says: Whisper's log-mel spectrogram."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MAX_RATE, _MAX_SAMPLES, _MAX_WINDOW, _MAX_BINS = 192_000, 2**24, 2**14, 1024


class AudioContract(BaseModel):
    """How sound becomes an input: one channel, resampled, filled up with silence, and told as a log-mel spectrogram.

    Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2. The network's only
    input is float32 [batch, num_mel_bins, num_frames].

    Attributes:
        sampling_rate: Samples a second.
        max_samples: The most there may be; what is shorter is filled up to as many.
        window_samples: Of the Fourier transform.
        hop_samples: From one window to the next.
        num_mel_bins: Filters, from 0 to 8 kHz, as Slaney's Auditory Toolbox spaces and scales them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling_rate: int = Field(gt=0, le=_MAX_RATE)
    max_samples: int = Field(gt=0, le=_MAX_SAMPLES)
    window_samples: int = Field(gt=1, le=_MAX_WINDOW)
    hop_samples: int = Field(gt=0, le=_MAX_WINDOW)
    num_mel_bins: int = Field(gt=0, le=_MAX_BINS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_samples % self.hop_samples:
            raise ValueError(f"max_samples: {self.max_samples}; expected a multiple of hop_samples, {self.hop_samples}")
        if self.max_samples <= self.window_samples:
            raise ValueError(f"max_samples: {self.max_samples}; expected more than a window, {self.window_samples}")
        return self

    @property
    def num_frames(self) -> int:
        """Windows of the longest sound."""
        return self.max_samples // self.hop_samples

    @property
    def max_seconds(self) -> float:
        """How long it may be."""
        return self.max_samples / self.sampling_rate
