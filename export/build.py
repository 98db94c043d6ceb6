"""Builds an artifact: graph, tap, verification, contract, publication; the command line and the demo call it."""

import copy
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import cast

import onnx
import torch
from onnx import ModelProto, ValueInfoProto, helper

from export.accuracy import AccuracyError, ask_graph, ask_network, measure_accuracy, misses
from export.fetch import sha256_of
from export.graph import externalize, to_onnx
from export.publish import PublishError, existing_versions, publish, same_as_newest, staging_folder
from export.quantize import Quantizer
from export.samples import Feed
from export.sources import Source
from export.tap import Tap, tap
from export.verify import LIMITS, verify
from model.checkpoint import Network
from model.text import TextNetwork
from server.contract import (
    NAME_PATTERN,
    PLAIN_GRAPH,
    TAPPED_GRAPH,
    WEIGHTS_FILE,
    Accuracy,
    AttentionContract,
    Check,
    Contract,
    DType,
    EmbeddingContract,
    PatchContract,
    Precision,
    TensorContract,
    TextContract,
)

TOKENIZER_FILE = "tokenizer.json"
_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Built:
    """Where the artifact lies, its contract, and whether it was there already."""

    folder: Path
    contract: Contract
    unchanged: bool


@dataclass(frozen=True)
class Precise:
    """What the graphs compute in, and how that is found.

    Attributes:
        precision: Of the graphs.
        samples: Real inputs: every other one calibrates, the rest measure accuracy. float32 needs none.
    """

    precision: Precision = "float32"
    samples: Sequence[Feed] = ()


def build(
    source: Source, out: Path, report: Callable[[str], None] = lambda step: None, precise: Precise | None = None
) -> Built:
    """Export a network and publish it as the next version.

    Args:
        source: What to export.
        out: The models folder.
        report: Called with a line as each step begins.
        precise: Another precision than float32.

    Raises:
        PublishError: The name cannot be a folder's, or the version exists.
        TapError: The graph has no attention that can be tapped.
        VerificationError: The graphs differ from the network; nothing was published.
        AccuracyError: A lower precision costs more than is allowed; nothing was published.
    """
    if not re.fullmatch(NAME_PATTERN, source.name):
        raise PublishError(f"name: {source.name!r}; expected letters, digits, dots, dashes and underscores")
    precise = precise or Precise()
    image_size = source.image.crop_size if source.image else None
    with staging_folder(out, source.name) as staging:
        if source.tokenizer_file:
            shutil.copyfile(source.tokenizer_file, staging / TOKENIZER_FILE)
        report("tracing the network")
        for graph in _graphs(source.network, image_size, precise):
            plain, taps = _write_graphs(graph, staging, report)
            accuracy = _measure(source.network, plain, taps, staging, precise, report)
            if not misses(accuracy):
                break
        else:
            raise AccuracyError(f"{precise.precision} costs too much:\n  " + "\n  ".join(misses(accuracy)))
        report("verifying against the network")
        checks: tuple[Check, ...] = ()
        if precise.precision in LIMITS:  # ONNX Runtime cannot run the others on the CPU
            names = [one.output for one in taps]
            checks = verify(source.network, staging, names, image_size, precise.precision)
        report("publishing")
        contract = make_contract(source, plain, taps, staging, next_version(out, source.name))
        found = {"verification": checks, "precision": precise.precision, "accuracy": accuracy}
        contract = contract.model_copy(update=found)
        same = same_as_newest(out, contract)
        if same is not None:
            return Built(out / source.name / str(same), contract.model_copy(update={"version": same}), unchanged=True)
        return Built(publish(staging, out, contract), contract, unchanged=False)


def _graphs(network: Network, image_size: int | None, precise: Precise) -> Iterator[ModelProto]:
    """Yield graphs to try, the fastest first: in int8, ever more of the most sensitive products stay in float32."""
    if precise.precision != "int8":
        yield to_onnx(network, image_size, _DTYPES[precise.precision])
        return
    quantizer = Quantizer(to_onnx(network, image_size), precise.samples[::2])
    left_out = 0
    while left_out <= quantizer.products // 2:
        yield quantizer.quantize(left_out)
        left_out = left_out * 2 or 1


def _write_graphs(graph: ModelProto, folder: Path, report: Callable[[str], None]) -> tuple[ModelProto, list[Tap]]:
    plain = externalize(graph, folder / WEIGHTS_FILE)
    report("tapping attention")
    tapped, taps = tap(plain)
    for one, name in ((plain, PLAIN_GRAPH), (tapped, TAPPED_GRAPH)):
        onnx.save_model(one, folder / name)
    return plain, taps


def _measure(
    network: Network,
    plain: ModelProto,
    taps: list[Tap],
    folder: Path,
    precise: Precise,
    report: Callable[[str], None],
) -> tuple[Accuracy, ...]:
    """Measure on the samples that did not calibrate; what ONNX Runtime cannot run on the CPU is run in torch."""
    if precise.precision == "float32":
        return ()
    report("measuring accuracy")
    outputs = [value.name for value in plain.graph.output]
    if precise.precision in LIMITS:
        candidate = ask_graph(folder, outputs, [one.output for one in taps])
    else:
        candidate = ask_network(copy.deepcopy(network).to(_DTYPES[precise.precision]))
    return measure_accuracy(ask_network(network), candidate, precise.samples[1::2])


def next_version(out: Path, name: str) -> int:
    """Return the number after the newest version."""
    return max(existing_versions(out, name), default=0) + 1


def make_contract(source: Source, plain: ModelProto, taps: list[Tap], folder: Path, version: int) -> Contract:
    """Describe the files in a folder as the server needs it."""
    network, config = source.network, source.network.config
    normalized = isinstance(network, TextNetwork) and network.config.normalize
    return Contract(
        name=source.name,
        version=version,
        family=source.family,
        description=source.description,
        inputs=tuple(_input_contract(value, source) for value in plain.graph.input),
        outputs=tuple(_tensor_contract(value) for value in plain.graph.output),
        text=_text_contract(source),
        image=source.image,
        labels=source.labels,
        embedding=EmbeddingContract(output="embedding", dim=config.encoder.embed_dim, normalized=normalized),
        attention=tuple(
            AttentionContract(output=one.output, layer=one.layer, kind="self", num_heads=int(one.shape[1]))
            for one in taps
        ),
        patches=_patch_contract(source),
        files={file.name: sha256_of(file) for file in sorted(folder.iterdir())},
        made_with={name: installed_version(name) for name in ("regard", "torch", "onnx", "onnxscript")},
    )


def _text_contract(source: Source) -> TextContract | None:
    if not isinstance(source.network, TextNetwork):
        return None
    positions = source.network.config.encoder.max_positions
    return TextContract(tokenizer_file=TOKENIZER_FILE, max_tokens=min(source.max_tokens or positions, positions))


def _patch_contract(source: Source) -> PatchContract | None:
    if isinstance(source.network, TextNetwork) or source.image is None:
        return None
    patch_size = source.network.config.patch_size
    grid = source.image.crop_size // patch_size
    return PatchContract(prefix_tokens=1, rows=grid, cols=grid, patch_size=patch_size)


def _tensor_contract(value: ValueInfoProto) -> TensorContract:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorContract(
        name=value.name,
        dtype=cast("DType", dtype),  # checked when the contract is made
        axes=tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim),
    )


def _input_contract(value: ValueInfoProto, source: Source) -> TensorContract:
    """Add to an input's shape what values it may hold, so that one caller's bad value cannot fail a batch."""
    contract = _tensor_contract(value)
    if not isinstance(source.network, TextNetwork):
        return contract
    if value.name == "attention_mask":
        return contract.model_copy(update={"minimum": 0, "maximum": 1, "mask": True})
    return contract.model_copy(update={"minimum": 0, "maximum": source.network.config.vocab_size - 1})
