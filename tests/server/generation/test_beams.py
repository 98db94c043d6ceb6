"""Beam search against a search of everything, and against the transformers library's own."""

import itertools

import numpy as np
import pytest

from server.generation.beams import Beams
from tests.server.generation.fakes import END, START, VOCABULARY, logits_after


def log_probabilities(source: list[float], tokens: tuple[int, ...]) -> np.ndarray:
    """Of the token behind START and some others, float64 [V]."""
    logits = logits_after(source, (START, *tokens)).astype(np.float64)
    return np.asarray(logits - np.log(np.exp(logits).sum()))


def search(source: list[float], size: int, max_tokens: int, length_penalty: float) -> Beams:
    """Let the beams be advanced as the decoder's rows would."""
    beams = Beams(size, max_tokens, (END,), length_penalty)
    while not beams.is_over:
        rows = np.stack([log_probabilities(source, beginning.tokens) for beginning in beams.live])
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


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("length_penalty", [0.6, 1.0])
def test_results_are_those_of_the_transformers_library(size: int, length_penalty: float) -> None:
    """Texts and scores of all that it returns, for several sources."""
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
            max_new_tokens=12,
            length_penalty=length_penalty,
            eos_token_id=END,
            pad_token_id=END,
            do_sample=False,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        expected = [up_to_end(row[1:].tolist()) for row in found.sequences]
        ours = search(source, size, 12, length_penalty).ended
        assert [list(beginning.tokens) for _, beginning in ours] == expected
        np.testing.assert_allclose([score for score, _ in ours], found.sequences_scores.numpy(), atol=1e-5)


def test_each_token_has_its_own_log_probability() -> None:
    """They sum to what the results are ranked by."""
    for score, beginning in search([3.0], 4, 8, 1.0).ended:
        assert score == pytest.approx(sum(beginning.log_probabilities) / len(beginning.tokens), abs=1e-5)
