"""Refuses what is too large to be compared within the free memory, before that memory is taken.

Of texts, sounds and images of free sizes some length can be compared (export/longest.py). An image of a fixed size has
but one, and all of its attention is held several times: by the graphs, and by the network.
"""

from pathlib import Path

from export.errors import VerificationError
from export.need import measure
from export.probe import choose_sizes
from export.traits import Traits
from server.memory import free_bytes

_LARGE = 200_000  # numbers of one input: more than a photo of 224 x 224 pixels has
# At least: all processes together took 9 times as much with a small SAM of 1,024 pixels, 13 with ViT-S/14 of 518.
_TIMES = 9
_GB = 1e9


def check_room(tapped: Path, traits: Traits) -> None:
    """Run one large input, in a process of its own, for the memory that it takes.

    Args:
        tapped: The graph that gives all attention.
        traits: Of its inputs.

    Raises:
        VerificationError: There is less memory than comparing takes; says how much.
    """
    sizes, _ = choose_sizes(traits)
    feed = traits.example(1, sizes)
    if sum(array.size for array in feed.values()) < _LARGE:
        return
    ((_, taken),) = measure([(tapped, feed)])
    need, free = _TIMES * taken, free_bytes()
    if need > free:
        raise VerificationError(
            f"one input with all of its attention takes {_gigabytes(taken)}, and comparing it with the network "
            f"at least {_TIMES} times as much; {_gigabytes(free)} are free, expected {_gigabytes(need)}"
        )


def _gigabytes(count: int) -> str:
    return f"{count / _GB:.1f} GB"
