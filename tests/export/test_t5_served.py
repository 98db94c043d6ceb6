"""T5 folders exported and served: what transformers' generate writes, with its attention, whoever shares the steps."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from export.build import build
from export.sources import load_folder
from tests.export.library_texts import LOG_PROBABILITY, WEIGHTS, expect_librarys, greedy_together, write
from tests.export.t5_folders import END, make_tokenizer, write_t5
from tests.processes import serving

SERVED = ("t5", "t5-1.1")
TEXTS = ("the cat", "a", "in a winter the letter", "zebra", "er in er", "the sea is a sea")
# A text ends with any of three tokens; the numbers of beams and tokens are the models' own, too.
SETTINGS: dict[str, Any] = {"eos_token_id": [END, 21, 41], "max_new_tokens": 15, "num_beams": 3, "length_penalty": 0.7}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is exported."""
    folder = tmp_path_factory.mktemp("networks")
    return {family: write_t5(folder / family, family, **SETTINGS) for family in SERVED}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[regard.Client]:
    """Of a server that has all of them."""
    models = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.transformers_parts.RELATIVE_POSITIONS", 24)
        for family, folder in folders.items():
            build(load_folder(folder, name=family), models)
    with serving("--models", str(models)) as server, regard.Client(server.address) as client:
        yield client


def ids_of(text: str) -> list[int]:
    """Of its tokens."""
    return make_tokenizer().encode(text).ids


@pytest.mark.parametrize("family", SERVED)
def test_greedy_texts_are_the_librarys(family: str, client: regard.Client, folders: dict[str, Path]) -> None:
    """Of many that share the steps, each begun when it came: tokens, log-probabilities, the rows of both attentions."""
    together = greedy_together(client, family, TEXTS * 3)
    reasons = set[str]()
    for place, text in enumerate(TEXTS):
        expected = write(folders[family], ids_of(text), num_beams=1)
        for found in together[place :: len(TEXTS)]:
            (result,) = found.results
            assert [token.id for token in found.source] == ids_of(text)
            expect_librarys(result, expected, layers=4)
            reasons.add(result.finish_reason)
    assert reasons == {"end", "length"}


@pytest.mark.parametrize("family", SERVED)
def test_tokens_are_explained(family: str, client: regard.Client) -> None:
    """Of texts of one beam and of several: every row makes up its logit, and is as long as what was read."""
    for text in TEXTS:
        for num_beams in (1, 2):
            found = client.generate_text(text, model=family, num_beams=num_beams, relevance=True)
            why, count = found.relevance, len(found.results[0].tokens)
            assert why is not None
            assert (why.source.shape, why.target.shape) == ((count, len(found.source)), (count, count))
            assert why.relative_error.max() < 1e-5
            assert why.source.any(axis=1).all()


@pytest.mark.parametrize("family", SERVED)
def test_beams_are_the_librarys(family: str, client: regard.Client, folders: dict[str, Path]) -> None:
    """With the folder's own number of beams, length penalty and end tokens; beside texts of one beam."""

    def ask(text: str) -> regard.Generated:
        return client.generate_text(text, model=family, num_results=3)

    with ThreadPoolExecutor(12) as pool:
        alone = pool.map(lambda text: client.generate_text(text, model=family, num_beams=1), TEXTS)
        together = list(pool.map(ask, TEXTS))
        list(alone)
    for text, found in zip(TEXTS, together, strict=True):
        expected = write(folders[family], ids_of(text), num_return_sequences=3)
        for result, tokens, score in zip(found.results, expected.sequences, expected.sequences_scores, strict=True):
            written = [token.token for token in result.tokens]
            assert written == tokens[1 : len(written) + 1].tolist()
            assert len(written) == 15 or written[-1] in (END, 21, 41)
            assert result.log_probability / len(written) ** 0.7 == pytest.approx(float(score), abs=LOG_PROBABILITY)


def test_the_encoder_shows_its_attention(client: regard.Client, folders: dict[str, Path]) -> None:
    """To what it reads, biases included."""
    ids = np.array([ids_of(TEXTS[2])])
    answer = client.predict(
        {"input_ids": ids, "attention_mask": np.ones_like(ids)}, model="t5", attention=regard.AttentionRequest()
    )
    assert answer.attention is not None
    expected = write(folders["t5"], ids_of(TEXTS[2]), num_beams=1).encoder_attentions
    assert len(answer.attention.layers) == len(expected) == 2
    for layer, weights in zip(answer.attention.layers, expected, strict=True):
        np.testing.assert_allclose(layer.weights[0], weights[0].numpy(), atol=WEIGHTS)
