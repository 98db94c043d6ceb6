"""Relevance by layer: where, at every depth of the network, what speaks for a score is held.

By Libra the score is affine in x_l, float32 [B, N, D], what leaves layer l, as it is in x_0, what enters the first. So
at each depth

    score = sum over positions i of x_l[i] . grad x_l[i]  +  what is added behind, times the gradient there

(Srinivas and Fleuret 2019, "Full-Gradient Representation", equation 3, taken at every x_l: each is all that the rest of
the network reads). The states are those that `accumulated_resid` of TransformerLens stacks for the logit lens, and this
is their direct attribution with the rest of the network, attention held, in place of the unembedding alone.
"""

from collections.abc import Sequence

from export.relevance.flow import leading_to
from export.relevance.reverse import Reverse
from export.relevance.terms import Share, sum_rows, times_gradient, total


def explain_depths(reverse: Reverse, states: Sequence[str], shares: Sequence[Share]) -> tuple[str, str]:
    """Say what each position did by what is there at each depth, and what is added behind.

    Args:
        reverse: Has walked back from the score, by Libra.
        states: What enters the first layer and what leaves each, [B, N, D].
        shares: Of all terms behind the first of them.

    Returns:
        The values of both, float32 [B, L + 1, N] and [B, L + 1].

    Raises:
        RelevanceError: The score does not depend on a state.
    """
    rows = [times_gradient(reverse, state, state) for state in states]
    held = [leading_to(reverse.view, state) for state in states]
    behind, added = reverse.add("Mul", [sum_rows(reverse, rows[0]), reverse.number(0.0, rows[0])]), list[str]()
    left = list(shares)
    for before in reversed(held):
        mine, left = [one for one in left if one.output not in before], [one for one in left if one.output in before]
        sums = [one.value if one.of is None else sum_rows(reverse, one.value) for one in mine]
        behind = total(reverse, [behind, *sums])
        added.insert(0, behind)
    return _stack(reverse, rows), _stack(reverse, added)


def _stack(reverse: Reverse, values: Sequence[str]) -> str:
    """Put values beside each other along a new second axis."""
    axis = reverse.view.add_numbers([1], reverse.name("axis"))
    return reverse.add("Concat", [reverse.add("Unsqueeze", [value, axis]) for value in values], axis=1)
