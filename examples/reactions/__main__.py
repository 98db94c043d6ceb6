"""Maps the atoms of chemical reactions by one head of one layer: `python -m examples.reactions`.

Fetches the network from the package rxnmapper, exports it, serves it, asks for layer 10, head 5 alone, and compares the
maps with those that the package's tests expect; or maps the reactions that are given. Beside what export and server
need, it takes rdkit (pip install rdkit), not the package itself.
"""

import argparse
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

import regard
from examples.demo import serving
from examples.reactions.expected import TOLERANCE, Expected, read_expected
from examples.reactions.mapper import MODEL, MappedReaction, map_text
from examples.reactions.smiles import ReactionError
from export.errors import FetchError

console = Console(highlight=False)


def main() -> None:
    """Map what is given, or check what the package's tests expect."""
    parser = argparse.ArgumentParser(prog="python -m examples.reactions", description=__doc__)
    parser.add_argument("reactions", nargs="*", help='in SMILES: "CCO.BrCC>>CCOCC"')
    parser.add_argument("--server", help="HOST:PORT of one that serves the network; without it one is started")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the artifact goes")
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where downloads are kept")
    args = parser.parse_args()
    try:
        with ExitStack() as stack:
            address = args.server or stack.enter_context(serving(export(args.models, args.cache))).address
            with regard.Client(address) as client:
                good = show(client, args.reactions) if args.reactions else check(client)
    except (FetchError, regard.RegardError, subprocess.CalledProcessError) as error:
        console.print(f"[red]failed:[/] {error}", soft_wrap=True)
        sys.exit(1)
    sys.exit(0 if good else 1)


def export(models: Path, cache: Path) -> Path:
    """Make a checkpoint folder of the package's files, and export it, verified; returns the models folder."""
    from examples.reactions.checkpoint import write_checkpoint  # torch, which a served network does without

    folder = write_checkpoint(cache)
    command = [sys.executable, "-m", "export", str(folder), "--name", MODEL, "--out", str(models), "--summary"]
    subprocess.run(command, check=True)  # noqa: S603 -- our own fixed command
    return models


def show(client: regard.Client, reactions: list[str]) -> bool:
    """Print the maps of reactions; returns whether each has one."""
    good = True
    for reaction in reactions:
        try:
            mapped = map_text(client, reaction)
            console.print(f"{mapped.confidence:.4f}  {mapped.text}", soft_wrap=True, markup=False)
        except (ReactionError, regard.InvalidArgument) as error:
            good = False
            console.print(f"none    {reaction}: {error}", soft_wrap=True, markup=False)
    return good


def check(client: regard.Client) -> bool:
    """Print how each map differs from what the package's tests expect; returns whether none does."""
    table = Table(title=f"{MODEL}: maps of the package's tests", title_justify="left")
    table.add_column("test", max_width=32)
    for column in ("map", "confidence", "expected", "difference"):
        table.add_column(column)
    identical, differences, expected = 0, [0.0], read_expected()
    for entry in expected:
        mapped = try_map(client, entry)
        same = (mapped and mapped.text) == entry.mapped
        identical += same
        words = ("refused" if mapped is None else "identical") if same else "[red]differs[/]"
        if mapped and entry.confidence is not None:
            differences.append(entry.difference(mapped.confidence))
            numbers = (f"{mapped.confidence:.7f}", f"{entry.confidence:.7f}", f"{differences[-1]:.1e}")
        else:
            numbers = (f"{mapped.confidence:.7f}" if mapped else "", "", "")
        table.add_row(entry.test, words, *numbers)
    console.print(table)
    console.print(f"{identical} of {len(expected)} as expected, confidences within {max(differences):.1e}")
    return identical == len(expected) and max(differences) <= TOLERANCE


def try_map(client: regard.Client, entry: Expected) -> MappedReaction | None:
    """Map a reaction as a test of the package does; None where that is refused."""
    try:
        return map_text(client, entry.reaction, canonical=entry.canonicalize)
    except (ReactionError, regard.InvalidArgument):
        return None


if __name__ == "__main__":
    main()
