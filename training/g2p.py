"""Trains the encoder-decoder that turns letters into phonemes: `python -m training.g2p`.

Data: the CMU Pronouncing Dictionary. 6 words of 100 are held out, with all of their pronunciations. Most pronunciations
are written without stress; some with it, after another start token, so that one network can be asked for either.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from export.errors import FetchError
from export.fetch import fetch_file
from model.checkpoint import save_encoder_decoder
from model.decoder import DecoderConfig
from model.encoder import EncoderConfig
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from training.cmudict import DICTIONARY, Dictionary, pick, read_dictionary
from training.g2p_errors import measure
from training.g2p_tokens import END, PAD, START, VOCABULARY, Batch, Pairs, make_pairs

_SHAPE = {
    "embed_dim": 256,
    "num_layers": 3,
    "num_heads": 4,
    "mlp_dim": 512,
    "activation": "relu",
    "norm_eps": 1e-5,
    "dropout": 0.1,
    "positions": "sinusoidal_interleaved",
    "max_positions": 64,
}
CONFIG = EncoderDecoderConfig(
    EncoderConfig(**_SHAPE),  # type: ignore[arg-type]
    DecoderConfig(**_SHAPE),  # type: ignore[arg-type]
    vocab_size=len(VOCABULARY),
    start_token=START,
    end_token=END,
    pad_token=PAD,
)


@dataclass(frozen=True)
class Recipe:
    """How to train; everything that changes the result.

    Attributes:
        steps: How many batches; with minutes, at most so many.
        minutes: When to end, stops included; the learning rate then falls with the clock. None for no such end.
    """

    steps: int = 24_000
    minutes: float | None = None
    batch_size: int = 128
    warmup_steps: int = 1500
    stress_share: float = 0.15
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    average_over_steps: int = 1000
    bfloat16: bool = True
    seed: int = 0


class Run:
    """A training that can be saved after any step and gone on with."""

    def __init__(self, recipe: Recipe, config: EncoderDecoderConfig, pairs: Pairs) -> None:
        """Make a network with random weights, and its moving average."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.pairs = recipe, pairs
        self.network = EncoderDecoder(config)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), betas=(0.9, 0.98), eps=1e-9, weight_decay=recipe.weight_decay, fused=True
        )
        self.average = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.step, self._began = 0, time.monotonic()
        self._batches: list[tuple[Tensor, Tensor]] = []

    @property
    def seconds(self) -> float:
        """How long it has taken, stops included, but not the time between saving and loading."""
        return time.monotonic() - self._began

    @property
    def progress(self) -> float:
        """How much of the training is done, in [0, 1]."""
        by_steps = self.step / self.recipe.steps
        by_clock = self.seconds / 60 / self.recipe.minutes if self.recipe.minutes else 0.0
        return min(1.0, max(by_steps, by_clock))

    def advance(self) -> float:
        """Take one step; return its loss."""
        self.network.train()
        rate = learning_rate(
            self.step + 1, self.progress, self.recipe.warmup_steps, self.network.config.encoder.embed_dim
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self._next_batch()
        torch.manual_seed(self.recipe.seed * 1_000_000 + self.step)  # so that dropout does not depend on resuming
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            # Attention step by step: with so few tokens torch's fused kernel takes longer.
            logits, *_ = self.network.explain(batch.source_ids, batch.source_mask, batch.target_ids)
        loss = loss_of(logits.float(), batch.next_ids, self.recipe.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._follow()
        return float(loss.detach())

    def averaged(self) -> EncoderDecoder:
        """Return a network with the moving average of the weights, in evaluation mode."""
        network = EncoderDecoder(self.network.config)
        network.load_state_dict(self.average)
        return network.eval()

    def save(self, path: Path) -> None:
        """Write all that `load` needs to go on as if nothing had been."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step = state["average"], state["step"]
        self._began = time.monotonic() - state["seconds"]

    def _next_batch(self) -> Batch:
        """Return the batch of this step, which follows from seed and step alone."""
        steps_per_epoch = -(-len(self.pairs.letters) // self.recipe.batch_size)
        epoch, place = divmod(self.step, steps_per_epoch)
        if place == 0 or not self._batches:
            generator = torch.Generator().manual_seed(self.recipe.seed * 10_000 + epoch)
            self._batches = self.pairs.batches(self.recipe.batch_size, self.recipe.stress_share, generator)
        return self.pairs.batch(*self._batches[place])

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; over fewer steps at first."""
        share = max(1 / self.recipe.average_over_steps, 10 / (10 + self.step))
        for name, tensor in self.network.state_dict().items():
            self.average[name].lerp_(tensor, share)


def learning_rate(step: int, progress: float, warmup_steps: int, embed_dim: int) -> float:
    """D^-0.5 min(step^-0.5, step warmup^-1.5) (Vaswani et al. 2017, equation 3), falling to 0 in the second half."""
    scheduled: float = embed_dim**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)
    return scheduled * min(1.0, 2 * (1 - progress))


def loss_of(logits: Tensor, next_ids: Tensor, label_smoothing: float) -> Tensor:
    """Cross entropy of float [B, T, V] with int64 [B, T], the mean over all that is not padding."""
    return functional.cross_entropy(
        logits.flatten(0, 1), next_ids.flatten(), ignore_index=PAD, label_smoothing=label_smoothing
    )


def fit(
    run: Run, checkpoint: Path, console: Console, report_every: int, assess: Callable[[EncoderDecoder], str]
) -> None:
    """Train to the end; every so many steps write the checkpoint and report what assess says of the average."""
    losses: list[float] = []
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=1.0)
        while run.progress < 1:
            losses.append(run.advance())
            progress.update(task, completed=run.progress)
            if run.step % report_every == 0 or run.progress >= 1:
                run.save(checkpoint)
                loss = sum(losses) / len(losses)
                console.print(f"step {run.step:,} ({run.progress:.1%}): loss {loss:.3f}, {assess(run.averaged())}")
                losses.clear()


def main() -> None:
    """Train, print the error rates on the held-out words, write weights and report."""
    parser = argparse.ArgumentParser(prog="python -m training.g2p", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("model/weights/g2p"), help="where the weights go")
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where downloads are kept")
    parser.add_argument("--runs", type=Path, default=Path("runs/g2p"), help="where an unfinished run is kept")
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished run")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--minutes", type=float, help="end after so many minutes, however many steps that are")
    parser.add_argument("--report-every", type=int, default=400, help="steps between checkpoints (default 400)")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    args = parser.parse_args()
    console = Console()
    try:
        dictionary = read_dictionary(fetch_file(DICTIONARY, args.cache))
    except FetchError as error:
        parser.exit(1, f"{error}\n")
    run = Run(Recipe(args.steps, args.minutes, seed=args.seed), CONFIG, make_pairs(pick(dictionary, "train")))
    checkpoint = args.runs / f"seed-{args.seed}.pt"
    if args.resume:
        if not checkpoint.is_file():
            parser.exit(1, f"{checkpoint}: not found; expected an unfinished run to go on with\n")
        run.load(checkpoint)
        console.print(f"going on after step {run.step:,} from {checkpoint}")
    validation = pick(dictionary, "validation")

    def assess(network: EncoderDecoder) -> str:
        rates = measure(network, validation, beam_size=1)
        return f"validation: {rates.word:.2%} of words and {rates.phone:.2%} of phones wrong (greedy)"

    fit(run, checkpoint, console, args.report_every, assess)
    write(run, pick(dictionary, "test"), args.out, console)


def write(run: Run, test: Dictionary, out: Path, console: Console) -> None:
    """Write weights and vocabulary, measure on the test words, write the report."""
    seconds = run.seconds
    network = run.averaged().half().float()  # as it will be read again
    save_encoder_decoder(network, out, VOCABULARY)
    report: dict[str, object] = {}
    for name, with_stress in (("without_stress", False), ("with_stress", True)):
        for way, beam_size in (("greedy", 1), ("beam_5", 5)):
            rates = measure(network, test, beam_size=beam_size, with_stress=with_stress)
            report[f"{name}_{way}"] = dataclasses.asdict(rates)
            console.print(
                f"{rates.words:,} held-out words, {name}, {way}: {rates.word:.2%} of words and "
                f"{rates.phone:.2%} of phones wrong"
            )
    report |= {"steps": run.step, "seconds": round(seconds), "recipe": vars(run.recipe)}
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written to {out}")


if __name__ == "__main__":
    main()
