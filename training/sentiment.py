"""Trains the sentiment head on MiniLM's sentence vectors: `python -m training.sentiment`.

Data: movie review snippets with mean human ratings from -4 to 4 (Hutto and Gilbert 2014), in the source distribution of
vaderSentiment. Snippets rated within half a point of 0 are left out; every fifth of the rest is held out.
MiniLM itself stays as it is, so the head is a few kilobytes.
"""

import argparse
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from export.errors import FetchError
from export.fetch import PackagedFile, fetch_file
from export.known import SENTIMENT_LABELS, load_source
from model.text import TextNetwork, mean_over_tokens

REVIEWS = PackagedFile(
    "vaderSentiment",
    "3.3.2",
    "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa",
)
_REVIEWS_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
_NEUTRAL_RATING = 0.5
HELD_OUT_EVERY = 5
_MAX_TOKENS = 128


@dataclass(frozen=True)
class Recipe:
    """How to train; everything that changes the result."""

    steps: int = 300
    weight_decays: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
    validation_every: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Sentence vectors, float32 [B, D], and classes, int64 [B]: 0 negative, 1 positive."""

    vectors: Tensor
    classes: Tensor

    def pick(self, rows: Tensor) -> "Examples":
        """Return the rows where a bool [B] is True."""
        return Examples(self.vectors[rows], self.classes[rows])


def main() -> None:
    """Train, print the held-out accuracy, write the head and the report."""
    parser = argparse.ArgumentParser(prog="python -m training.sentiment", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("model/weights/sentiment"), help="where the head goes")
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where downloads are kept")
    args = parser.parse_args()
    console, recipe = Console(), Recipe()
    torch.manual_seed(recipe.seed)
    try:
        texts, classes = read_reviews(fetch_file(REVIEWS, args.cache))
        source = load_source("minilm", args.cache)
    except FetchError as error:
        parser.exit(1, f"{error}\n")
    assert isinstance(source.network, TextNetwork) and source.tokenizer_file  # noqa: S101 -- minilm is text
    vectors = embed(source.network, Tokenizer.from_file(str(source.tokenizer_file)), texts)
    examples = Examples(vectors, torch.tensor(classes))
    held_out = torch.arange(len(classes)) % HELD_OUT_EVERY == 0
    head, weight_decay = choose_head(examples.pick(~held_out), recipe)
    share = accuracy(head, examples.pick(held_out))
    console.print(f"accuracy on {int(held_out.sum()):,} held-out snippets: {share:.2%} (weight decay {weight_decay})")
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach() for name, tensor in head.state_dict().items()}, args.out / "head.safetensors")
    counts = {"train": int((~held_out).sum()), "held_out": int(held_out.sum())}
    report = {"accuracy": share, "snippets": counts, "weight_decay": weight_decay, "recipe": vars(recipe)}
    (args.out / "training.json").write_text(json.dumps(report | {"labels": SENTIMENT_LABELS}, indent=2) + "\n")
    console.print(f"written to {args.out}")


def read_reviews(archive: Path) -> tuple[list[str], list[int]]:
    """Read snippets that are clearly negative (0) or positive (1), each text once."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile(_REVIEWS_MEMBER)
        assert file is not None  # noqa: S101 -- the archive's sha256 was checked
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    rated = {text.strip(): float(rating) for _, rating, text in (line.split("\t", 2) for line in lines)}
    clear = {text: rating for text, rating in rated.items() if abs(rating) >= _NEUTRAL_RATING}
    return list(clear), [int(rating > 0) for rating in clear.values()]


@torch.inference_mode()
def embed(network: TextNetwork, tokenizer: Tokenizer, texts: list[str], batch_size: int = 64) -> Tensor:
    """Average each text's hidden states over its tokens; float32 [len(texts), D], not normalised."""
    tokenizer.enable_truncation(_MAX_TOKENS)
    tokenizer.enable_padding()
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    batches = [by_length[start : start + batch_size] for start in range(0, len(texts), batch_size)]
    vectors = torch.empty(len(texts), network.config.encoder.embed_dim)
    for batch in track(batches, description="embedding the snippets"):
        encodings = tokenizer.encode_batch([texts[index] for index in batch])
        ids = torch.tensor([encoding.ids for encoding in encodings])
        mask = torch.tensor([encoding.attention_mask for encoding in encodings])
        vectors[batch] = mean_over_tokens(network(ids, mask)["last_hidden_state"], mask)
    return vectors


def choose_head(examples: Examples, recipe: Recipe) -> tuple[nn.Linear, float]:
    """Pick the weight decay on part of the training examples, then train on all of them."""
    validation = torch.arange(len(examples.classes)) % recipe.validation_every == 0
    scores = {
        decay: accuracy(fit(examples.pick(~validation), decay, recipe), examples.pick(validation))
        for decay in recipe.weight_decays
    }
    best = max(scores, key=lambda decay: scores[decay])
    return fit(examples, best, recipe), best


def fit(examples: Examples, weight_decay: float, recipe: Recipe) -> nn.Linear:
    """Fit a logistic regression by L-BFGS on the whole set at once."""
    head = nn.Linear(examples.vectors.shape[1], len(SENTIMENT_LABELS))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=recipe.steps, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        total = functional.cross_entropy(head(examples.vectors), examples.classes)
        total = total + weight_decay * head.weight.square().sum()
        total.backward()
        return float(total.detach())

    optimizer.step(loss)
    return head


@torch.inference_mode()
def accuracy(head: nn.Linear, examples: Examples) -> float:
    """Share of the examples whose more probable class is the right one, in [0, 1]."""
    return float((head(examples.vectors).argmax(-1) == examples.classes).float().mean())


if __name__ == "__main__":
    main()
