"""Who shares a batch with the request whose turn it is: whoever makes it cheaper than two runs."""

from collections.abc import Sequence

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
    cost, load = head.graph.cost, Load.of([head])
    seconds = cost.seconds(load.rows, load.longest)
    chosen: list[BatchItem] = []
    for item in candidates:
        if load.rows >= min(share, limits.rows) or cost.run_seconds <= NEGLIGIBLE_SHARE * seconds:
            break
        larger = load.with_one_more(item)
        together = cost.seconds(larger.rows, larger.longest)
        apart = seconds + item.alone_seconds
        if larger.fits(limits) and together <= min(apart, limits.seconds):
            load, seconds = larger, together
            chosen.append(item)
    return chosen
