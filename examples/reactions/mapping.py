"""Makes a map of atoms from the attention of one head: Schwaller et al. 2021, doi:10.1126/sciadv.abe4166."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEIGHBOUR_FACTOR = 90.0  # the package's
UNMAPPED = -1
_ARROW = ">>"
_NOTHING = 1e-8  # a share of attention that is as good as none


@dataclass(frozen=True, eq=False)
class AtomMap:
    """Where the atoms of the products come from.

    Attributes:
        reactant_atoms: int64 [P], for each atom of the products one of the reactants, from 0; UNMAPPED for none.
        confidence: The product of the shares of attention by which they were chosen, in [0, 1].
    """

    reactant_atoms: NDArray[np.int64]
    confidence: float


def atom_scores(weights: NDArray[np.floating], tokens: Sequence[str]) -> NDArray[np.floating]:
    """Add what the products' atoms attend to in the reactants' and what these attend to in those.

    Args:
        weights: Of one head, [N, N].
        tokens: N, as they stand in the text; of the special ones, the first and the last, nothing is read.

    Returns:
        [P, R], atoms of the products and of the reactants in the order of the text.
    """
    arrow = tokens.index(_ARROW)
    atoms = [at for at in range(1, len(tokens) - 1) if is_atom(tokens[at])]
    reactants = [at for at in atoms if at < arrow]
    products = [at for at in atoms if at > arrow]
    scores: NDArray[np.floating] = weights[np.ix_(products, reactants)] + weights[np.ix_(reactants, products)].T
    return scores


def is_atom(token: str) -> bool:
    """Whether a token of SMILES is an atom: "C", "[OH-]", "*"."""
    return token[0].isalpha() or token[0] == "[" or "*" in token


def map_atoms(
    scores: NDArray[np.floating], product_bonds: NDArray[np.bool_], reactant_bonds: NDArray[np.bool_]
) -> AtomMap:
    """Map the atom with the largest share of attention first, and each atom of the reactants once.

    Neighbours of a mapped atom count more for neighbours of that to which it was mapped, so that what is bound stays
    together.

    Args:
        scores: [P, R], 0 where the elements differ.
        product_bonds: [P, P], true for neighbours.
        reactant_bonds: [R, R], likewise.
    """
    mapped = np.full(len(scores), UNMAPPED)
    factors, confidence = np.ones(scores.shape), 1.0
    for _ in range(len(scores) if scores.size else 0):
        shares = _shares(scores * factors)
        product, reactant = np.unravel_index(shares.argmax(), shares.shape)
        share = float(shares[product, reactant])
        if share <= _NOTHING:
            break
        mapped[product] = reactant
        confidence *= share
        factors[np.ix_(product_bonds[product], reactant_bonds[reactant])] *= NEIGHBOUR_FACTOR
        factors[product], factors[:, reactant] = 0, 0
    return AtomMap(mapped, confidence)


def _shares(weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """Divide rows by their sums; rows of zeros stay."""
    sums = weights.sum(axis=1, keepdims=True)
    return weights / np.where(sums != 0, sums, 1)
