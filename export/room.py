"""Refuses images that are too large to be compared within the free memory.

Of texts and of what has free sizes some length can be compared (export/longest.py). An image or a video of a fixed size
has but one, and all of its attention is held several times: by the graphs, and by the network. (Sounds have a fixed
size, too; of these nothing was measured, and nothing is refused.)
"""

from pathlib import Path

from export.errors import VerificationError
from export.need import measure
from export.probe import choose_sizes
from export.traits import Traits
from server.memory import free_bytes

_LARGE = 200_000  # numbers of one image: more than a photo of 224 x 224 pixels has
_IMAGE_AXES = 4
# A lower bound: all processes together took 9 times what one run took with a small SAM of 1,024 pixels, 13 with
# ViT-S/14 of 518, and a run takes more than it gives.
_TIMES = 9
_GB = 1e9


def check_room(tapped: Path, traits: Traits) -> None:
    """Run one large image, in a process of its own, to see how large all that it gives is.

    Args:
        tapped: The graph that gives all attention.
        traits: Of its inputs.

    Raises:
        VerificationError: There is less memory than comparing takes; says how much.
    """
    sizes, _ = choose_sizes(traits)
    feed = traits.example(1, sizes)
    if not any(array.ndim >= _IMAGE_AXES and array.size >= _LARGE for array in feed.values()):
        return
    (taken,) = measure([(tapped, feed)])
    need, free = _TIMES * taken.results, free_bytes()
    if need > free:
        raise VerificationError(
            f"one image gives {_gigabytes(taken.results)} with all of its attention, and comparing it with the network "
            f"takes at least {_TIMES} times as much; {_gigabytes(free)} are free, expected {_gigabytes(need)}"
        )


def _gigabytes(count: int) -> str:
    return f"{count / _GB:.1f} GB"
