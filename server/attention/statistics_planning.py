"""Checks what is wanted of statistics against a model and an input, and says what its positions are."""

from collections.abc import Sequence

from artifact.contract import AttentionContract, Contract
from server.attention.places import Places, with_boxes, with_spans
from server.attention.positions import Positions
from server.attention.request import AttentionRequest, Statistic, shown_statistic
from server.attention.statistics import ANYWHERE
from server.errors import InvalidInput, NotPossible

_OF_TOKENS: tuple[Statistic, ...] = ("separator", "duplicate", "induction")
_FIELD = "attention.statistics"


def find_places(
    request: AttentionRequest,
    contract: Contract,
    layers: Sequence[tuple[int, AttentionContract, tuple[int, int]]],
    positions: Positions,
) -> Places | None:
    """Check the statistics of a request; returns what the positions of the input are, None where none is wanted.

    Args:
        request: As the caller sent it, without contradictions.
        contract: The model's.
        layers: Number, contract and shape of each that is wanted.
        positions: Of the input.

    Raises:
        NotPossible: The model, or a layer, does not have what a statistic counts.
        InvalidInput: The input does not, or nothing lies in a region.
    """
    if not request.statistics:
        return None
    for number, layer, shape in layers:
        _check_layer(request.statistics, number, layer, shape, positions.count)
    patches = contract.patches
    prefix_tokens = patches.prefix_tokens if patches else 0
    if "registers" in request.statistics and prefix_tokens < 2:
        raise NotPossible(f"{_FIELD}: {shown_statistic('registers')}; expected a model of images with registers")
    for statistic in request.statistics:
        if statistic in _OF_TOKENS and positions.token_ids is None:
            raise InvalidInput(_FIELD, shown_statistic(statistic), "it for a text, whose tokens are known")
        if statistic == "special" and positions.special is None:
            raise InvalidInput(_FIELD, shown_statistic(statistic), "it for a text or an image: others do not say which")
    places = Places(positions.count, positions.token_ids, positions.special, patches)
    if request.spans:
        if positions.token_ids is None or positions.pair is not None:
            expected = "none but for a text, which a pair is not"
            raise InvalidInput("attention.spans", f"{len(request.spans)} of them", expected)
        return with_spans(places, positions.offsets, request.spans)
    if request.boxes:
        if positions.seen is None or patches is None:
            raise InvalidInput("attention.boxes", f"{len(request.boxes)} of them", "none but for an image")
        return with_boxes(places, positions.seen, request.boxes)
    return places


def those_of(
    wanted: Sequence[Statistic], layer: AttentionContract, shape: tuple[int, int], count: int
) -> tuple[Statistic, ...]:
    """Return those statistics that a layer has; none where its heads are mixed."""
    return () if layer.mixes_heads else tuple(one for one in wanted if _has(one, layer, shape, count))


def _check_layer(
    wanted: Sequence[Statistic], number: int, layer: AttentionContract, shape: tuple[int, int], count: int
) -> None:
    """Refuse what a layer's rows and keys do not allow."""
    missing = next((one for one in wanted if not _has(one, layer, shape, count)), None)
    if missing is None:
        return
    expected = f"ENTROPY, SINK or NORM of layer {number}, whose positions are not those of the input"
    if _is_on_windows(layer):
        expected = f"ATTENTION_STATISTIC_ENTROPY alone of layer {number}, which attends in windows"
    raise NotPossible(f"{_FIELD}: {shown_statistic(missing)}; expected {expected}")


def _has(statistic: Statistic, layer: AttentionContract, shape: tuple[int, int], count: int) -> bool:
    """Whether a layer's rows and keys allow a statistic, its heads not looked at."""
    if _is_on_windows(layer):
        return statistic == "entropy"
    is_on_input = layer.kind != "cross" and shape == (count, count)
    return is_on_input or statistic in ANYWHERE


def _is_on_windows(layer: AttentionContract) -> bool:
    return layer.window is not None and not layer.window.is_whole
