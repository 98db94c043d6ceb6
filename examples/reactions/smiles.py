"""Reads and writes reaction SMILES: "A.B>C>D", fragments of one compound told by "~" or at the end by "|f:1.2|"."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

Style = Literal["~", "|f:"]

_ARROW = re.compile(r"(?<!-)>")  # not of a dative bond, ->
_GROUPS = re.compile(r"\|.*?f:([\d.,]+)")
_BOND: Literal["~"] = "~"


class ReactionError(ValueError):
    """A text that is no reaction, or has a compound that cannot be read."""


@dataclass(frozen=True)
class Reaction:
    """What reacts to what.

    Attributes:
        reactants: SMILES of each compound, whose fragments are joined by "."; agents too.
        products: Likewise.
        style: How the text tells fragments.
    """

    reactants: tuple[str, ...]
    products: tuple[str, ...]
    style: Style = _BOND

    @property
    def text(self) -> str:
        """As the network has learned to read it, fragments joined by "~"."""
        return ">>".join(".".join(name.replace(".", _BOND) for name in side) for side in self._sides)

    def __str__(self) -> str:
        """The reaction in its own style."""
        if self.style == _BOND:
            return self.text
        written = ">>".join(".".join(side) for side in self._sides)
        sizes = [1 + name.count(".") for side in self._sides for name in side]
        starts = accumulate(sizes, initial=0)
        groups = [range(start, start + size) for start, size in zip(starts, sizes, strict=False) if size > 1]
        told = ",".join(".".join(map(str, group)) for group in groups)
        return f"{written} |f:{told}|" if told else written

    @property
    def _sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.reactants, self.products


def parse_reaction(text: str) -> Reaction:
    """Read a reaction; agents, between two arrows, become reactants.

    Raises:
        ReactionError: It has not three parts, or tells of fragments that are not there.
    """
    written, _, told = text.partition(" ")
    parts = [[name for name in part.split(".") if name] for part in _ARROW.split(written)]
    if len(parts) != 3:
        raise ReactionError(f"reaction: {text[:80]!r}; expected reactants>agents>products")
    reactants, agents, products = _group(parts, told) if told else [_split(part) for part in parts]
    return Reaction((*reactants, *agents), tuple(products), "|f:" if told else _BOND)


def _split(names: Iterable[str]) -> list[str]:
    return [name.replace(_BOND, ".") for name in names]


def _group(parts: Sequence[Sequence[str]], told: str) -> list[list[str]]:
    """Join the fragments of a compound, numbered from 0 over all parts; they come behind the other compounds."""
    match = _GROUPS.match(told)
    groups = [[int(number) for number in group.split(".")] for group in match[1].split(",")] if match else []
    grouped, first = [], 0
    for part in parts:
        names = dict(enumerate(part, first))
        own = [group for group in groups if names.keys() & set(group)]
        if any(number not in names for group in own for number in group):
            raise ReactionError(f"reaction: {told[:80]!r}; expected fragments of one side of the arrow")
        joined = [".".join(names[number] for number in group) for group in own]
        in_groups = {number for group in own for number in group}
        grouped.append([name for number, name in names.items() if number not in in_groups] + joined)
        first += len(part)
    return grouped
