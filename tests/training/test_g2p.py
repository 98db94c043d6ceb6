import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from model.checkpoint import load_encoder_decoder
from model.decoder import DecoderConfig
from model.encoder import EncoderConfig
from model.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from tests.processes import ROOT
from training.g2p import Recipe, Run, fit, learning_rate, loss_of, write
from training.g2p_errors import pronounce
from training.g2p_tokens import PAD, VOCABULARY, make_pairs

SHAPE = EncoderConfig(32, 1, 4, 64, dropout=0.1, positions="sinusoidal_halves", max_positions=64)
CONFIG = EncoderDecoderConfig(SHAPE, DecoderConfig(**vars(SHAPE)), len(VOCABULARY))
# A letter is a phone: what a network learns in a few steps.
PHONES = {"b": "B", "d": "D", "k": "K", "a": "AH0", "i": "IY1"}
WORDS = [first + second + third for first in "bdk" for second in "ai" for third in "bdk"]
DICTIONARY = {word: (tuple(PHONES[letter] for letter in word),) for word in WORDS}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


WEIGHTS = ROOT / "model" / "weights" / "g2p"


def make_run(steps: int, seed: int = 0) -> Run:
    """A training of a small network on the small dictionary."""
    return Run(Recipe(steps=steps, batch_size=5, warmup_steps=20, seed=seed), CONFIG, make_pairs(DICTIONARY))


def silent() -> Console:
    """A console that nobody reads."""
    return Console(file=io.StringIO())


def test_steps_lower_the_loss() -> None:
    """To below half of the first ones'."""
    run = make_run(80)
    losses = [run.advance() for _ in range(80)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_training_depends_on_the_seed_alone_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Two runs, and one that was interrupted within an epoch, end with the same weights and the same average."""
    one, other, another_seed = make_run(10), make_run(10), make_run(10, seed=1)
    for run in (one, other, another_seed):
        fit(run, tmp_path / "whole.pt", silent(), 100, lambda network: "")
    interrupted = make_run(10)
    for _ in range(6):
        interrupted.advance()
    interrupted.save(tmp_path / "part.pt")
    resumed = make_run(10)
    resumed.load(tmp_path / "part.pt")
    assert resumed.step == 6
    fit(resumed, tmp_path / "part.pt", silent(), 100, lambda network: "")
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
        assert torch.equal(one.average[name], resumed.average[name]), name
    assert not torch.equal(one.network.tokens.weight, another_seed.network.tokens.weight)


def test_checkpoints_and_reports_come_in_between_and_at_the_end(tmp_path: Path) -> None:
    """Every four steps of ten, and after the tenth; what is assessed is the average, without dropout."""
    run, assessed = make_run(10), []

    def assess(network: EncoderDecoder) -> str:
        assert not network.training
        assert torch.equal(network.tokens.weight, run.average["tokens.weight"])
        again = make_run(10)
        again.load(tmp_path / "run.pt")
        assessed.append(again.step)
        return ""

    fit(run, tmp_path / "run.pt", silent(), 4, assess)
    assert assessed == [4, 8, 10]


def test_padding_has_no_part_in_the_loss() -> None:
    """Whatever is said there; and the smoothed loss of two tokens is the formula's."""
    torch.manual_seed(0)
    logits, next_ids = torch.randn(1, 4, 10), torch.tensor([[5, 6, PAD, PAD]])
    loss = loss_of(logits, next_ids, 0.1)
    assert torch.equal(loss, loss_of(logits[:, :2], next_ids[:, :2], 0.1))
    log_probabilities = logits.log_softmax(-1)[0]
    expected = [
        0.9 * log_probabilities[row, token] + 0.1 * log_probabilities[row].mean() for row, token in ((0, 5), (1, 6))
    ]
    assert float(loss) == pytest.approx(-float(sum(expected)) / 2, abs=1e-6)


def test_the_average_follows_the_weights() -> None:
    """It is none of the weights that were, and near the last."""
    run = make_run(30)
    before = run.network.tokens.weight.detach().clone()
    for _ in range(30):
        run.advance()
    now, average = run.network.tokens.weight.detach(), run.average["tokens.weight"]
    assert 0 < float((now - average).norm()) < 0.8 * float((now - before).norm())


def test_the_learning_rate_is_the_papers_and_falls_to_nothing() -> None:
    """D^-0.5 min(step^-0.5, step warmup^-1.5), in the second half times what is left of it."""
    assert learning_rate(1, 0.0, 4000, 512) == pytest.approx(512**-0.5 * 4000**-1.5)
    assert learning_rate(4000, 0.3, 4000, 512) == pytest.approx(512**-0.5 * 4000**-0.5)
    assert learning_rate(16_000, 0.5, 4000, 512) == pytest.approx(512**-0.5 / 126.4911, rel=1e-5)
    assert learning_rate(16_000, 0.75, 4000, 512) == pytest.approx(0.5 * 512**-0.5 / 126.4911, rel=1e-5)
    assert learning_rate(16_000, 1.0, 4000, 512) == 0


def test_a_run_ends_after_its_steps_or_its_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is first."""
    run = make_run(10)
    run.step = 4
    assert run.progress == pytest.approx(0.4)
    run.recipe = Recipe(steps=10, minutes=2.0)
    monkeypatch.setattr(Run, "seconds", 90.0)
    assert run.progress == pytest.approx(0.75)
    monkeypatch.setattr(Run, "seconds", 200.0)
    assert run.progress == 1.0


def test_what_is_written_says_how_good_it_is(tmp_path: Path) -> None:
    """Weights that can be read, and error rates with and without stress, greedy and of five beams."""
    run = make_run(1)
    run.advance()
    write(run, DICTIONARY, tmp_path, silent())
    assert load_encoder_decoder(tmp_path).config == CONFIG
    report = json.loads((tmp_path / "training.json").read_text())
    for name in ("without_stress_greedy", "without_stress_beam_5", "with_stress_greedy", "with_stress_beam_5"):
        assert report[name]["words"] == len(DICTIONARY)
        assert 0 < report[name]["word"] <= 1 and report[name]["phone"] > 0
    assert report["steps"] == 1 and report["recipe"]["batch_size"] == 5


def test_the_committed_weights_are_small_and_say_how_good_they_are() -> None:
    """At most 8 MB; at most a third of the held-out words wrong without stress."""
    report = json.loads((WEIGHTS / "training.json").read_text())
    assert report["without_stress_beam_5"]["words"] > 6000
    assert report["without_stress_beam_5"]["word"] < 1 / 3
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 8_000_000


def test_the_committed_weights_pronounce() -> None:
    """A word of the dictionary, one of the held-out words, and one that is none; with stress where it is asked for."""
    network = load_encoder_decoder(WEIGHTS)
    found = pronounce(network, ["transformer", "neural", "blorfing"], beam_size=5)
    assert {word: " ".join(phones) for word, phones in found.items()} == {
        "transformer": "T R AE N S F AO R M ER",
        "neural": "N UH R AH L",
        "blorfing": "B L AO R F IH NG",
    }
    assert " ".join(pronounce(network, ["neural"], beam_size=5, with_stress=True)["neural"]) == "N UH1 R AH0 L"
