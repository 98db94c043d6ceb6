"""What tests read from a picture."""

from typing import Any

import numpy as np
from matplotlib.image import AxesImage
from numpy.typing import NDArray


def centres_of(heat: AxesImage, rows: int) -> NDArray[Any]:
    """Return the numbers that a map has at the centres of its patches, [rows, cols]."""
    drawn = heat.get_array()
    assert drawn is not None
    times = len(drawn) // rows
    return np.asarray(drawn)[times // 2 :: times, times // 2 :: times]
