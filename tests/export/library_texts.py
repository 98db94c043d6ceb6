"""What transformers' generate writes, and how a served text is held against it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import regard

LOG_PROBABILITY, WEIGHTS = 1e-4, 1e-5  # tolerances
BOTH = regard.AttentionRequest()


@cache
def read(folder: Path) -> Any:
    """The library's own network."""
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()


def write(folder: Path, ids: Sequence[int], **settings: Any) -> Any:
    """What the library writes for one text, alone."""
    with torch.inference_mode():
        return read(folder).generate(
            torch.tensor([ids]),
            return_dict_in_generate=True,
            output_attentions=True,
            output_logits=True,
            output_scores=True,
            **settings,
        )


def greedy_together(client: regard.Client, model: str, texts: Sequence[str]) -> list[regard.Generated]:
    """Let texts be written at once, which share the steps, with both attentions."""

    def ask(text: str) -> regard.Generated:
        return client.generate_text(text, model=model, num_beams=1, cross_attention=BOTH, self_attention=BOTH)

    with ThreadPoolExecutor(18) as pool:
        return list(pool.map(ask, texts))


def expect_librarys(result: regard.GeneratedText, expected: Any, *, layers: int, begun: int = 0) -> None:
    """Insist on the library's tokens, log-probabilities and rows of so many layers' attention.

    Args:
        result: Written greedily.
        expected: What `write` gives for it.
        layers: Of which each step told, of both kinds.
        begun: Tokens that the library counts as written, and that a text begins with here.
    """
    assert [token.token for token in result.tokens] == expected.sequences[0, 1 + begun :].tolist()
    for step, token in enumerate(result.tokens, begun):
        likely = float(expected.logits[step][0].log_softmax(-1)[token.token])
        assert token.log_probability == pytest.approx(likely, abs=LOG_PROBABILITY)
        kinds = {"cross": expected.cross_attentions[step], "causal": expected.decoder_attentions[step]}
        assert len(token.attention) == layers
        for layer in token.attention:
            weights = kinds[layer.kind][layer.layer][0, :, 0].numpy()
            np.testing.assert_allclose(layer.weights, weights, atol=WEIGHTS)
