"""What a network of the transformers library takes, and how patches lie on its images."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS, PatchContract
from export.traits import TOKEN_TYPES, InputSpec, Traits, type_input
from export.transformers_checkpoint import main_input
from model.checkpoint import CheckpointError

TARGET_AXIS, SAMPLES_AXIS, FRAMES_AXIS = "target_len", "samples", "frames"
_DEFAULT_LONGEST = 512  # tokens, where positions are relative or rotary without a limit of their own
_UNTOLD_SAMPLES = 1_600  # that make a frame, where the kernels are not told; a tenth of a second at 16 kHz
_MAX_SAMPLES = 480_000  # half a minute at 16 kHz
_MAX_FRAMES = 3_000  # likewise, at 10 ms each
_FRAMES_TOGETHER = 4  # what convolutions make one of, at most
# SigLIP's texts are padded to the full length and have no mask; the last position is the vector.
_FULL_LENGTH = ("siglip_text_model", "siglip2_text_model")


def describe_inputs(network: Any, config: Any, image_size: int | None, *, whole: bool, pair_types: int = 0) -> Traits:
    """Read off a network what it takes.

    Args:
        network: The name of its main input says of what kind it is.
        config: Of the network.
        image_size: Edge of the images in pixels, where it is not the network's own.
        whole: Whether an encoder-decoder has its decoder.
        pair_types: Token types that its tokenizer tells apart in a pair; see count_pair_types.

    Raises:
        CheckpointError: The configuration does not say how large its inputs are.
    """
    main, units, limits = main_input(network), dict[str, int](), dict[str, int]()
    taken = inspect.signature(network.forward).parameters
    _check_alone(main, taken, config.model_type)
    if main == "input_ids":
        inputs = _text(network, config, pair_types)
    elif main.startswith("pixel_values"):
        inputs = (_pixels(main, getattr(config, "vision_config", config), image_size),)
    else:
        inputs = (_sound(main, config),)
        together = _FRAMES_TOGETHER if _positive(config, "input_feat_per_channel") else 1
        units = {SAMPLES_AXIS: _samples_of_a_frame(config), FRAMES_AXIS: together}
        max_frames = _FRAMES_TOGETHER * _positive(config, "max_source_positions") or _MAX_FRAMES
        limits = {SAMPLES_AXIS: _MAX_SAMPLES, FRAMES_AXIS: min(max_frames, _MAX_FRAMES)}
    if config.is_encoder_decoder and whole and "decoder_input_ids" in taken:
        ids = InputSpec("decoder_input_ids", (BATCH_AXIS, TARGET_AXIS), "int64", bound=_vocabulary(network, config))
        inputs += (ids,)
        limits[TARGET_AXIS] = _positive(config, "max_target_positions") or _longest(network, config)
    return Traits(inputs, _longest(network, config), other_axes=limits, units=units)


def _check_alone(main: str, taken: Mapping[str, inspect.Parameter], family: str) -> None:
    """Refuse a network that wants more than its main input; patches of images with their places (SigLIP 2)."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    others = [one.name for one in taken.values() if one.default is one.empty and one.kind not in kinds]
    others = [name for name in others if name != main]
    if others:
        raise CheckpointError(f"{family}: takes {main} with {' and '.join(others)}; expected {main} alone")


def count_types(network: Any, config: Any) -> int | None:
    """Token types that a network tells apart: 0 where it is not told of any; None where nobody knows."""
    if TOKEN_TYPES not in inspect.signature(network.forward).parameters:
        return 0
    rows = getattr(config, "type_vocab_size", None)
    return rows if isinstance(rows, int) else None


def _text(network: Any, config: Any, pair_types: int) -> tuple[InputSpec, ...]:
    full = config.model_type in _FULL_LENGTH
    axes = (BATCH_AXIS, config.max_position_embeddings if full else SEQUENCE_AXIS)
    ids = InputSpec("input_ids", axes, "int64", bound=_vocabulary(network, config))
    if full or "attention_mask" not in inspect.signature(network.forward).parameters:
        return (ids,)
    mask, types = InputSpec("attention_mask", axes, "int64", bound=2, mask=True), count_types(network, config) or 0
    return ids, mask, *([type_input(axes, types)] if 1 < pair_types <= types else [])


def _vocabulary(network: Any, config: Any) -> int:
    """Rows of the table of tokens."""
    try:
        return int(network.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError):  # families with tables of their own kinds
        if size := _positive(config, "vocab_size"):
            return size
        raise CheckpointError(f"{config.model_type}: takes input_ids, but has no vocab_size") from None


def _pixels(name: str, config: Any, image_size: int | None) -> InputSpec:
    own = image_size or getattr(config, "image_size", None) or getattr(config, "crop_size", None)
    if not own:
        raise CheckpointError("image_size: absent from config.json; expected --image-size")
    edges = list(own) if isinstance(own, list | tuple) else [own, own]
    count = _positive(config, "num_frames") or _positive(config, "frames_per_clip")
    channels = _positive(config, "num_channels") or _positive(config, "in_channels") or 3
    return InputSpec(name, (BATCH_AXIS, *((count,) if count else ()), channels, *edges))


def _sound(name: str, config: Any) -> InputSpec:
    """Whisper's features and spectrograms are of one size; others are raw samples, or frames of them."""
    if name == "input_values":
        if _positive(config, "num_mel_bins") and _positive(config, "max_length"):
            return InputSpec(name, (BATCH_AXIS, config.max_length, config.num_mel_bins))
        return InputSpec(name, (BATCH_AXIS, SAMPLES_AXIS))
    for width in ("input_feat_per_channel", "feature_projection_input_dim"):
        if size := _positive(config, width):
            return InputSpec(name, (BATCH_AXIS, FRAMES_AXIS, size))
    if _positive(config, "num_mel_bins") and _positive(config, "max_source_positions"):
        return InputSpec(name, (BATCH_AXIS, config.num_mel_bins, 2 * config.max_source_positions))
    raise CheckpointError(f"{config.model_type}: takes {name}, of a size that config.json does not say")


def _samples_of_a_frame(config: Any) -> int:
    """How many samples the convolutions need for one frame, by their kernels and strides."""
    kernels, strides = getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ())
    samples = 1 if kernels else _UNTOLD_SAMPLES
    for kernel, stride in reversed(list(zip(kernels, strides, strict=True))):
        samples = (samples - 1) * stride + kernel
    return samples


def _longest(network: Any, config: Any) -> int:
    """Most tokens: the size of the position table, less the rows that stand for padding (RoBERTa and its kin)."""
    table: Any = next((one for name, one in network.named_modules() if name.endswith("position_embeddings")), None)
    if getattr(table, "padding_idx", None) is not None:  # I-BERT's table is of a class of its own
        return len(table.weight) - int(table.padding_idx) - 1
    sizes = (_positive(config, name) for name in ("max_position_embeddings", "max_seq_len"))  # the latter is MPT's
    return next(filter(None, sizes), _DEFAULT_LONGEST)


def _positive(config: Any, name: str) -> int:
    """A size; 0 where there is none."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def find_grid(network: Any, axes: Sequence[int | str]) -> PatchContract | None:
    """Find out by changing pixels at a time which positions of the sequence show which patch of a square image.

    Args:
        network: Takes pixel_values.
        axes: Of that input.

    Returns:
        None where an image is no row of patches behind some other positions: video, windows, patches that overlap.
    """
    if len(axes) != 4 or axes[2] != axes[3] or not all(isinstance(axis, int) for axis in axes[1:]):
        return None
    channels, edge = int(axes[1]), int(axes[2])
    blank = torch.zeros(1, channels, edge, edge)
    before = _embedded(network, blank)
    if before is None:
        return None
    places = []
    for row, column in ((0, 0), (0, -1), (-1, -1)):
        pixels = blank.clone()
        pixels[:, :, row, column] = 1
        changed = (_embedded(network, pixels) != before).any(dim=-1)[0].nonzero()  # type: ignore[union-attr]
        places.append(int(changed) if changed.numel() == 1 else -1)
    first, corner, last = places
    grid = math.isqrt(last - first + 1) if last >= first >= 0 else 0
    whole = (first + grid - 1, first + grid * grid) == (corner, before.shape[1])
    if not grid or not whole or edge % grid:
        return None
    return PatchContract(prefix_tokens=first, rows=grid, cols=grid, patch_size=edge // grid)


def _embedded(network: Any, pixels: Tensor) -> Tensor | None:
    """What enters the first layer, [1, N, D]; None where the library does not tell."""
    with torch.inference_mode():
        answer = network(pixel_values=pixels, output_hidden_states=True, **resizing(network, pixels.shape[-1]))
    hidden = getattr(answer, "hidden_states", None)
    return hidden[0] if hidden and hidden[0].ndim == 3 else None


def resizing(network: Any, edge: int) -> dict[str, bool]:
    """Say that positions are to be fitted to images of another size, to a network that has to be told."""
    config = getattr(network.config, "vision_config", network.config)
    own = getattr(config, "image_size", edge)
    told = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
    return {"interpolate_pos_encoding": True} if told and own not in (edge, [edge, edge], (edge, edge)) else {}
