"""Marian, BART and mBART folders exported and served: what transformers' generate writes, by each folder's settings."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import regard
from export.build import build
from export.sources import load_folder
from tests.export.library_texts import LOG_PROBABILITY, expect_librarys, greedy_together, write
from tests.export.test_transformers_writing import END, FRENCH, PAD, write_folder
from tests.processes import serving

LONGEST, ENDS = 12, [END, 21, 41]  # several end tokens: of random weights few texts end with a single one
TEXTS = ("w5 w7", "w9", "w11 w13 w17 w19 w23 w29", "w3 w3", "w31 w8 w15", "w44 w12 w6 w33", "w58", "w26 w27 w28")
# As real folders have them: Marian's forces an end, BART's a first token, too, mBART's a language.
SETTINGS: dict[str, dict[str, Any]] = {
    "marian": {"forced_eos_token_id": END, "num_beams": 4, "bad_words_ids": [[PAD]], "length_penalty": 1.0},
    "bart": {
        "forced_bos_token_id": 7, "forced_eos_token_id": END, "num_beams": 3, "early_stopping": True,
        "length_penalty": 2.0, "begin_suppress_tokens": [12],
    },
    "mbart": {
        "forced_bos_token_id": FRENCH, "forced_eos_token_id": END, "num_beams": 5, "early_stopping": "never",
        "length_penalty": 0.7,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is exported."""
    folder = tmp_path_factory.mktemp("networks")
    common = {"eos_token_id": ENDS, "max_new_tokens": LONGEST}
    return {family: write_folder(folder / family, family, **common, **own) for family, own in SETTINGS.items()}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[regard.Client]:
    """Of a server that has all of them."""
    models = tmp_path_factory.mktemp("models")
    for family, folder in folders.items():
        build(load_folder(folder, name=family), models)
    with serving("--models", str(models)) as server, regard.Client(server.address) as client:
        yield client


def ids_of(text: str) -> list[int]:
    """Of its words."""
    return [int(word[1:]) for word in text.split()]


def begun(family: str) -> int:
    """Tokens that the library counts as written, and that a text begins with here."""
    return int("forced_bos_token_id" in SETTINGS[family])


@pytest.mark.parametrize("family", SETTINGS)
def test_greedy_texts_are_the_librarys(family: str, client: regard.Client, folders: dict[str, Path]) -> None:
    """Of many that share the steps: tokens, log-probabilities, the rows of both attentions; also those that are cut."""
    together = greedy_together(client, family, TEXTS * 3)
    reasons = set[str]()
    for place, text in enumerate(TEXTS):
        expected = write(folders[family], ids_of(text), num_beams=1)
        for found in together[place :: len(TEXTS)]:
            (result,) = found.results
            expect_librarys(result, expected, layers=6, begun=begun(family))
            reasons.add(result.finish_reason)
            if result.finish_reason == "length":
                assert (len(result.tokens), result.tokens[-1].token) == (LONGEST - begun(family), END)
    assert reasons == {"end", "length"}


@pytest.mark.parametrize("max_tokens", [0, 4])
@pytest.mark.parametrize("family", SETTINGS)
def test_beams_are_the_librarys(family: str, max_tokens: int, client: regard.Client, folders: dict[str, Path]) -> None:
    """With the folder's own number of beams, length penalty, and what begins and ends a search; beside one another."""
    beams, penalty = SETTINGS[family]["num_beams"], SETTINGS[family]["length_penalty"]

    def ask(text: str) -> regard.Generated:
        return client.generate_text(text, model=family, num_results=beams, max_tokens=max_tokens)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, TEXTS))
    most = max_tokens or LONGEST - begun(family)
    for text, found in zip(TEXTS, together, strict=True):
        settings = {"max_new_tokens": max_tokens + begun(family)} if max_tokens else {}
        expected = write(folders[family], ids_of(text), num_return_sequences=beams, **settings)
        for result, tokens, score in zip(found.results, expected.sequences, expected.sequences_scores, strict=True):
            written = [token.token for token in result.tokens]
            assert written == tokens[1 + begun(family) :][: len(written)].tolist()
            assert written[-1] in ENDS
            is_cut = len(written) == most  # the end that is forced then does not count in the library's sum
            assert result.finish_reason == ("length" if is_cut else "end")
            counted = sum(token.log_probability for token in result.tokens[: -1 if is_cut else None])
            length = len(written) + begun(family)
            assert counted / length**penalty == pytest.approx(float(score), abs=LOG_PROBABILITY)
