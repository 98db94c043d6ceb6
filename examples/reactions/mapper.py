"""Asks a server for one head of one layer, and makes a map of a reaction's atoms of it. Needs rdkit."""

from dataclasses import dataclass

import regard
from examples.reactions.mapping import atom_scores
from examples.reactions.molecules import canonicalize, map_reaction, write_map
from examples.reactions.smiles import parse_reaction

MODEL = "rxnmapper"
# The head that maps atoms, both numbers from 0: the defaults of the package's RXNMapper.
HEAD_OF_ATOMS = regard.AttentionRequest(layers=(10,), heads=(5,))


@dataclass(frozen=True)
class MappedReaction:
    """A reaction with numbers at its atoms.

    Attributes:
        text: Atoms of the products are numbered from 1, those of the reactants as what becomes of them.
        confidence: In [0, 1].
    """

    text: str
    confidence: float


def map_text(client: regard.Client, text: str, *, canonical: bool = True) -> MappedReaction:
    """Map the atoms of a reaction.

    Args:
        client: Of a server with the network.
        text: A reaction in SMILES.
        canonical: Map and write it in its canonical form; else as it stands.

    Raises:
        ReactionError: It is no reaction, or a compound cannot be read.
        RegardError: The server refuses it: it has more than 512 tokens.
    """
    reaction = parse_reaction(text)
    if canonical:
        reaction = canonicalize(reaction)
    answer = regard.Attention.join(list(client.attend(text=reaction.text, model=MODEL, attention=HEAD_OF_ATOMS)))
    (weights,) = answer.layers[0].weights
    # As they stand in the text: the vocabulary's name of one that it lacks, [UNK], would be taken for an atom.
    tokens = [reaction.text[token.start : token.end] for token in answer.tokens or ()]
    scores = atom_scores(weights, tokens)
    atom_map = map_reaction(reaction, scores)
    return MappedReaction(write_map(reaction, atom_map, canonical=canonical), atom_map.confidence)
