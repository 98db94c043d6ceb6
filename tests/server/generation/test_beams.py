"""Beam search against a search of everything, and against the transformers library's own."""

import itertools
from typing import Any

import numpy as np
import pytest

from server.generation.beams import Beams
from tests.server.generation.fakes import END, START, VOCABULARY, logits_after

FORCED = 5  # behind START, where something is forced


def log_probabilities(source: list[float], tokens: tuple[int, ...], begun: tuple[int, ...] = ()) -> np.ndarray:
    """Of the token behind START and some others, float64 [V]."""
    logits = logits_after(source, (START, *begun, *tokens)).astype(np.float64)
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def search(
    source: list[float],
    size: int,
    max_tokens: int,
    length_penalty: float,
    begun: tuple[int, ...] = (),
    **settings: Any,
) -> Beams:
    """Let the beams be advanced as the decoder's rows would."""
    beams = Beams(size, max_tokens, (END,), length_penalty, begun=len(begun), **settings)
    while not beams.is_over:
        rows = np.stack([log_probabilities(source, beginning.tokens, begun) for beginning in beams.live])
        beams.advance(rows.astype(np.float32))
    return beams


def everything(source: list[float], max_tokens: int, length_penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """Score every text there is, the best first."""
    found = []
    others = [token for token in range(VOCABULARY) if token != END]
    for length in range(1, max_tokens + 1):
        for tokens in itertools.product(others, repeat=length - 1):
            for last in [END] if length < max_tokens else range(VOCABULARY):
                text = (*tokens, last)
                total = sum(log_probabilities(source, text[:place])[token] for place, token in enumerate(text))
                found.append((float(total) / length**length_penalty, text))
    return sorted(found, reverse=True)


def up_to_end(tokens: list[int]) -> list[int]:
    """Leave out what stands behind the end token."""
    return tokens[: tokens.index(END) + 1] if END in tokens else tokens


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_all_beginnings_finds_the_best_there_is(seed: int, length_penalty: float) -> None:
    """Nothing is lost by ending too early, by the order of candidates, or in the scores."""
    source = [float(seed)]
    best, *_ = everything(source, 3, length_penalty)
    score, found = search(source, VOCABULARY**2, 3, length_penalty).ended[0]
    assert found.tokens == best[1]
    assert score == pytest.approx(best[0], abs=1e-5)


@pytest.mark.parametrize(
    ("size", "length_penalty", "max_tokens", "settings"),
    [
        *((size, length_penalty, 12, {}) for size in (2, 3, 5) for length_penalty in (0.6, 1.0)),
        (3, 0.6, 12, {"early_stopping": True}),
        (2, 2.0, 12, {"early_stopping": "never"}),
        (3, -1.0, 12, {"early_stopping": "never"}),
        (3, 1.0, 4, {"forced_eos_token_id": END}),
        (3, 2.0, 12, {"forced_bos_token_id": FORCED}),
        (2, 2.0, 5, {"early_stopping": True, "forced_bos_token_id": FORCED, "forced_eos_token_id": END}),
    ],
)
def test_results_are_those_of_the_transformers_library(
    size: int, length_penalty: float, max_tokens: int, settings: dict[str, Any]
) -> None:
    """Texts and scores of all that it returns, for several sources, by its settings of how a search begins and ends."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")

    class Model(transformers.PreTrainedModel, transformers.GenerationMixin):  # type: ignore[misc, name-defined]
        """Its logits are the fake decoder's."""

        config_class = transformers.PretrainedConfig
        _supports_cache_class = False

        def __init__(self, source: list[float]) -> None:
            super().__init__(transformers.PretrainedConfig(vocab_size=VOCABULARY))
            self.source, self.anchor = source, torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: object, **given: object) -> object:
            rows = [logits_after(self.source, row) for row in input_ids.tolist()]  # type: ignore[attr-defined]
            logits = torch.from_numpy(np.stack(rows))[:, None]
            return transformers.modeling_outputs.CausalLMOutput(logits=logits)

        def prepare_inputs_for_generation(self, input_ids: object, **given: object) -> dict[str, object]:
            return {"input_ids": input_ids}

    for seed in range(8):
        source = [float(seed), 0.5]
        found = Model(source).generate(
            torch.tensor([[START]]),
            num_beams=size,
            num_return_sequences=size,
            max_new_tokens=max_tokens,
            length_penalty=length_penalty,
            eos_token_id=END,
            pad_token_id=END,
            do_sample=False,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
        begun = (FORCED,) if "forced_bos_token_id" in settings else ()
        expected = [up_to_end(row[1 + len(begun) :].tolist()) for row in found.sequences]
        ended = {"forced_end_token": settings.get("forced_eos_token_id")}
        ended |= {"early_stopping": settings.get("early_stopping", False)}
        ours = search(source, size, max_tokens - len(begun), length_penalty, begun, **ended).ended
        assert [list(beginning.tokens) for _, beginning in ours] == expected
        np.testing.assert_allclose([score for score, _ in ours], found.sequences_scores.numpy(), atol=1e-5)


def test_each_token_has_its_own_log_probability() -> None:
    """They sum to what the results are ranked by."""
    for score, beginning in search([3.0], 4, 8, 1.0).ended:
        assert score == pytest.approx(sum(beginning.log_probabilities) / len(beginning.tokens), abs=1e-5)


def test_an_end_that_is_forced_has_the_log_probability_that_it_would_have_had() -> None:
    """Though it does not count where beams are ranked."""
    for score, beginning in search([3.0], 3, 3, 1.0, forced_end_token=END).ended:
        *before, last = beginning.log_probabilities
        written = len(beginning.tokens)
        assert beginning.tokens[-1] == END
        assert last == pytest.approx(float(log_probabilities([3.0], beginning.tokens[:-1])[END]), abs=1e-5)
        assert score == pytest.approx(sum(before if written == 3 else [*before, last]) / written, abs=1e-5)


def test_where_longer_is_worse_what_goes_on_is_judged_at_its_present_length() -> None:
    """With a negative penalty: -0.15 of two tokens scores -0.3, and its end finds a better result than -1.2."""
    beams = Beams(2, 10, (END,), -1.0, early_stopping="never")
    for first, second, end in ((-0.1, -2.0, -1.0), (-0.05, -9.0, -0.5), (-9.0, -9.0, -0.01)):
        assert not beams.is_over
        rows = np.full((2, VOCABULARY), -50.0, np.float32)
        rows[0, [3, 4, END]] = first, second, end
        beams.advance(rows)
    assert [beginning.tokens for _, beginning in beams.ended] == [(3, 3, END), (END,)]
    assert [score for score, _ in beams.ended] == pytest.approx([-0.48, -1.0], abs=1e-5)
