"""Integrated gradients: at which scales of what enters the first layer the gradient is taken, and how it is summed.

Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", equation 1, with a baseline of zeros:
x times the integral of grad f(a x) over a from 0 to 1, by Gauss's and Legendre's rule in s, with a = s^2. Norms make
the gradient steep where a is small, which is where the square puts the points.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Path:
    """Points on the way from zeros to what enters the first layer.

    Attributes:
        scales: float32 [2 + steps]: 1, which has the score, 0, which has the baseline's, then the points.
        shares: Of the gradient at each, float64 [2 + steps]; nothing at the first two.
    """

    scales: NDArray[np.float32]
    shares: NDArray[np.float64]


@functools.cache
def straight_path(steps: int) -> Path:
    """Return the way with so many points."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    places = (nodes + 1) / 2
    scales = np.concatenate([[1.0, 0.0], places**2]).astype(np.float32)
    shares = np.concatenate([[0.0, 0.0], weights * places])  # da = 2 s ds, on half of Legendre's interval
    return Path(scales, shares)
