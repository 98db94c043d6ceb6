"""Rerank: `python -m bench.rank` ranks 100 documents, by regard and by the same graph in a plain loop of batches of 32.

The network is MiniLM with a random head of one score; what it says of documents does not matter for the time. Both are
asked in turn, round by round, and what counts is the ratio within a round. The loop tokenises, pads each batch to its
longest pair and runs ONNX Runtime on all CPUs, as a script beside a service would.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer

from bench.many import make_texts, spread
from bench.servers import serving_regard
from export.build import build
from export.known import KNOWN, with_classifier
from export.traits import own_traits
from model.text import TextNetwork
from regard import Client

MODEL, DOCUMENTS, BATCH = "minilm-rank", 100, 32
_QUERY = "where do birds sing every morning"
_SENTENCES = (1, 8)  # of a document, at least and at most


def main() -> None:
    """Print a table, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.rank", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cache", type=Path, default=Path("downloads"), help="where MiniLM's weights are kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as models:
        artifact = export_cross_encoder(args.cache, Path(models))
        with serving_regard(Path(models)) as serving, Client(serving.address) as client:
            print("\n".join(measure(client, plain_loop(artifact), args.rounds)), flush=True)


def export_cross_encoder(cache: Path, models: Path) -> Path:
    """Put a head of one score on MiniLM; returns the artifact's folder."""
    source = KNOWN["minilm"](cache, None)
    torch.manual_seed(0)
    assert isinstance(source.network, TextNetwork)  # noqa: S101 -- as with_classifier wants it
    width = source.network.config.encoder.embed_dim
    network = with_classifier(source.network, {"weight": torch.randn(1, width), "bias": torch.zeros(1)})
    network.config = replace(network.config, token_types=True)
    whole = replace(source, name=MODEL, network=network, traits=own_traits(network, None), pairs=True)
    return build(whole, models).folder


def make_documents() -> list[str]:
    """Texts of one to eight sentences of random words, always the same."""
    sentences, random = iter(make_texts()), np.random.default_rng(0)
    low, high = _SENTENCES
    return [". ".join(next(sentences) for _ in range(random.integers(low, high + 1))) for _ in range(DOCUMENTS)]


def plain_loop(artifact: Path) -> Callable[[str, Sequence[str]], list[float]]:
    """What a script does: batches as they come, padded to the longest."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(artifact / "model.onnx", options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()

    def rank(query: str, documents: Sequence[str]) -> list[float]:
        scores = list[float]()
        for start in range(0, len(documents), BATCH):
            found = tokenizer.encode_batch([(query, text) for text in documents[start : start + BATCH]])
            feed = {
                "input_ids": np.array([one.ids for one in found]),
                "attention_mask": np.array([one.attention_mask for one in found]),
                "token_type_ids": np.array([one.type_ids for one in found]),
            }
            (logits,) = session.run(["logits"], feed)
            scores += logits[:, 0].tolist()
        return scores

    return rank


def measure(client: Client, loop: Callable[[str, Sequence[str]], list[float]], rounds: int) -> list[str]:
    """Rank in both ways, several times; returns the lines of the table.

    Raises:
        ValueError: The scores differ.
    """
    documents = make_documents()

    def served(query: str, texts: Sequence[str]) -> list[float]:
        found = client.rank(query, texts, raw_scores=True).documents
        return [one.score for one in sorted(found, key=lambda one: one.index)]

    largest = float(np.abs(np.subtract(served(_QUERY, documents), loop(_QUERY, documents))).max())
    if largest > 1e-4:
        raise ValueError(f"scores differ by {largest:.2g}; expected at most 1e-4")
    rates: dict[str, list[float]] = {"regard": [], "plain loop": []}
    for number in range(rounds):
        ways = [("regard", served), ("plain loop", loop)]
        for name, rank in ways if number % 2 else ways[::-1]:
            began = time.perf_counter()
            rank(_QUERY, documents)
            rates[name].append(DOCUMENTS / (time.perf_counter() - began))
    ratios = [mine / other for mine, other in zip(rates["regard"], rates["plain loop"], strict=True)]
    return [
        "| 100 documents, MiniLM with one score | documents/s | of the loop |",
        "|---|---|---|",
        f"| regard | {statistics.median(rates['regard']):.0f} | {spread(ratios)} |",
        f"| plain loop of batches of {BATCH} | {statistics.median(rates['plain loop']):.0f} | |",
    ]


if __name__ == "__main__":
    main()
