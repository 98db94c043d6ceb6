"""What `regard embed` is asked of hidden states, and the file that they are saved to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer

from regard.answers import Embedding
from regard.console import check_output, tell_written
from regard.hidden_states import HiddenStatesRequest, Pooling
from regard.results import RESULT_SUFFIXES
from regard.sources import InputError, Source

STATES_OPTIONS = {
    "layers": typer.Option(
        "--hidden-layer",
        metavar="LAYER",
        help="Ask for the hidden states of this layer too (0: what enters the first); may be repeated.",
    ),
    "pooling": typer.Option(help="Of hidden states: cls, mean or last (default: every position)."),
    "output": typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write vectors there, .jsonl, .npz or .parquet; hidden states alone, a .npz (default: print).",
    ),
}


@dataclass(frozen=True)
class StatesOptions:
    """Which hidden states are asked for, and where they are saved."""

    layers: tuple[int, ...] = ()
    pooling: Pooling | None = None
    output: Path | None = None

    def request(self) -> HiddenStatesRequest | None:
        """What to ask; None for no hidden states.

        Raises:
            BadParameter: An option is given without the layers, or the file is none of numpy's.
            InputError: The file's folder is not there.
        """
        if not self.layers and self.pooling:
            raise typer.BadParameter("expected --hidden-layer with it", param_hint="--pooling")
        if self.layers and self.output is not None and self.output.suffix != ".npz":
            raise typer.BadParameter(f"{self.output}: hidden states are saved in a .npz", param_hint="-o")
        check_output(self.output, RESULT_SUFFIXES, "answers are written")
        return HiddenStatesRequest(layers=self.layers, pooling=self.pooling) if self.layers else None

    def check_inputs(self, count: int) -> None:
        """Refuse to save a vector for every position of several inputs, before anything is asked.

        Raises:
            InputError: So many inputs cannot be saved.
        """
        if self.output is not None and count > 1 and not self.pooling:
            raise InputError("-o: several inputs differ in their positions; expected one input, or --pooling")

    def save(self, answered: Sequence[tuple[Source, Embedding]]) -> None:
        """Save what came: for each layer "hidden_states.LAYER", [inputs, D] or, of one input, [positions, D].

        Of lines of files also which: "lines", int64 [inputs], from 1, and "files", [inputs], as they were given.
        """
        if self.output is None:
            return
        if not answered:
            typer.echo(f"regard: {self.output} is not written: no input has an answer", err=True)
            return
        states = [answer.hidden_states.layers for _, answer in answered if answer.hidden_states]
        arrays = {
            f"hidden_states.{same[0].layer}": np.stack([one.values for one in same]) if self.pooling else same[0].values
            for same in zip(*states, strict=True)
        }
        if answered[0][0].number:
            arrays["lines"] = np.array([source.number for source, _ in answered], np.int64)
            arrays["files"] = np.array([source.file for source, _ in answered])
        np.savez(self.output, allow_pickle=False, **arrays)
        tell_written(self.output)
