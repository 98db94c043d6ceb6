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
        by_position: Which of both.
    """

    value: str
    output: str
    by_position: bool


def sum_terms(reverse: Reverse, embedded: str) -> tuple[str, str, list[Share]]:
    """Sum terms times their gradients: by position [B, N], and those of none [B]; returns each, too.

    Raises:
        RelevanceError: The score does not depend on what enters the first layer.
    """
    positions = [times_gradient(reverse, embedded, reverse.source)]
    shares = [_share(reverse, embedded, *term) for term in reverse.terms]
    positions += [one.value for one in shares if one.by_position]
    rest = [one.value for one in shares if not one.by_position]
    nothing = reverse.reduce_sum(reverse.add("Mul", [positions[0], reverse.number(0.0, embedded)]), [-1], keepdims=0)
    return total(reverse, positions), total(reverse, rest or [nothing]), shares


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


def _share(reverse: Reverse, embedded: str, term: str, given: str, output: str) -> Share:
    view, share = reverse.view, reverse.add("Mul", [given, term])
    if _has_positions(view.shape(output), view.shape(embedded)):
        return Share(reverse.reduce_sum(share, [-1], keepdims=0), output, by_position=True)
    if _has_positions(_turned(view.shape(output)), view.shape(embedded)):  # [N, B, D], as torch's own attention
        summed = reverse.reduce_sum(share, [-1], keepdims=0)
        return Share(reverse.add("Transpose", [summed], perm=[1, 0]), output, by_position=True)
    in_rows = _in_rows(reverse, share, view.shape(output), embedded)
    return Share(sum_rows(reverse, in_rows), output, by_position=False)


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
