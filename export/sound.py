"""How the server must prepare sound for a network, as preprocessor_config.json says it; compared with the library."""

from pathlib import Path
from typing import Any

import numpy as np
import transformers
from pydantic import ValidationError

from artifact.audio_contract import AudioContract
from artifact.errors import explain
from artifact.log_mel import log_mel
from model.checkpoint import CheckpointError
from server.errors import first_line

_FILES = ("preprocessor_config.json", "processor_config.json")
_ALIKE = 1e-3  # of features of about -1 to 2
_TRIED_SECONDS = (0.01, 0.5, 1.0)  # of the longest


def read_audio_contract(folder: Path, config: Any) -> AudioContract:
    """Read how sound is prepared for Whisper; where no file says so, as all of its checkpoints do it.

    Raises:
        CheckpointError: It cannot be done so by the server, or does not fit the network.
    """
    extractor = _read_extractor(folder, config)
    for field, nothing in (("dither", 0.0), ("padding_value", 0.0), ("do_normalize", False)):
        if (found := getattr(extractor, field, nothing)) != nothing:
            raise CheckpointError(f"{folder}: {field}: {found}; expected {nothing}")
    frames = 2 * config.max_source_positions
    if (extractor.feature_size, extractor.nb_max_frames) != (config.num_mel_bins, frames):
        found = f"{extractor.feature_size} bins of {extractor.nb_max_frames} frames"
        raise CheckpointError(f"{folder}: {found}; expected what the network takes, {config.num_mel_bins} of {frames}")
    try:
        contract = AudioContract(
            sampling_rate=extractor.sampling_rate,
            max_samples=extractor.n_samples,
            window_samples=extractor.n_fft,
            hop_samples=extractor.hop_length,
            num_mel_bins=extractor.feature_size,
        )
    except ValidationError as error:
        raise CheckpointError(f"{folder}: how sound is prepared: {explain(error)}") from error
    _compare(folder, extractor, contract)
    return contract


def _read_extractor(folder: Path, config: Any) -> Any:
    extractor: Any = transformers.WhisperFeatureExtractor
    if not any((folder / name).is_file() for name in _FILES):
        seconds = 2 * config.max_source_positions // 100
        return extractor(feature_size=config.num_mel_bins, chunk_length=seconds)
    try:
        return extractor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises whatever its parts raise
        raise CheckpointError(
            f"{folder}: transformers cannot read how sound is prepared: {first_line(error)}"
        ) from error


def _compare(folder: Path, extractor: Any, contract: AudioContract) -> None:
    """Refuse settings that the server would not follow."""
    random = np.random.default_rng(0)
    for part in _TRIED_SECONDS:
        samples = random.standard_normal(round(part * contract.max_samples), np.float32)
        given = {"sampling_rate": contract.sampling_rate, "return_tensors": "np"}
        expected = extractor(samples, **given)["input_features"][0]
        difference = float(np.abs(log_mel(samples, contract) - expected).max())
        if not difference <= _ALIKE:
            raise CheckpointError(
                f"{folder}: the library prepares sound otherwise than the server would: by {difference:.2g}"
            )
