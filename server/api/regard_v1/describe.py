"""What regard.v1's messages say about models and positions."""

from typing import Any

from artifact.contract import PatchContract, RelevanceMethod, TensorContract
from artifact.generation import GenerationContract
from artifact.images import Pixels
from artifact.text import Tokens
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.attention import KINDS, describe_window
from server.api.regard_v1.tensors import WIRE_DTYPES
from server.inference.alignment import can_align
from server.inference.request import InferenceResponse, PreparedInput
from server.inference.sound import SoundLength
from server.repository.loading import LoadedModel

_OF_TEXT = {None: pb.TEXT_OF_PAIR_UNSPECIFIED, 0: pb.TEXT_OF_PAIR_FIRST, 1: pb.TEXT_OF_PAIR_SECOND}

METHODS: dict[RelevanceMethod, pb.RelevanceMethod] = {
    "libra": pb.RELEVANCE_METHOD_UNSPECIFIED,
    "gradient": pb.RELEVANCE_METHOD_GRADIENT,
    "integrated-gradients": pb.RELEVANCE_METHOD_INTEGRATED_GRADIENTS,
    "genatt": pb.RELEVANCE_METHOD_GENATT,
    "legrad": pb.RELEVANCE_METHOD_LEGRAD,
}


def describe_model(model: LoadedModel, max_batch_size: int, max_inputs: int, device: str) -> pb.Model:
    """Describe a served model for ListModels and GetModel."""
    described = _describe_one(model, max_batch_size, max_inputs, device)
    if towers := model.towers:
        described.modality = pb.MODALITY_TEXT_OR_IMAGE
        joined = towers.contract
        described.towers.CopyFrom(
            pb.Towers(
                text=_describe_one(towers.text, max_batch_size, max_inputs, device),
                image=_describe_one(towers.image, max_batch_size, max_inputs, device),
                logit_scale=joined.logit_scale,
                logit_bias=joined.logit_bias,
                activation=joined.activation,
                label_template=joined.template,
                can_align=can_align(model),
            )
        )
        both = (towers.text, towers.image)
        described.can_explain_similarity = all(tower.contract.similarity is not None for tower in both)
    return described


def _describe_one(model: LoadedModel, max_batch_size: int, max_inputs: int, device: str) -> pb.Model:
    contract = model.contract
    described = pb.Model(
        name=contract.name,
        version=model.version,
        family=contract.family,
        description=contract.description,
        inputs=[_describe_tensor(spec) for spec in contract.inputs],
        outputs=[_describe_tensor(spec) for spec in contract.outputs],
        can_classify=bool(contract.labels),
        labels=contract.labels,
        can_rank=contract.ranks,
        activation=contract.activation or "",
        max_batch_size=max_batch_size,
        max_inputs=max_inputs,
        device=device,
        precision=contract.precision,
    )
    if contract.text:
        described.modality, described.max_tokens = pb.MODALITY_TEXT, contract.text.max_tokens
        described.prompts.update(contract.text.prompts)
        described.default_prompt = contract.text.default_prompt
        described.takes_pairs = contract.text.pairs
    elif contract.image:
        described.modality = pb.MODALITY_IMAGE
    elif contract.audio:
        described.modality = pb.MODALITY_AUDIO
        described.max_audio_seconds = contract.audio.max_seconds
    if contract.embedding:
        described.can_embed, described.embedding_dim = True, contract.embedding.dim
        described.embedding_normalized = contract.embedding.normalized
        described.similarity = contract.embedding.similarity or ""
        described.matryoshka_dims.extend(contract.embedding.matryoshka_dims)
        described.embedding_sparse = contract.embedding.sparse
    if late := contract.late:
        described.can_embed, described.can_rank, described.token_vector_dim = True, True, late.dim
        described.query_tokens, described.document_tokens = late.query_tokens, late.document_tokens
    if contract.patches:
        described.patches.CopyFrom(describe_patches(contract.patches))
    if contract.generation:
        described.generation.CopyFrom(_describe_generation(contract.generation))
        described.generation.can_explain = contract.explains_tokens
    described.can_explain = contract.explains_labels
    described.relevance_methods.extend(METHODS[method] for method in contract.label_methods)
    described.can_explain_layers = contract.label_layers is not None
    described.can_explain_similarity = contract.similarity is not None
    for layer in contract.attention:
        added = described.attention_layers.add(
            layer=layer.layer,
            kind=KINDS[layer.kind],
            num_heads=layer.num_heads,
            has_value_norms=layer.value_norms is not None,
            has_contributions=layer.contribution is not None,
            mixes_heads=layer.mixes_heads,
            class_attention=layer.class_attention,
        )
        if layer.window:
            added.window.CopyFrom(describe_window(layer.window))
    for state in contract.hidden_states:
        described.hidden_state_layers.add(layer=state.layer, dim=state.dim)
    return described


def _describe_generation(generation: GenerationContract) -> pb.Generation:
    return pb.Generation(
        num_layers=generation.num_layers,
        num_heads=generation.num_heads,
        max_tokens=generation.max_tokens,
        starts=generation.start_names,
        default_start=generation.default_start,
        num_beams=generation.num_beams,
        length_penalty=generation.length_penalty,
        vocab_size=generation.vocab_size,
        alignment_heads=[pb.AlignmentHead(layer=layer, head=head) for layer, head in generation.alignment_heads],
    )


def describe_positions(found: InferenceResponse) -> dict[str, Any]:
    """Say what the positions of an input stand for, as fields of pb.Attention or pb.HiddenStates.

    Nothing is said where its caller made the arrays.
    """
    return describe_input(found.prepared, found.model)


def describe_input(prepared: PreparedInput, model: LoadedModel) -> dict[str, Any]:
    """The same of an input and what read it."""
    source, patches = prepared.source, model.contract.patches
    if isinstance(source, Tokens):
        return {"tokens": describe_tokens(source)}
    if isinstance(source, Pixels) and patches:
        return {"patches": describe_patches(patches, source)}
    return {}


def describe_patches(patches: PatchContract, pixels: Pixels | None = None) -> pb.PatchGrid:
    """Say how positions lie on an image; with pixels, on the image that was sent."""
    grid = pb.PatchGrid(
        prefix_tokens=patches.prefix_tokens, rows=patches.rows, cols=patches.cols, patch_size=patches.patch_size
    )
    if pixels:
        left, top, right, bottom = pixels.box
        grid.image_width, grid.image_height = pixels.width, pixels.height
        grid.box.CopyFrom(pb.Box(left=left, top=top, right=right, bottom=bottom))
    return grid


def describe_sound(sound: SoundLength, model: LoadedModel) -> pb.SoundPositions:
    """Say how positions lie in a sound."""
    count = model.contract.positions
    return pb.SoundPositions(count=count, position_seconds=sound.max_seconds / count, seconds=sound.seconds)


def describe_tokens(tokens: Tokens) -> pb.TokenSequence:
    """Say which positions of a text's sequence come from where."""
    sequence = pb.TokenSequence()
    for token_id, text, (start, end), special in zip(
        tokens.ids.tolist(), tokens.texts, tokens.offsets, tokens.special, strict=True
    ):
        sequence.tokens.add(id=token_id, text=text, start=start, end=end, special=special)
    for token, part in zip(sequence.tokens, tokens.parts, strict=False):  # there are none of a single text
        token.of_text = _OF_TEXT[part]
    return sequence


def _describe_tensor(spec: TensorContract) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=spec.name,
        dtype=WIRE_DTYPES.get(spec.dtype, pb.DATA_TYPE_UNSPECIFIED),  # type: ignore[arg-type]
        shape=[axis if isinstance(axis, int) else -1 for axis in spec.axes],
        axes=["" if isinstance(axis, int) else axis for axis in spec.axes],
        optional=spec.token_types,
    )
