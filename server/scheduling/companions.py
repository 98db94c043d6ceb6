"""Who shares a batch with the request whose turn it is: whoever makes it cheaper than two runs."""

from collections.abc import Sequence

from server.engine.cost import CostModel
from server.scheduling.batch import BatchItem, BatchLimits, Load

# A batch grows until its fixed cost is this share of it: more rows would delay everyone and save nothing.
NEGLIGIBLE_SHARE = 0.03


def choose_companions(head: BatchItem, rest: Sequence[BatchItem], limits: BatchLimits, share: int) -> list[BatchItem]:
    """Choose who shares a batch with the request whose turn it is.

    Args:
        head: In the batch in any case.
        rest: The others of its group.
        limits: The batch's.
        share: Most rows, so that every free instance gets some.

    Returns:
        Some of `rest`: more urgent priorities foremost, then lengths near to the head's.
    """
    length = head.length
    fitting = [item for item in rest if item.may_share(head)]
    candidates = sorted(fitting, key=lambda item: (item.priority, abs(item.length - length), item.order))
    load = Load.of([head])
    chosen: list[BatchItem] = []
    for item in candidates:
        if is_full(load, head.graph.cost, limits, share):
            break
        if larger := joined(load, item, limits):
            load = larger
            chosen.append(item)
    return chosen


def is_full(load: Load, cost: CostModel, limits: BatchLimits, share: int) -> bool:
    """Whether a batch has enough rows: its share or the most, or so many that its fixed cost is negligible."""
    seconds = cost.seconds(load.rows, load.longest)
    return load.rows >= min(share, limits.rows) or cost.run_seconds <= NEGLIGIBLE_SHARE * seconds


def joined(load: Load, item: BatchItem, limits: BatchLimits) -> Load | None:
    """Return what a batch amounts to with one request more; None where it would be too large, or two runs cheaper."""
    cost, larger = item.graph.cost, load.with_one_more(item)
    together = cost.seconds(larger.rows, larger.longest)
    apart = cost.seconds(load.rows, load.longest) + item.alone_seconds
    return larger if larger.fits(limits) and together <= min(apart, limits.seconds) else None
