"""What regard is held to: verdicts on figures that are made up, and the tables of them."""

from typing import Any

import pytest

from bench.report import NOTES, make_sections
from bench.targets import ALONE, ECHO, OPEN, TRIVIAL, Figures, judge, load_name, open_loop_name, rate_name
from bench.workloads import TEXT

ENVOY = "regard on Envoy"
RUN_OF = {"rounds": 1, "seconds": 3.0, "cpus": 2}


def seen(**figures: float | None) -> list[dict[str, Any]]:
    """Figures of one round."""
    usual = {"per_second": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 0, "refused": 0, "refused_p50_ms": None}
    return [usual | {"generator_cpus": 0.1, "late_p99_ms": 0.5, "cpu_us": 300.0, "peak": 100.0} | figures]


def verdicts(figures: Figures) -> dict[str, tuple[str, bool | None]]:
    """What was measured for each target, and whether that reaches it."""
    return {one.target: (one.measured, one.met) for one in judge(figures, ["mosec"])}


@pytest.mark.parametrize(("per_second", "met"), [(750.0, True), (740.0, False)])
def test_the_trivial_graph_is_held_against_the_echo(per_second: float, met: bool) -> None:
    """Of the same round; parts that were not measured are not spoken of."""
    own = {"regard": seen(per_second=per_second), ENVOY: seen(per_second=4 * per_second)}
    title = "trivial graph, 32 callers, against a bare grpc.aio echo"
    assert verdicts({TRIVIAL: {ECHO: seen(per_second=1000.0)} | own}) == {
        f"regard: {title}, at least 0.75": (f"{per_second / 1000:.2f}", met),
        f"{ENVOY}: {title}, at least 2": (f"{per_second / 250:.2f}", True),
    }


@pytest.mark.parametrize(("p99_ms", "met"), [(11.9, True), (12.1, False)])
def test_at_70_percent_no_peer_is_to_be_lower(p99_ms: float, met: bool) -> None:
    """In runs of the graph alone; a peer that answered nothing is not the best one."""
    peers = {"mosec": 12.0, "ray": 30.0, "triton": None}
    own = {"regard": p99_ms, ENVOY: 12.2}
    figures = {
        OPEN: {rate_name(name, 0.7): seen(p99_ms=value) for name, value in (own | peers).items()},
        ALONE: {"limit": [{"run_p50_ms": 2.0, "per_second": 500.0}]},
    }
    title = "open loop, each server at 70 % of its own peak: p99 over the median of one run alone, no peer is lower"
    assert verdicts(figures)[f"regard: {title}"] == (f"{p99_ms / 2:.1f}; mosec 6.0", met)
    assert verdicts(figures)[f"{ENVOY}: {title}"] == ("6.1; mosec 6.0", False)


def test_beyond_the_peak_95_percent_of_it_are_to_be_answered() -> None:
    """Within the wait that is offered."""
    figures = {OPEN: {rate_name("regard", 1.5): seen(per_second=94.0, p99_ms=501.0, refused_p50_ms=3.0)}}
    found = verdicts(figures)
    assert found["regard: open loop at 150 %: answered, against the peak, at least 0.95"] == ("0.94", False)
    assert found["regard: open loop at 150 %: p99 of the accepted, at most the 500 ms offered"] == ("501 ms", False)
    figures = {OPEN: {rate_name("regard", 1.5): seen(per_second=96.0, p99_ms=499.0, refused_p50_ms=3.0)}}
    assert [met for _, met in verdicts(figures).values() if met is not None] == [True, True, True]


def test_what_was_never_refused_or_answered_is_not_measured() -> None:
    """Rather than the end of a run whose figures are there."""
    nothing = seen(p99_ms=None)
    figures = {OPEN: {rate_name("regard", 1.5): seen(), open_loop_name(0): nothing, open_loop_name(0.1): nothing}}
    found = list(verdicts(figures).values())
    assert ("not measured: 'refused_p50_ms'", None) in found
    assert ("not measured: 'p99_ms'", None) in found
    assert ("2 ms", True) in found


def test_texts_are_held_against_the_limit_and_plain_requests() -> None:
    """32 callers, 8 callers, and all attention."""
    loads = {load_name(32, "plain"): 79.0, load_name(8, "plain"): 71.0, load_name(32, "with all attention"): 68.0}
    own = {f"regard, {load}": seen(per_second=value) for load, value in loads.items()}
    own[f"regard, {load_name(1, 'plain')}"] = seen()
    own["ONNX Runtime alone, batch 1, one run at a time, spinning"] = [{"per_second": 100.0}]
    found = verdicts({TEXT.title: own})
    assert found["regard: 16 tokens, 32 callers, against the limit, at least 0.8"] == ("0.79", False)
    assert found["regard: 16 tokens, 8 callers, against the limit, at least 0.7"] == ("0.71", True)
    assert found["regard: 16 tokens, 32 callers, all attention, against plain requests, at least 0.85"] == (
        "0.86",
        True,
    )


def test_sections_have_a_row_a_server_and_say_what_their_columns_mean() -> None:
    """Ratios are those of each round; a server that answered nothing leaves cells empty."""
    figures = {
        TRIVIAL: {ECHO: seen(cpu_us=200.0), "regard": seen(per_second=40.0)},
        OPEN: {
            "regard, peak": seen(),
            rate_name("regard", 0.9): seen(per_second=88.0),
            rate_name("ray", 0.9): seen(per_second=0.0, p50_ms=None, p99_ms=None, late_p99_ms=None),
        },
    }
    page = make_sections(figures, {"ray": "it\nended"}, RUN_OF)
    assert "| regard | 40 (40 to 40) | 0.40 | 300 (300 to 300) | 1.50 | 1.0 | 2.0 | 0 | 0.10 |" in page
    assert (
        "| regard, 90% | 88 (88 to 88) | 0.88 | 1.0 (1.0 to 1.0) | 2.0 (2.0 to 2.0) | 0 |  | 0 | 0.10 | 0.5 |" in page
    )
    assert "| ray, 90% | 0 (0 to 0) | 0.00 |  |  | 0 |  | 0 | 0.10 |  |" in page
    assert "ray was not measured: it ended" in page
    for note in NOTES.values():
        assert "\n".join(note) in page
