"""What a study found: means and variances of each head's numbers, heads by rank, and inputs that excite them most."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from regard import checks
from regard.attention import Statistic
from regard.study.folder import PART_INPUTS, Folder
from regard.study.moments import Largest, Moments

EXAMPLES = 8


@dataclass(frozen=True)
class RankedHead:
    """A head in the order of a statistic.

    Attributes:
        layer: Which layer, from 0.
        head: Which of its heads, from 0; None where a layer has one number for all.
        mean: Over the inputs.
        sd: Standard deviation over the inputs; NaN of one alone.
    """

    layer: int
    head: int | None
    mean: float
    sd: float


@dataclass(frozen=True)
class Example:
    """An input, and what a head's number is on it.

    Attributes:
        number: Which input, from 0.
        name: Of it.
        value: The head's number.
    """

    number: int
    name: str
    value: float


@dataclass(frozen=True, eq=False)
class Study:
    """What a study found.

    Attributes:
        folder: Where it lies.
        moments: Count, mean and variance, each [layer, head, statistic]; layers with fewer heads have a count of 0.
        largest: The largest numbers of each, and of which inputs they are.
    """

    folder: Folder
    moments: Moments
    largest: Largest

    @classmethod
    def open(cls, path: Path | str, *, examples: int = EXAMPLES) -> Self:
        """Read a study's folder, a part at a time, whole or not.

        Args:
            path: Of it.
            examples: How many inputs are known that excite a head most.

        Raises:
            InputError: It holds none, or is damaged. It is a ValueError.
        """
        return cls.of(Folder.open(path), examples)

    @classmethod
    def of(cls, folder: Folder, examples: int = EXAMPLES) -> Self:
        """Count what is in a folder."""
        found = cls(folder, Moments(folder.shape), Largest(folder.shape, examples))
        for values in folder.parts():
            found.add(values)
        return found

    def add(self, values: NDArray[np.floating]) -> None:
        """Count a part, [inputs, layer, head, statistic]."""
        self.moments.add(values)
        self.largest.add(values)

    @property
    def path(self) -> Path:
        """Of the folder."""
        return self.folder.path

    @property
    def model(self) -> str:
        """The model's name."""
        name: str = self.folder.asked["model"]
        return name

    @property
    def version(self) -> str:
        """The model's version."""
        version: str = self.folder.asked["version"]
        return version

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Which, along the last axis."""
        return tuple(self.folder.asked["statistics"])

    @property
    def layers(self) -> list[tuple[int, list[int | None]]]:
        """Number of each layer, and its heads."""
        return [(layer["layer"], layer["heads"]) for layer in self.folder.asked["layers"]]

    @property
    def num_inputs(self) -> int:
        """How many inputs there are, those with errors included."""
        return self.folder.count

    def unit(self, statistic: Statistic) -> str:
        """What a statistic is counted in."""
        return {
            "entropy": "nats",
            "distance": "pixels" if self.folder.asked["modality"] == "image" else "positions",
            "norm": "length",
        }.get(statistic, "share")

    def column(self, statistic: str) -> int:
        """Return the place of a statistic along the last axis.

        Raises:
            InvalidArgument: The study has no such.
        """
        if statistic not in self.statistics:
            raise checks.invalid("statistic", statistic, f"one of {', '.join(self.statistics)}")
        return list[str](self.statistics).index(statistic)

    def rank(self, statistic: Statistic) -> list[RankedHead]:
        """Return all heads, the largest mean first.

        Raises:
            InvalidArgument: The study has no such statistic.
        """
        column, deviations = self.column(statistic), np.sqrt(self.moments.variance)
        found = [
            RankedHead(layer, head, float(self.moments.mean[where]), float(deviations[where]))
            for at, (layer, heads) in enumerate(self.layers)
            for place, head in enumerate(heads)
            if self.moments.count[where := (at, place, column)]
        ]
        return sorted(found, key=lambda one: -one.mean)

    def examples(self, statistic: Statistic, layer: int, head: int | None) -> list[Example]:
        """Return the inputs on which a head's number is largest, in falling order.

        Raises:
            InvalidArgument: The study has no such statistic, layer or head.
        """
        column, (at, place) = self.column(statistic), self._where(layer, head)
        numbers = self.largest.numbers[:, at, place, column].tolist()
        values = self.largest.values[:, at, place, column].tolist()
        return [
            Example(number, self._name(number), value)
            for number, value in zip(numbers, values, strict=True)
            if number >= 0
        ]

    def _name(self, number: int) -> str:
        return self.folder.inputs(number // PART_INPUTS)[0][number % PART_INPUTS]

    def _where(self, layer: int, head: int | None) -> tuple[int, int]:
        for at, (number, heads) in enumerate(self.layers):
            if number == layer and head in heads:
                return at, heads.index(head)
        raise checks.invalid("layer, head", (layer, head), "a head of the study")

    def to_xarray(self) -> Any:
        """Return means, standard deviations and counts as an xarray.Dataset with named axes.

        Raises:
            ModuleNotFoundError: xarray is not installed.
        """
        import xarray

        dims = ("layer", "head", "statistic")
        known = self.moments.count > 0
        return xarray.Dataset(
            {
                "mean": (dims, np.where(known, self.moments.mean, np.nan)),
                "sd": (dims, np.sqrt(self.moments.variance)),
                "count": (dims, self.moments.count),
            },
            {"layer": [layer for layer, _ in self.layers], "statistic": list(self.statistics)},
            {"model": self.model, "version": self.version},
        )
