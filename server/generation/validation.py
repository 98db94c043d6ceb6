"""What is refused of a request for a text, and what its defaults come to."""

import math
from dataclasses import dataclass

from artifact.generation import MAX_LENGTH_PENALTY, GenerationContract
from server.attention.indices import resolve
from server.attention.request import AttentionRequest
from server.errors import InvalidInput, NotPossible
from server.generation.plan import AttentionPlan, GenerationPlan
from server.generation.request import AttentionKind, GenerationRequest, Sampling
from server.relevance.tokens import check_tokens

MAX_STOPS, MAX_STOP_CHARACTERS, MAX_ALTERNATIVES = 16, 256, 20


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """How much one request may ask for.

    Attributes:
        max_beams: The most beginnings that are kept at each step.
        answer_bytes: The most that one answer may hold.
    """

    max_beams: int
    answer_bytes: int = 2**31 - 1


def check_request(request: GenerationRequest, limits: GenerationLimits) -> None:
    """Refuse what a model cannot do, and fields that cannot be used. Texts are checked where they are read.

    Raises:
        NotPossible: The model writes no texts.
        InvalidInput: Names the field.
    """
    generation = _contract(request)
    _check_source(request)
    if request.start and request.start not in generation.start_names:
        raise InvalidInput("start", repr(request.start), f"one of {', '.join(generation.start_names)}, or none")
    if not 0 <= request.max_tokens <= generation.max_tokens:
        raise InvalidInput("max_tokens", request.max_tokens, f"0 for the model's, or 1 to {generation.max_tokens}")
    _check_target(request)
    if request.sampling:
        _check_sampling(request.sampling)
    _check_stop(request.stop)
    if not 0 <= request.alternatives <= MAX_ALTERNATIVES:
        raise InvalidInput("alternatives", request.alternatives, f"0 to {MAX_ALTERNATIVES}")
    for kind, attention in (request.attention or {}).items():
        _check_attention(kind, attention)
    _check_beams(request, generation, limits)
    if request.relevance is not None:
        check_tokens(request.relevance, request.model.contract, request.max_tokens or generation.max_tokens)


def check_target_length(tokens: int, max_tokens: int) -> None:
    """Refuse a target of more tokens, its end counted, than are written.

    Raises:
        InvalidInput: It has more, or none.
    """
    if not 1 <= tokens <= max_tokens:
        raise InvalidInput("target", f"{tokens} tokens", f"1 to {max_tokens} (max_tokens), the end token counted")


def check_answer_size(request: GenerationRequest, size_bytes: int, max_bytes: int, instead: str) -> None:
    """Refuse what a message does not hold: how many tokens there are to attend to, is only known when it is written.

    Raises:
        InvalidInput: It is larger than that; says what to ask for instead.
    """
    if size_bytes > max_bytes:
        field = next((f"{kind}_attention" for kind in request.attention or ()), "max_tokens")
        if request.relevance is not None and not request.attention:
            field = "relevance"
        expected = f"at most {max_bytes} (the server's --max-message-bytes): {instead}"
        raise InvalidInput(field, f"an answer of {size_bytes} bytes", expected)


def plan_request(request: GenerationRequest) -> GenerationPlan:
    """Fill in the model's defaults.

    Args:
        request: Checked.

    Raises:
        NotPossible: The model writes no texts.
        InvalidInput: A layer or a head does not exist, or is named twice.
    """
    generation = _contract(request)
    names, beginnings = generation.names_of_start(request.start), generation.beginnings(request.start)
    return GenerationPlan(
        generation=generation,
        starts=dict(zip(names, beginnings, strict=True)),
        max_tokens=request.max_tokens or generation.max_tokens,
        num_beams=_num_beams(request, generation),
        num_results=request.num_results or 1,
        length_penalty=generation.length_penalty if request.length_penalty is None else request.length_penalty,
        sampling=request.sampling,
        stop=request.stop,
        alternatives=request.alternatives,
        attention=tuple(
            one
            for kind in ("cross", "self")
            if request.attention and kind in request.attention
            for one in _choose(kind, request.attention[kind], generation)
        ),
    )


def _contract(request: GenerationRequest) -> GenerationContract:
    if request.model.contract.generation is None:
        raise NotPossible(f"model: {request.model.name} writes no texts; expected a model with generation")
    return request.model.contract.generation


def _check_source(request: GenerationRequest) -> None:
    """Refuse neither text nor sound, both, and what is only for a text."""
    if request.audio is None:
        if request.model.contract.audio and not request.text:
            raise InvalidInput("audio", "empty", "a WAV or FLAC file")
        return
    if request.text:
        raise InvalidInput("text", "beside audio", "one of both")
    if request.truncate:
        raise InvalidInput("truncate", "true", "false with audio, which is never cut")


def _num_beams(request: GenerationRequest, generation: GenerationContract) -> int:
    greedy = request.sampling is not None or request.target is not None
    return request.num_beams or (1 if greedy else generation.num_beams)


def _check_target(request: GenerationRequest) -> None:
    if request.target is None:
        return
    if request.sampling:
        raise InvalidInput("sampling", "given", "none together with target, which is scored as it is")
    if request.stop:
        raise InvalidInput("stop", f"{len(request.stop)} texts", "none together with target, all of which is scored")


def _check_sampling(sampling: Sampling) -> None:
    if not (math.isfinite(sampling.temperature) and sampling.temperature > 0):
        raise InvalidInput("sampling.temperature", sampling.temperature, "a number above 0")
    if sampling.top_k < 0:
        raise InvalidInput("sampling.top_k", sampling.top_k, "0 for all tokens, or a positive number")
    if not 0 < sampling.top_p <= 1:  # which NaN is not
        raise InvalidInput("sampling.top_p", sampling.top_p, "above 0, and at most 1")
    if sampling.seed is not None and not 0 <= sampling.seed < 2**64:
        raise InvalidInput("sampling.seed", sampling.seed, "0 to 2^64 - 1")


def _check_stop(stop: tuple[str, ...]) -> None:
    if len(stop) > MAX_STOPS:
        raise InvalidInput("stop", f"{len(stop)} texts", f"at most {MAX_STOPS}")
    for number, text in enumerate(stop):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            found = f"{len(text)} characters" if text else "empty"
            raise InvalidInput(f"stop[{number}]", found, f"1 to {MAX_STOP_CHARACTERS} characters")


def _check_beams(request: GenerationRequest, generation: GenerationContract, limits: GenerationLimits) -> None:
    """Refuse more beams than the server takes, and what only one of them allows."""
    beams = _num_beams(request, generation)
    shown = beams if request.num_beams else f"{beams}, the model's"
    if not 1 <= beams <= limits.max_beams:
        raise InvalidInput("num_beams", shown, f"1 to {limits.max_beams} (the server's --max-beams)")
    if beams > 1:
        for field, given in (("sampling", request.sampling), ("target", request.target)):
            if given is not None:
                raise InvalidInput("num_beams", shown, f"1 with {field}")
        kinds = [f"{kind}_attention" for kind in request.attention or ()]
        for field in (*(["stop"] if request.stop else []), *(["alternatives"] if request.alternatives else []), *kinds):
            raise InvalidInput(field, "given", f"none with num_beams of {shown}; num_beams of 1 allows it")
    results = 1 if request.sampling else beams
    if not 0 <= request.num_results <= results:
        what = "with sampling" if request.sampling else f"with num_beams of {shown}"
        raise InvalidInput("num_results", request.num_results, f"1 to {results} {what}, or 0 for 1")
    if request.length_penalty is not None and not abs(request.length_penalty) <= MAX_LENGTH_PENALTY:  # as NaN is not
        expected = f"a number from -{MAX_LENGTH_PENALTY:g} to {MAX_LENGTH_PENALTY:g}"
        raise InvalidInput("length_penalty", request.length_penalty, expected)


def _check_attention(kind: AttentionKind, attention: AttentionRequest) -> None:
    """Refuse everything but layers, heads and what is made of these."""
    allowed = AttentionRequest(attention.layers, attention.heads, head_reduction=attention.head_reduction)
    for field in AttentionRequest.__dataclass_fields__:
        if (found := getattr(attention, field)) != getattr(allowed, field):
            shown = str(found).lower() if isinstance(found, bool) else found
            expected = "float32" if field == "dtype" else "none: of a step only layers, heads and head_reduction"
            raise InvalidInput(f"{kind}_attention.{field}", shown, expected)


def _choose(kind: AttentionKind, attention: AttentionRequest, generation: GenerationContract) -> list[AttentionPlan]:
    field = f"{kind}_attention"
    layers = resolve(f"{field}.layers", attention.layers, generation.num_layers)
    heads = resolve(f"{field}.heads", attention.heads, generation.num_heads)
    return [AttentionPlan(kind, layer, tuple(heads), attention.head_reduction) for layer in layers]
