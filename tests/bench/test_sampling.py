"""What sampled attention costs: servers that sample as they are told, the same load for all, ratios of latencies."""

import sys
from pathlib import Path

import pytest

from bench.faithfulness.__main__ import EMBEDDED, newest
from bench.load import Tally
from bench.relevance.plain import in_turn
from bench.sampling import SHARES, Found, SamplingError, checked, main, measure, publish
from server.repository.settings import read_settings


def test_servers_sample_as_they_are_told(tmp_path: Path) -> None:
    """Nothing else of the model differs."""
    for kind, share in SHARES.items():
        model = publish(newest(EMBEDDED / "fashion"), tmp_path / kind, share) / "fashion"
        settings = read_settings(model)
        assert (settings.sample_attention, settings.max_samples_per_second) == (share, 1.0)
        assert newest(model).resolve() == newest(EMBEDDED / "fashion").resolve()


def test_all_are_asked_and_those_that_are_off_sample_nothing() -> None:
    """One short round of the embedded model, and one that warms up."""
    found = measure(newest(EMBEDDED / "fashion"), 1, 1, 0.5)
    assert found.rate > 0
    assert len(found.late) == len(SHARES)
    assert found.samples["off"] == found.samples["off, another"] == 0
    assert [[len(values) for values in start.values()] for start in found.latencies] == [[1] * 8]
    assert all(one.ratio > 0 for one in found.compared("fashion"))


def test_ratios_are_to_the_server_that_does_not_sample() -> None:
    """Of the same percentile, in the same round."""
    kinds = list(SHARES)
    start = {("p50", kind): [1.0 + place, 10.0] for place, kind in enumerate(kinds)}
    start |= {("p99", kind): [5.0, 5.0 * (1 + place)] for place, kind in enumerate(kinds)}
    found = Found(latencies=[start]).compared("m")
    assert [one.what for one in found] == [
        f"{name}, sample_attention {kind}" for name in ("p50", "p99") for kind in ("off, another", "0.01", "0.1")
    ]
    assert [one.ratio for one in found] == [1.5, 2.0, 2.5, 1.5, 2.0, 2.5]
    assert found[-1].mine == 12.5


def test_each_server_is_first_as_often() -> None:
    """Whatever the first round is."""
    kinds = tuple(SHARES)
    orders = [in_turn(number, kinds) for number in range(-1, 7)]
    assert len({*orders}) == 8
    assert all(sum(order[0] == kind for order in orders) == 2 for kind in kinds)


def test_a_request_that_fails_ends_the_run() -> None:
    """So does a round without any; else there would be ratios of refusals."""
    tally = Tally()
    with pytest.raises(SamplingError, match="off: 0 of 0 requests failed"):
        checked(tally, 1, "off")
    tally.late, tally.plain = [0.0, 0.0], [1.0, 3.0]
    assert checked(tally, 1, "off")["p50_ms"] == 2
    tally.late, tally.refused = [0.0] * 3, [0.5]
    with pytest.raises(SamplingError, match="off: 1 of 3 requests failed"):
        checked(tally, 1, "off")


def test_what_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Before anything is started."""
    for arguments, told in (
        (["--rounds", "0"], "--rounds: 0; expected above 0"),
        (["--models", str(tmp_path)], f"{tmp_path}/minilm is not there"),
    ):
        monkeypatch.setattr(sys, "argv", ["bench.sampling", *arguments])
        with pytest.raises(SystemExit):
            main()
        assert told in capsys.readouterr().err
