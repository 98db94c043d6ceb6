"""The chemistry: elements and bonds of compounds, canonical and mapped SMILES. Needs rdkit."""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, RDLogger

from examples.reactions.mapping import AtomMap, map_atoms
from examples.reactions.smiles import Reaction, ReactionError

_MAP_NUMBER = re.compile(r"(?<=[^*]):\d+\]")
RDLogger.DisableLog("rdApp.*")


def canonicalize(reaction: Reaction) -> Reaction:
    """Write each compound in its canonical form, without numbers of a map, and sort them.

    Raises:
        ReactionError: A compound cannot be read, or has an atom with too many bonds.
    """
    return replace(
        reaction,
        reactants=tuple(sorted(map(_canonical, reaction.reactants))),
        products=tuple(sorted(map(_canonical, reaction.products))),
    )


def map_reaction(reaction: Reaction, scores: NDArray[np.floating]) -> AtomMap:
    """Map the atoms of a reaction by their scores, float [P, R], each to one of its own element.

    Raises:
        ReactionError: A compound cannot be read, or has other atoms than the tokens say.
    """
    products, reactants = (_elements(side) for side in (reaction.products, reaction.reactants))
    if scores.shape != (len(products), len(reactants)):
        raise ReactionError(f"reaction: {len(products)} and {len(reactants)} atoms, but tokens for {scores.shape}")
    same = (products[:, None] == reactants[None]).astype(np.float64)
    return map_atoms(scores * same, _bonds(reaction.products), _bonds(reaction.reactants))


def write_map(reaction: Reaction, atom_map: AtomMap, *, canonical: bool) -> str:
    """Number the atoms of the products from 1, those of the reactants as what becomes of them."""
    numbers = {int(atom): number for number, atom in enumerate(atom_map.reactant_atoms, 1)}
    own = {atom: atom + 1 for atom in range(len(atom_map.reactant_atoms))}
    reactants = _numbered(reaction.reactants, numbers, canonical=canonical)
    products = _numbered(reaction.products, own, canonical=canonical)
    return str(replace(reaction, reactants=reactants, products=products))


def _numbered(compounds: Sequence[str], numbers: dict[int, int], *, canonical: bool) -> tuple[str, ...]:
    written, first = [], 0
    for compound in compounds:
        molecule = _read(compound)
        for at, atom in enumerate(molecule.GetAtoms(), first):
            if at in numbers:
                atom.SetAtomMapNum(numbers[at])
        first += molecule.GetNumAtoms()
        written.append(Chem.MolToSmiles(molecule, canonical=canonical))
    return tuple(written)


def _read(compound: str) -> Chem.Mol:
    """Read a compound as it stands: nothing is made aromatic, no hydrogen removed, no valence checked."""
    molecule = Chem.MolFromSmiles(compound, sanitize=False)
    if not compound or molecule is None:
        raise ReactionError(f"compound: {compound[:80]!r}; expected SMILES")
    Chem.SanitizeMol(molecule, sanitizeOps=Chem.SANITIZE_FINDRADICALS)  # or they would get hydrogens
    return molecule


def _canonical(compound: str) -> str:
    molecule = Chem.MolFromSmiles(_MAP_NUMBER.sub("]", compound))
    if molecule is None:
        raise ReactionError(f"compound: {compound[:80]!r}; expected SMILES in which no atom has too many bonds")
    return str(Chem.MolToSmiles(molecule))


def _elements(compounds: Sequence[str]) -> NDArray[np.int64]:
    """Atomic numbers, [atoms]."""
    atoms = (atom.GetAtomicNum() for compound in compounds for atom in _read(compound).GetAtoms())
    return np.fromiter(atoms, np.int64)


def _bonds(compounds: Sequence[str]) -> NDArray[np.bool_]:
    """Neighbours, [atoms, atoms]; fragments of a compound count as bound where they meet, as in the package."""
    blocks = [Chem.GetAdjacencyMatrix(_read(compound.replace(".", "~"))) for compound in compounds]
    size, first = sum(len(block) for block in blocks), 0
    bonds = np.zeros((size, size), bool)
    for block in blocks:
        last = first + len(block)
        bonds[first:last, first:last], first = block, last
    return bonds
