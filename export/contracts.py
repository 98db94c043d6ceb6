"""Makes the contract of an artifact from its source and its written graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from onnx import ModelProto, ValueInfoProto, helper
from pydantic import ValidationError

from artifact.contract import (
    AttentionContract,
    Contract,
    DerivedAxis,
    HiddenStateContract,
    PatchContract,
    RelevanceContract,
    SimilarityContract,
    TensorContract,
    TextContract,
    WindowContract,
)
from artifact.dtypes import DType
from artifact.errors import explain
from artifact.files import hash_file
from artifact.installed import installed_version
from export.errors import TapError, VerificationError
from export.probe import Axes, Kind
from export.sources import Source
from export.tapping.tap import Tap
from export.traits import InputSpec, find_patches

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Written:
    """The graphs of an artifact.

    Attributes:
        plain: Its weights in the file beside it.
        taps: What attention the tapped one gives.
        axes: Of every output of the tapped one, by name.
        kinds: Who attends to whom, by attention output.
        derived: Axes that follow from an input's.
        contributions: Outputs of the third graph, by layer.
        states: The hidden states that the hidden graph gives; none where there is no such graph.
        projected: What it gives besides, of a tower; see Contract.
        relevance: What the relevance graphs give.
        similarity: What similarity and parts graph give; None where there are none.
    """

    plain: ModelProto
    taps: list[Tap]
    axes: Mapping[str, Axes]
    kinds: Mapping[str, Kind]
    derived: tuple[DerivedAxis, ...]
    contributions: Mapping[int, str]
    states: tuple[HiddenStateContract, ...] = ()
    projected: HiddenStateContract | None = None
    relevance: tuple[RelevanceContract, ...] = ()
    similarity: SimilarityContract | None = None


def make_contract(source: Source, written: Written, folder: Path, version: int) -> Contract:
    """Describe the files in a folder as the server needs it.

    Raises:
        VerificationError: Parts of it contradict each other.
    """
    try:
        return _describe(source, written, folder, version)
    except ValidationError as error:
        raise VerificationError(f"contract: {explain(error)}") from error


def _describe(source: Source, written: Written, folder: Path, version: int) -> Contract:
    traits, patches = source.traits, _patches(source, written)
    return Contract(
        name=source.name,
        version=version,
        family=source.family,
        description=source.description,
        inputs=tuple(_input_contract(spec) for spec in traits.inputs),
        outputs=tuple(_output_contract(value, written.axes[value.name]) for value in written.plain.graph.output),
        text=_text_contract(source),
        image=source.image if patches else None,
        audio=source.writing.audio if source.writing else None,
        labels=source.labels,
        activation=source.activation,
        embedding=traits.embedding,
        late=source.late,
        generation=source.writing.generation if source.writing else None,
        attention=tuple(_attention_contract(one, written, traits.windows, patches) for one in written.taps),
        hidden_states=written.states,
        projected=written.projected,
        relevance=next((one for one in written.relevance if one.graph == "libra"), None),
        other_relevance=tuple(one for one in written.relevance if one.graph != "libra"),
        similarity=written.similarity,
        patches=patches,
        limits={axis: traits.limit(axis) for axis in traits.axes},
        derived_axes=written.derived,
        files={file.name: hash_file(file) for file in sorted(folder.iterdir())},
        origin=source.origin,
        made_with={name: installed_version(name) for name in source.made_with},
    )


def _text_contract(source: Source) -> TextContract | None:
    if source.tokenizer_file is None and (source.writing is None or source.writing.tokenizer is None):
        return None
    return TextContract(
        tokenizer_file=TOKENIZER_FILE,
        max_tokens=source.token_limit,
        prompts=dict(source.prompts),
        default_prompt=source.default_prompt,
        pairs=source.pairs,
        pad_token=source.pad_token,
    )


def _patches(source: Source, written: Written) -> PatchContract | None:
    """Say how positions lie on an image; of a graph, whose attention alone tells, by the number of keys."""
    if source.image is None or source.traits.patches:
        return source.traits.patches if source.image else None
    keys = written.axes[written.taps[0].output][3]
    return find_patches(keys, source.image.crop_size) if isinstance(keys, int) else None


def _attention_contract(
    one: Tap, written: Written, windows: Sequence[WindowContract | None], patches: PatchContract | None
) -> AttentionContract:
    _, heads, query_axis, key_axis = written.axes[one.output]
    if not isinstance(heads, int):
        raise TapError(f"{one.node}: the number of its heads follows the input; expected a fixed one")
    of_patches = patches is not None and not patches.prefix_tokens and key_axis == patches.positions + 1
    return AttentionContract(
        output=one.output,
        layer=one.layer,
        kind=written.kinds[one.output],
        num_heads=heads,
        query_axis=query_axis,
        key_axis=key_axis,
        value_norms=one.value_norms,
        contribution=written.contributions.get(one.layer),
        window=windows[one.layer] if windows else None,
        mixes_heads=one.mixes_heads,
        class_attention=of_patches and query_axis == 1,
    )


def _output_contract(value: ValueInfoProto, axes: Axes) -> TensorContract:
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    named = (f"{value.name}_{place}" if axis is None else axis for place, axis in enumerate(axes))
    return TensorContract(name=value.name, dtype=cast("DType", dtype), axes=tuple(named))


def _input_contract(spec: InputSpec) -> TensorContract:
    """Say what values an input may hold, so that one caller's bad value cannot fail a batch."""
    contract = TensorContract(name=spec.name, dtype=spec.dtype, axes=spec.axes)
    if spec.bound:
        of_values = {"minimum": 0, "maximum": spec.bound - 1}
        return contract.model_copy(update=of_values | {"mask": spec.mask, "token_types": spec.token_types})
    return contract
