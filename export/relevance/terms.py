"""What makes up a score by Libra: what enters the first layer, and every term that is added on the way (FullGrad).

Srinivas and Fleuret 2019, "Full-Gradient Representation", equation 3: each times the score's gradient there. A term
with an axis of positions is theirs; the rest belongs to no position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from export.errors import RelevanceError
from export.relevance.reverse import Reverse

_STATE_AXES = 3  # [B, N, D]


@dataclass(frozen=True)
class Share:
    """What a term did for a score.

    Attributes:
        value: float32 [B, N], or [B] where it belongs to no position.
        output: The value of the graph that the term was added to make.
        of: Which of the values that enter first layers has these positions; None where it belongs to none.
    """

    value: str
    output: str
    of: int | None


def sum_terms(reverse: Reverse, *embedded: str) -> tuple[list[str], str, list[Share]]:
    """Sum terms times their gradients: by position [B, N] of each that enters a first layer, and those of none [B].

    Returns:
        Both, and each share.

    Raises:
        RelevanceError: The score does not depend on what enters a first layer.
    """
    entering = [times_gradient(reverse, one, one) for one in embedded]
    shares = [_share(reverse, embedded, *term) for term in reverse.terms]
    rest = [one.value for one in shares if one.of is None]
    nothing = reverse.reduce_sum(reverse.add("Mul", [entering[0], reverse.number(0.0, entering[0])]), [-1], keepdims=0)
    positions = [
        total(reverse, [own, *(one.value for one in shares if one.of == place)]) for place, own in enumerate(entering)
    ]
    return positions, total(reverse, rest or [nothing]), shares


def times_gradient(reverse: Reverse, value: str, varied: str) -> str:
    """Sum a value times its gradient over what a position has, [B, N].

    Args:
        reverse: Has walked back from the score.
        value: float32 [B, N, D].
        varied: By which name the score depends on it: itself, or what it is scaled to.

    Raises:
        RelevanceError: It does not.
    """
    gradient = reverse.gradient(varied)
    if not gradient:
        raise RelevanceError(f"{value}: the output does not depend on it")
    return reverse.reduce_sum(reverse.add("Mul", [value, gradient]), [-1], keepdims=0)


def _share(reverse: Reverse, embedded: Sequence[str], term: str, given: str, output: str) -> Share:
    view, share = reverse.view, reverse.add("Mul", [given, term])
    own = view.shape(output)
    for place, one in enumerate(embedded):
        if _has_positions(own, view.shape(one)):
            return Share(reverse.reduce_sum(share, [-1], keepdims=0), output, place)
        if _has_positions(_turned(own), view.shape(one)):  # [N, B, D], as torch's own attention
            summed = reverse.reduce_sum(share, [-1], keepdims=0)
            return Share(reverse.add("Transpose", [summed], perm=[1, 0]), output, place)
    return Share(sum_rows(reverse, _in_rows(reverse, share, own, embedded[0])), output, None)


def total(reverse: Reverse, parts: Sequence[str]) -> str:
    """Add the sum of some values of one shape."""
    summed = parts[0]
    for part in parts[1:]:
        summed = reverse.add("Add", [summed, part])
    return summed


def sum_rows(reverse: Reverse, value: str) -> str:
    """Add the sum over all axes but the batch, [B]."""
    flat = reverse.add("Flatten", [value], axis=1)
    return reverse.reduce_sum(flat, [1], keepdims=0)


def _in_rows(reverse: Reverse, share: str, shape: Sequence[object] | None, embedded: str) -> str:
    """What a row of the batch has, together, where windows are rows of their own: [B W, ...] as [B, W ...]."""
    rows = reverse.view.shape(embedded)
    if not shape or not rows or shape[0] == rows[0]:
        return share
    others = reverse.view.add_numbers([-1], reverse.name("others"))
    return reverse.add("Reshape", [share, reverse.add("Concat", [reverse.size_of(embedded, 0), others], axis=0)])


def _has_positions(shape: Sequence[object] | None, embedded: Sequence[object] | None) -> bool:
    return shape is not None and embedded is not None and len(shape) == _STATE_AXES and shape[:2] == embedded[:2]


def _turned(shape: Sequence[object] | None) -> Sequence[object] | None:
    return None if shape is None else (*reversed(shape[:2]), *shape[2:])
