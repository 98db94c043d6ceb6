"""Reads answers into what callers get, without any network."""

import math
from dataclasses import replace

import grpc
import numpy as np
from numpy.typing import NDArray

from regard.alignment import Alignment
from regard.answers import (
    Answers,
    AttentionLayer,
    Classification,
    Embedding,
    Generation,
    HiddenStateLayer,
    Label,
    Model,
    Prediction,
    SparseVector,
    Takes,
    TensorSpec,
    Timings,
    Towers,
    VersionState,
)
from regard.attention import Attention, AttentionKind, AttentionWindow, Box, LayerAttention, PatchGrid, Token
from regard.comparison import Comparison, SimilarityRelevance
from regard.encoding import MEASURES, RELEVANCE_METHODS, STATISTIC_NUMBERS, TEXTS_OF_PAIR
from regard.errors import RegardError, from_input_error
from regard.hidden_states import HiddenStates, LayerHiddenStates
from regard.origin import Origin, keep
from regard.relevance import LayerRelevance, Relevance
from regard.scores import RankedDocument, Ranking, TokenMatches
from regard.tensors import DTYPE_NAMES, read_tensor
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb

_KINDS: dict[pb.AttentionKind, AttentionKind] = {
    pb.ATTENTION_KIND_SELF: "self",
    pb.ATTENTION_KIND_CROSS: "cross",
    pb.ATTENTION_KIND_CAUSAL: "causal",
}
_MAX_PAIRS = 2**26  # queries times keys of a layer with windows; SAM at 1,024 pixels has 2**20
_TEXT_NAMES = {number: name for name, number in TEXTS_OF_PAIR.items()}
_MEASURE_NAMES = {number: name for name, number in MEASURES.items()}
_METHODS = {number: name for name, number in RELEVANCE_METHODS.items()}
_STATISTIC_NAMES = {number: name for name, number in STATISTIC_NUMBERS.items()}
_MODALITIES: dict[pb.Modality, Takes] = {
    pb.MODALITY_TEXT: "text",
    pb.MODALITY_IMAGE: "image",
    pb.MODALITY_TEXT_OR_IMAGE: "text or image",
    pb.MODALITY_AUDIO: "audio",
}


def read_attended(answer: rpc.AttendResponse, first: Attention | None) -> Attention:
    """Read one layer of a stream; what the positions stand for came with the first."""
    attention = _read_attention(answer.attention, answer.truncated)
    if first is None:
        return attention
    return replace(attention, tokens=first.tokens, patches=first.patches, truncated=first.truncated)


def read_prediction(answer: rpc.PredictResponse) -> Prediction:
    """Read the answer to predict."""
    return Prediction(
        model=answer.model,
        version=answer.version,
        outputs={name: read_tensor(tensor) for name, tensor in answer.outputs.items()},
        attention=_read_attention(answer.attention) if answer.HasField("attention") else None,
        timings=_read_timings(answer.timings),
        hidden_states=_hidden_states_of(answer),
    )


def read_classification(answer: rpc.ClassifyResponse) -> Classification:
    """Read the answer to classify."""
    return _read_labels(answer, answer, _read_timings(answer.timings))


def read_embedding(answer: rpc.EmbedResponse) -> Embedding:
    """Read the answer to embed."""
    return _read_vector(answer, answer, _read_timings(answer.timings))


def read_classifications(answer: rpc.ClassifyResponse) -> Answers[Classification]:
    """Read the answer to classify several inputs."""
    timings = _read_timings(answer.timings)
    each = tuple(_error_of(one) or _read_labels(answer, one, timings) for one in answer.results)
    return Answers(answer.model, answer.version, each, timings)


def read_embeddings(answer: rpc.EmbedResponse) -> Answers[Embedding]:
    """Read the answer to embed several inputs."""
    timings = _read_timings(answer.timings)
    each = tuple(_error_of(one) or _read_vector(answer, one, timings) for one in answer.results)
    return Answers(answer.model, answer.version, each, timings)


def read_ranking(answer: rpc.RankResponse) -> Ranking:
    """Read the answer to rank."""
    errors = {one.index: error for one in answer.documents if (error := _error_of(one))}
    ranked = (one for one in answer.documents if one.index not in errors)
    documents = tuple(
        RankedDocument(
            one.index, one.score, one.truncated, _attention_of(one), _hidden_states_of(one), _matches_of(one)
        )
        for one in ranked
    )
    query = read_tokens(answer.query_tokens) if answer.HasField("query_tokens") else None
    return Ranking(answer.model, answer.version, documents, errors, _read_timings(answer.timings), query)


def _matches_of(one: rpc.RankedDocument) -> TokenMatches | None:
    if not one.HasField("token_matches"):
        return None
    found, similarities = (
        np.array(one.token_matches.found, np.int32),
        np.array(one.token_matches.similarities, np.float32),
    )
    return TokenMatches(found, similarities, read_tokens(one.token_matches.document_tokens))


def read_tokens(sequence: pb.TokenSequence) -> tuple[Token, ...]:
    """Read what positions stand for."""
    return tuple(_read_token(token) for token in sequence.tokens)


def read_alignment(answer: rpc.AlignResponse) -> Alignment:
    """Read the answer to align."""
    found = answer.map
    return Alignment(
        model=answer.model,
        version=answer.version,
        tokens=read_tokens(found.tokens),
        patches=_read_patches(found.patches),
        similarities=read_tensor(found.similarities),
        text_similarities=read_tensor(found.text_similarities),
        similarity=found.similarity,
        truncated=answer.truncated,
        timings=_read_timings(answer.timings),
    )


def read_comparison(answer: rpc.CompareResponse, request: rpc.CompareRequest) -> Comparison:
    """Read the answer to compare, and keep what its reasons came from."""
    why = _similarity_of(answer)
    for drawn, sent in ((why.first, request.first), (why.second, request.second)) if why else ():
        keep(drawn, Origin(answer.model, image=sent.image if sent.WhichOneof("input") == "image" else None))
    return Comparison(
        model=answer.model,
        version=answer.version,
        similarity=answer.similarity,
        first_truncated=answer.first_truncated,
        second_truncated=answer.second_truncated,
        relevance=why,
        timings=_read_timings(answer.timings),
    )


def _similarity_of(answer: rpc.CompareResponse) -> SimilarityRelevance | None:
    if not answer.HasField("relevance"):
        return None
    why = answer.relevance
    return SimilarityRelevance(
        first=_read_relevance(why.first),
        second=_read_relevance(why.second),
        pairs=read_tensor(why.pairs) if why.HasField("pairs") else None,
        unpaired=why.unpaired,
        error=why.error,
        relative_error=why.relative_error,
    )


def read_model(model: pb.Model) -> Model:
    """Read a model's description."""
    return Model(
        name=model.name,
        version=model.version,
        family=model.family,
        description=model.description,
        inputs=tuple(_read_spec(spec) for spec in model.inputs),
        outputs=tuple(_read_spec(spec) for spec in model.outputs),
        modality=_MODALITIES.get(model.modality),
        can_classify=model.can_classify,
        labels=tuple(model.labels),
        can_embed=model.can_embed,
        embedding_dim=model.embedding_dim,
        embedding_normalized=model.embedding_normalized,
        attention_layers=tuple(
            AttentionLayer(
                layer.layer,
                _read_kind(layer.kind),
                layer.num_heads,
                layer.has_value_norms,
                layer.has_contributions,
                _window_of(layer),
                layer.mixes_heads,
                layer.class_attention,
            )
            for layer in model.attention_layers
        ),
        patches=_read_patches(model.patches) if model.HasField("patches") else None,
        max_tokens=model.max_tokens,
        max_audio_seconds=model.max_audio_seconds,
        max_batch_size=model.max_batch_size,
        max_inputs=model.max_inputs,
        device=model.device,
        precision=model.precision,
        prompts=dict(model.prompts),
        default_prompt=model.default_prompt,
        similarity=model.similarity,
        takes_pairs=model.takes_pairs,
        can_rank=model.can_rank,
        can_explain=model.can_explain,
        relevance_methods=tuple(_METHODS[number] for number in model.relevance_methods if number in _METHODS),
        can_explain_similarity=model.can_explain_similarity,
        can_explain_layers=model.can_explain_layers,
        activation=model.activation,
        hidden_state_layers=tuple(HiddenStateLayer(state.layer, state.dim) for state in model.hidden_state_layers),
        matryoshka_dims=tuple(model.matryoshka_dims),
        embedding_sparse=model.embedding_sparse,
        token_vector_dim=model.token_vector_dim,
        query_tokens=model.query_tokens,
        document_tokens=model.document_tokens,
        towers=_read_towers(model.towers) if model.HasField("towers") else None,
        generation=_read_generation(model.generation) if model.HasField("generation") else None,
    )


def _read_generation(generation: pb.Generation) -> Generation:
    return Generation(
        num_layers=generation.num_layers,
        num_heads=generation.num_heads,
        max_tokens=generation.max_tokens,
        starts=tuple(generation.starts),
        default_start=generation.default_start,
        can_explain=generation.can_explain,
        num_beams=generation.num_beams,
        length_penalty=generation.length_penalty,
        vocab_size=generation.vocab_size,
        alignment_heads=tuple((one.layer, one.head) for one in generation.alignment_heads),
    )


def _read_towers(towers: pb.Towers) -> Towers:
    return Towers(
        text=read_model(towers.text),
        image=read_model(towers.image),
        logit_scale=towers.logit_scale,
        logit_bias=towers.logit_bias,
        activation=towers.activation,
        label_template=towers.label_template,
        can_align=towers.can_align,
    )


def read_version(version: rpc.VersionState) -> VersionState:
    """Read what the server says of a version."""
    return VersionState(version.model, version.version, version.state, version.reason)


def _error_of(one: rpc.ClassifyResult | rpc.EmbedResult | rpc.RankedDocument) -> RegardError | None:
    return from_input_error(one.error.code, one.error.message) if one.HasField("error") else None


def _read_labels(
    answer: rpc.ClassifyResponse, one: rpc.ClassifyResponse | rpc.ClassifyResult, timings: Timings
) -> Classification:
    """Read one input's labels: of the answer itself, or of one of its results."""
    explained = _relevances_of(one)
    return Classification(
        model=answer.model,
        version=answer.version,
        labels=tuple(Label(label.index, label.name, label.probability) for label in one.labels),
        truncated=one.truncated,
        attention=_attention_of(one),
        timings=timings,
        hidden_states=_hidden_states_of(one),
        relevance=next(iter(explained), None),
        relevances=explained,
    )


def _read_vector(answer: rpc.EmbedResponse, one: rpc.EmbedResponse | rpc.EmbedResult, timings: Timings) -> Embedding:
    """Read one input's vector; see _read_labels."""
    sparse = _read_sparse(one.sparse) if one.HasField("sparse") else None
    late = one.token_vectors if one.HasField("token_vectors") else None
    vector = one.vector if late is None else late.vectors
    return Embedding(
        model=answer.model,
        version=answer.version,
        vector=read_tensor(vector) if sparse is None else _spread(sparse, one.sparse.dim),
        scale=one.vector_scale or 1.0,
        sparse=sparse,
        tokens=None if late is None else read_tokens(late.tokens),
        truncated=one.truncated,
        attention=_attention_of(one),
        timings=timings,
        hidden_states=_hidden_states_of(one),
    )


def _read_sparse(message: rpc.SparseVector) -> SparseVector:
    indices, values = np.array(message.indices, dtype=np.int32), np.array(message.values, dtype=np.float32)
    for array in (indices, values):
        array.flags.writeable = False
    return SparseVector(indices, values, tuple(message.terms))


def _spread(sparse: SparseVector, dim: int) -> NDArray[np.float32]:
    """Return all numbers of a sparse vector, float32 [dim]."""
    vector = np.zeros(dim, dtype=np.float32)
    vector[sparse.indices] = sparse.values
    vector.flags.writeable = False
    return vector


def _attention_of(
    one: rpc.ClassifyResponse | rpc.ClassifyResult | rpc.EmbedResponse | rpc.EmbedResult | rpc.RankedDocument,
) -> Attention | None:
    return _read_attention(one.attention, one.truncated) if one.HasField("attention") else None


def _read_attention(attention: pb.Attention, truncated: bool = False) -> Attention:
    tokens, patches = _read_positions(attention)
    layers = tuple(read_layer(layer) for layer in attention.layers)
    return Attention(layers=layers, tokens=tokens, patches=patches, truncated=truncated)


def _read_positions(
    message: pb.Attention | pb.HiddenStates | pb.Relevance,
) -> tuple[tuple[Token, ...] | None, PatchGrid | None]:
    """Read what the positions stand for: tokens, patches or neither."""
    kind = message.WhichOneof("of" if isinstance(message, pb.Relevance) else "positions")
    tokens = read_tokens(message.tokens) if kind == "tokens" else None
    return tokens, _read_patches(message.patches) if kind == "patches" else None


def _hidden_states_of(
    one: rpc.PredictResponse
    | rpc.ClassifyResponse
    | rpc.ClassifyResult
    | rpc.EmbedResponse
    | rpc.EmbedResult
    | rpc.RankedDocument,
) -> HiddenStates | None:
    if not one.HasField("hidden_states"):
        return None
    states = one.hidden_states
    tokens, patches = _read_positions(states)
    layers = tuple(
        LayerHiddenStates(state.layer, tuple(state.axes), _read_states(state), tuple(state.positions))
        for state in states.layers
    )
    return HiddenStates(layers=layers, tokens=tokens, patches=patches)


def _relevances_of(one: rpc.ClassifyResponse | rpc.ClassifyResult) -> tuple[Relevance, ...]:
    return tuple(map(_read_relevance, [one.relevance] if one.HasField("relevance") else one.relevances))


def _read_relevance(why: pb.Relevance) -> Relevance:
    tokens, patches = _read_positions(why)
    return Relevance(
        label=why.label,
        against=why.against,
        score=why.score,
        values=read_tensor(why.values),
        positions=tuple(why.positions),
        unsent=why.unsent,
        rest=why.rest,
        error=why.error if why.HasField("error") else None,
        relative_error=why.relative_error if why.HasField("relative_error") else None,
        tokens=tokens,
        patches=patches,
        method=_METHODS.get(why.method, "libra"),
        baseline=why.baseline if why.HasField("baseline") else None,
        words=tuple(why.words),
        by_layer=_read_layers(why.by_layer) if why.HasField("by_layer") else None,
    )


def _read_layers(layers: pb.LayerRelevance) -> LayerRelevance:
    return LayerRelevance(
        values=read_tensor(layers.values),
        unsent=tuple(layers.unsent),
        added=tuple(layers.added),
        relative_errors=tuple(layers.relative_error),
    )


def _read_states(state: pb.LayerHiddenStates) -> NDArray[np.floating]:
    values = read_tensor(state.values)
    if values.dtype != np.uint8:
        return values
    scales, offsets = (read_tensor(tensor)[..., np.newaxis] for tensor in (state.scales, state.offsets))
    return np.asarray(values * scales + offsets)


def read_layer(layer: pb.LayerAttention) -> LayerAttention:
    """Read the attention of one layer."""
    return LayerAttention(
        layer=layer.layer,
        kind=_read_kind(layer.kind),
        axes=tuple(layer.axes),
        heads=tuple(layer.heads),
        queries=tuple(layer.queries),
        weights=_read_weights(layer),
        keys=tuple(layer.keys),
        measure=_MEASURE_NAMES.get(layer.measure, "weights"),
        indices=read_tensor(layer.indices) if layer.HasField("indices") else None,
        covered_layers=tuple(layer.covered_layers),
        window=_window_of(layer),
        class_attention=layer.class_attention,
        statistics=tuple(_STATISTIC_NAMES[one] for one in layer.statistics if one in _STATISTIC_NAMES),
    )


def _window_of(layer: pb.LayerAttention | pb.AttentionLayer) -> AttentionWindow | None:
    if not layer.HasField("window"):
        return None
    window = layer.window
    sizes = window.rows, window.cols, window.height, window.width, window.cell_size
    if min(sizes) < 1 or math.prod(sizes[:4]) > _MAX_PAIRS or min(window.shift_rows, window.shift_cols) < 0:
        found = f"the answer holds a window of {list(sizes)}; expected sizes from 1 and at most {_MAX_PAIRS} weights"
        raise RegardError(grpc.StatusCode.INTERNAL, found)
    return AttentionWindow(
        rows=window.rows,
        cols=window.cols,
        height=window.height,
        width=window.width,
        shift_rows=window.shift_rows,
        shift_cols=window.shift_cols,
        cell_size=window.cell_size,
    )


def _read_weights(layer: pb.LayerAttention) -> NDArray[np.floating]:
    weights = read_tensor(layer.weights)
    return weights * np.float32(layer.scale) if weights.dtype == np.uint8 else weights


def _read_kind(kind: pb.AttentionKind) -> AttentionKind:
    return _KINDS.get(kind, "unspecified")


def _read_token(token: pb.Token) -> Token:
    return Token(token.id, token.text, token.start, token.end, token.special, _TEXT_NAMES.get(token.of_text))


def _read_patches(grid: pb.PatchGrid) -> PatchGrid:
    return PatchGrid(
        prefix_tokens=grid.prefix_tokens,
        rows=grid.rows,
        cols=grid.cols,
        patch_size=grid.patch_size,
        image_width=grid.image_width or None,
        image_height=grid.image_height or None,
        box=Box(grid.box.left, grid.box.top, grid.box.right, grid.box.bottom) if grid.HasField("box") else None,
    )


def _read_timings(timings: pb.Timings) -> Timings:
    return Timings(timings.decode_ns, timings.queue_ns, timings.compute_ns, timings.encode_ns, timings.batch_size)


def _read_spec(spec: pb.TensorSpec) -> TensorSpec:
    dtype = DTYPE_NAMES.get(spec.dtype, "unspecified")
    return TensorSpec(spec.name, dtype, tuple(spec.shape), tuple(spec.axes), spec.optional)
