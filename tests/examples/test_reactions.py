"""The example that maps atoms: its own logic on small reactions, and, where its files are, the package's maps."""

import ast
import re
import zipfile

import numpy as np
import pytest
from tokenizers import Tokenizer

import regard
from examples.reactions.expected import TOLERANCE, Expected, read_expected
from examples.reactions.mapping import UNMAPPED, atom_scores, map_atoms
from examples.reactions.smiles import Reaction, ReactionError, parse_reaction
from tests.processes import ROOT, StartProcess

CHECKPOINT = ROOT / "downloads" / "rxnmapper" / "checkpoint"
PACKAGES = ROOT / "downloads" / "packages"
ARTIFACT = ROOT / "models" / "rxnmapper"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "C", "O", "Br", "[O-]", "[Na+]", "~", ".", ">>", "-"]
CHAIN = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)  # of three atoms


@pytest.mark.parametrize(
    ("text", "reactants", "products", "as_read"),
    [
        ("C.O>>CO", ("C", "O"), ("CO",), "C.O>>CO"),
        ("C>O>CO", ("C", "O"), ("CO",), "C.O>>CO"),
        ("CC[O-]~[Na+].BrC>>CCOC", ("CC[O-].[Na+]", "BrC"), ("CCOC",), "CC[O-]~[Na+].BrC>>CCOC"),
        ("CC[O-].[Na+].BrC>>CCOC |f:0.1|", ("BrC", "CC[O-].[Na+]"), ("CCOC",), "BrC.CC[O-]~[Na+]>>CCOC"),
        ("C[O-]->[K+]>>C", ("C[O-]->[K+]",), ("C",), "C[O-]->[K+]>>C"),
    ],
)
def test_a_reaction_is_read_in_each_style(
    text: str, reactants: tuple[str, ...], products: tuple[str, ...], as_read: str
) -> None:
    """Agents are reactants; fragments of a compound belong together; the arrow of a dative bond parts nothing."""
    reaction = parse_reaction(text)
    assert (reaction.reactants, reaction.products, reaction.text) == (reactants, products, as_read)


def test_fragments_are_written_as_they_were_told() -> None:
    """By "~", or by their numbers over both sides."""
    reaction = Reaction(("Br", "[Na+].[OH-]"), ("C", "[K+].[Cl-]"))
    assert str(reaction) == "Br.[Na+]~[OH-]>>C.[K+]~[Cl-]"
    assert str(Reaction(reaction.reactants, reaction.products, "|f:")) == "Br.[Na+].[OH-]>>C.[K+].[Cl-] |f:1.2,4.5|"
    assert str(parse_reaction("C.O>>CO")) == "C.O>>CO"


@pytest.mark.parametrize("text", ["CCO", "C>>C>>C", "C.O>>CO |f:1.2|"])
def test_what_is_no_reaction_is_refused(text: str) -> None:
    """Too few arrows, too many, a compound with a fragment on either side."""
    with pytest.raises(ReactionError, match="expected"):
        parse_reaction(text)


def test_scores_add_both_directions_between_atoms() -> None:
    """Special tokens, bonds and the arrow have none."""
    tokens = ["", "C", "=", "O", ">>", "[OH-]", "C", ""]
    weights = np.arange(64.0).reshape(8, 8)
    scores = atom_scores(weights, tokens)
    assert scores.tolist() == [[5 * 8 + 1 + 8 + 5, 5 * 8 + 3 + 3 * 8 + 5], [6 * 8 + 1 + 8 + 6, 6 * 8 + 3 + 3 * 8 + 6]]


def test_the_surest_atom_is_mapped_first_and_draws_its_neighbours() -> None:
    """The middle atom likes the far end a little more, until what it is bound to was mapped."""
    scores = np.array([[0.9, 0.05, 0.05], [0.0, 0.4, 0.6], [0.1, 0.5, 0.4]])
    found = map_atoms(scores, CHAIN, CHAIN)
    assert found.reactant_atoms.tolist() == [0, 1, 2]
    assert found.confidence == pytest.approx(0.9 * (0.4 * 90 / (0.4 * 90 + 0.6)))
    alone = np.zeros((3, 3), dtype=bool)
    assert map_atoms(scores, alone, alone).reactant_atoms.tolist() == [0, 2, 1]


def test_an_atom_of_which_nothing_is_left_stays_unmapped() -> None:
    """More atoms in the product than among the reactants, or none there at all."""
    alone = np.zeros((2, 2), dtype=bool)
    found = map_atoms(np.array([[1.0], [0.5]]), alone, alone[:1, :1])
    assert (found.reactant_atoms.tolist(), found.confidence) == ([0, UNMAPPED], 1.0)
    assert map_atoms(np.zeros((2, 0)), alone, alone[:0, :0]).reactant_atoms.tolist() == [UNMAPPED, UNMAPPED]


def test_the_tokenizer_keeps_atoms_whole() -> None:
    """What is no SMILES is left out; what the vocabulary lacks is unknown, and keeps its place in the text."""
    pytest.importorskip("torch", reason="the checkpoint needs the extra export")
    from examples.reactions.checkpoint import make_tokenizer

    text = "CBr A.C[O-]~[Na+]->C>>CO"
    encoding = make_tokenizer(VOCABULARY).encode(text)
    pieces = [text[start:end] for start, end in encoding.offsets[1:-1]]
    assert pieces == ["C", "Br", ".", "C", "[O-]", "~", "[Na+]", "-", ">", "C", ">>", "C", "O"]
    assert encoding.tokens == ["[CLS]", *("[UNK]" if piece == ">" else piece for piece in pieces), "[SEP]"]
    assert [at for at, special in enumerate(encoding.special_tokens_mask) if special] == [0, 14]


def test_tokens_are_those_of_the_package() -> None:
    """Of every reaction of its tests, by its own pattern."""
    wheels = sorted(PACKAGES.glob("rxnmapper-*.whl"))
    if not wheels or not CHECKPOINT.is_dir():
        pytest.skip("downloads/rxnmapper is not there: python -m examples.reactions fetches it")
    with zipfile.ZipFile(wheels[0]) as wheel:
        source = wheel.read("rxnmapper/smiles_utils.py").decode()
    pattern = ast.literal_eval(source.partition("SMI_REGEX_PATTERN = ")[2].partition("\n")[0])
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    for entry in read_expected():
        text = parse_reaction(entry.reaction).text
        encoding = tokenizer.encode(text)
        assert [text[start:end] for start, end in encoding.offsets[1:-1]] == re.findall(pattern, text)


def test_every_map_of_the_package_is_identical(start_process: StartProcess) -> None:
    """And each confidence within 1e-5; what the package has no map of is refused."""
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    if not ARTIFACT.is_dir():
        pytest.skip("models/rxnmapper is not there: python -m examples.reactions exports it")
    from examples.reactions.mapper import MappedReaction, map_text

    def ask(entry: Expected) -> MappedReaction | None:
        try:
            return map_text(client, entry.reaction, canonical=entry.canonicalize)
        except (ReactionError, regard.InvalidArgument):
            return None

    with start_process("--models", str(ROOT / "models")) as server, regard.Client(server.address) as client:
        for entry in read_expected():
            mapped = ask(entry)
            assert (mapped and mapped.text) == entry.mapped, entry.test
            assert mapped is None or entry.difference(mapped.confidence) <= TOLERANCE, entry.test
