"""What regard is held to, and whether the figures of a run reach it."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.workloads import IMAGES, MIXED, TEXT, Workload

Figures = dict[str, dict[str, list[dict[str, Any]]]]

LIMIT = "ONNX Runtime alone"
TRIVIAL, OPEN, ALONE = "trivial graph", "open loop", "one run alone"
SERVERS, CANCELLED, SOAK = "servers", "cancelled", "soak"
ECHO, TRIVIAL_CALLERS = "grpc.aio echo", 32
TRANSPORTS = {"regard": "grpcio", "regard on Envoy": "envoy"}  # what regard's figures are named, and its --transport
_LEAST = {"regard": {32: 0.8, 8: 0.7}, "regard on Envoy": {32: 0.92, 8: 0.78}}  # of the limit, by callers
_LEAST_OF_ECHO = {"regard": 0.75, "regard on Envoy": 2.0}
OFFERED_SECONDS = 0.5  # --max-queue-seconds of the server that is overloaded
MIXED_LOAD, ATTENTION_SHARE = 0.6, 0.1
_PARTS = (TRIVIAL, OPEN, ALONE, TEXT.title, MIXED.title, IMAGES.title)
_MAX_CANCELLED = 2 * 32  # two instances' batches


@dataclass(frozen=True)
class Verdict:
    """One target, what was measured, and whether that reaches it; None where it was not measured."""

    target: str
    measured: str
    met: bool | None


def load_name(callers: int, asked: str = "") -> str:
    """Name a load as figures do."""
    return ("1 caller" if callers == 1 else f"{callers} callers") + (f", {asked}" if asked else "")


def rate_name(server: str, load: float) -> str:
    """Name a load in the open loop, by its share of the server's own peak."""
    return f"{server}, {load:.0%}"


def open_loop_name(share: float) -> str:
    """Name a load of requests for all attention in the open loop, by their share."""
    return f"regard, {MIXED_LOAD:.0%}, {share:.0%} with all attention"


def limit_name(figures: dict[str, list[dict[str, Any]]], part: str = "") -> str:
    """Name the fastest way of ONNX Runtime alone, by its median, among those with some words in their name."""
    ways = [name for name in figures if name.startswith(LIMIT) and part in name]
    return max(ways, key=lambda name: statistics.median(one["per_second"] for one in figures[name]))


def judge(figures: Figures, batching: Sequence[str]) -> Iterator[Verdict]:
    """Compare figures with the targets, but for those of parts that were not measured.

    Args:
        figures: Of one run.
        batching: Names of the peers that join requests to batches.
    """
    targets = (_throughput, _attentive, _peers_at_32, _mixed, _images, _latency, _without_attention)
    for target in (*targets, _trivial, _tail, _at_70, _overload):
        try:
            yield from target(figures, batching)
        except KeyError as missing:
            if missing.args[0] not in _PARTS:
                yield Verdict(str(target.__doc__), f"not measured: {missing}", None)
    yield from _servers(figures)


def _throughput(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """16 tokens, 32 and 8 callers, against the limit."""
    own = figures[TEXT.title]
    for regard, shares in _LEAST.items():
        for callers, least in shares.items():
            share = median_ratio(own[f"{regard}, {load_name(callers, 'plain')}"], own[limit_name(own)])
            yield _at_least(f"{regard}: 16 tokens, {callers} callers, against the limit", share, least)


def _attentive(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """16 tokens, 32 callers, all attention against none."""
    own = figures[TEXT.title]
    for regard in TRANSPORTS:
        asked, plain = (own[f"{regard}, {load_name(32, what)}"] for what in ("with all attention", "plain"))
        share = median_ratio(asked, plain)
        yield _at_least(f"{regard}: 16 tokens, 32 callers, all attention, against plain requests", share, 0.85)


def _peers_at_32(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """16 tokens, 32 callers, against the best peer."""
    for regard in TRANSPORTS:
        for callers in (32, 8):
            peer, share = _against_peers(figures, TEXT, callers, regard=regard)
            yield _at_least(f"{regard}: 16 tokens, {callers} callers, against the best peer ({peer})", share, 1.0)


def _mixed(figures: Figures, batching: Sequence[str]) -> Iterator[Verdict]:
    """4 to 128 tokens, 32 callers, against peers."""
    peer, share = _against_peers(figures, MIXED, 32, batching)
    yield _at_least(f"4 to 128 tokens, 32 callers, against the best peer that pads ({peer})", share, 1.5)
    peer, share = _against_peers(figures, MIXED, 32)
    yield _at_least(f"4 to 128 tokens, 32 callers, against the best peer of all ({peer})", share, 1.0)


def _images(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """224 pixels, 8 callers, against the limit and the best peer."""
    own = figures[IMAGES.title]
    share = median_ratio(own[f"regard, {load_name(8, 'plain')}"], own[limit_name(own)])
    yield _at_least("224 pixels, 8 callers, against the limit", share, 0.93)
    peer, share = _against_peers(figures, IMAGES, 8)
    yield _at_least(f"224 pixels, 8 callers, against the best peer ({peer})", share, 1.0)


def _latency(figures: Figures, batching: Sequence[str]) -> Iterator[Verdict]:
    """16 tokens, 1 caller: median latency."""
    own = figures[TEXT.title]
    alone = own[limit_name(own, "batch 1, one run at a time")]
    more = statistics.median(
        one["p50_ms"] - 1e3 / limit["per_second"]
        for one, limit in zip(own[f"regard, {load_name(1, 'plain')}"], alone, strict=True)
    )
    yield Verdict("16 tokens, 1 caller: median over ONNX Runtime's own, at most 1.2 ms", f"{more:.2f} ms", more <= 1.2)
    peers = {name: own[f"{name}, {load_name(1)}"] for name in batching if f"{name}, {load_name(1)}" in own}
    medians = {name: _median(rounds, "p50_ms") for name, rounds in peers.items()}
    if not medians:
        raise KeyError("no peer that batches")
    best, regard = (
        min(medians, key=lambda name: medians[name]),
        _median(own[f"regard, {load_name(1, 'plain')}"], "p50_ms"),
    )
    shown = f"{regard:.1f} ms; {best} {medians[best]:.1f} ms"
    yield Verdict("16 tokens, 1 caller: no peer that batches is lower", shown, regard <= medians[best])


def _without_attention(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """Plain requests, the artifact with attention against one without."""
    own = figures[TEXT.title]
    share = median_ratio(
        own[f"regard, {load_name(32, 'plain')}"], own[f"regard, {load_name(32, 'artifact without attention')}"]
    )
    yield _at_least("plain requests, 32 callers: an artifact with attention against one without", share, 0.98)


def _trivial(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """Trivial graph, 32 callers, against a bare grpc.aio echo."""
    own = figures[TRIVIAL]
    for regard, least in _LEAST_OF_ECHO.items():
        share = median_ratio(own[regard], own[ECHO])
        yield _at_least(
            f"{regard}: trivial graph, {TRIVIAL_CALLERS} callers, against a bare grpc.aio echo", share, least
        )


def _tail(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """10 % of requests ask for all attention: p99 of the others at 60 % load."""
    own = figures[OPEN]
    times = median_ratio(own[open_loop_name(ATTENTION_SHARE)], own[open_loop_name(0)], "p99_ms")
    title = "60 % load, a tenth of it with all attention: p99 of the plain ones, at most 1.5 times that without"
    yield Verdict(title, f"{times:.2f}", times <= 1.5)


def _at_70(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """Open loop at 70 % of the peak: p99 over one run alone."""
    suffix, alone = rate_name("", 0.7), figures[ALONE]["limit"]
    runs = {
        name.removesuffix(suffix): statistics.median(
            (one["p99_ms"] or math.inf) / run["run_p50_ms"] for one, run in zip(rounds, alone, strict=False)
        )
        for name, rounds in figures[OPEN].items()
        if name.endswith(suffix)
    }
    own = {regard: runs.pop(regard) for regard in TRANSPORTS}
    if not runs:
        raise KeyError("no peer")
    best = min(runs, key=lambda name: runs[name])
    title = "open loop, each server at 70 % of its own peak: p99 over the median of one run alone, no peer is lower"
    for regard, times in own.items():
        yield Verdict(f"{regard}: {title}", f"{times:.1f}; {best} {runs[best]:.1f}", times <= runs[best])


def _overload(figures: Figures, _: Sequence[str]) -> Iterator[Verdict]:
    """Open loop at 150 % of the peak."""
    wait = OFFERED_SECONDS * 1e3
    for regard in TRANSPORTS:
        rounds, at = figures[OPEN][rate_name(regard, 1.5)], f"{regard}: open loop at 150 %"
        share = statistics.median(one["per_second"] / one["peak"] for one in rounds)
        yield _at_least(f"{at}: answered, against the peak", share, 0.95)
        p99 = _median(rounds, "p99_ms")
        yield Verdict(f"{at}: p99 of the accepted, at most the {wait:.0f} ms offered", f"{p99:.0f} ms", p99 <= wait)
        refused = _median(rounds, "refused_p50_ms")
        yield Verdict(f"{at}: median of refusals, at most 20 ms", f"{refused:.1f} ms", refused <= 20)


def _servers(figures: Figures) -> Iterator[Verdict]:
    if rounds := figures.get(CANCELLED, {}).get("regard"):
        computed, of = (max(one[key] for one in rounds) for key in ("computed", "cancelled"))
        title = "500 of 1,000 cancelled while queued: computed all the same, at most the batches in flight"
        yield Verdict(title, f"{computed:.0f} of {of:.0f}", computed <= _MAX_CANCELLED)
    if rounds := figures.get(SERVERS, {}).get(f"regard, {TEXT.model}"):
        seconds = _median(rounds, "ready_seconds")
        yield Verdict("minilm: start to ready, at most 3 s", f"{seconds:.1f} s", seconds <= 3)
        over = statistics.median(one["pss_mb"] - one["weights_mb"] for one in rounds)
        title = "minilm: proportional set size after the load over the weights' size, at most 250 MB"
        yield Verdict(title, f"{over:.0f} MB", over <= 250)
    if rounds := figures.get(SOAK, {}).get("regard"):
        minutes, growth, errors = (rounds[0][key] for key in ("minutes", "growth", "errors"))
        title = f"{minutes:g} minutes of mixed load: memory flat within 3 %, no error"
        yield Verdict(title, f"{growth:+.1%}, {errors} errors", abs(growth) <= 0.03 and not errors)


def _at_least(target: str, share: float, least: float) -> Verdict:
    return Verdict(f"{target}, at least {least:g}", f"{share:.2f}", share >= least)


def _against_peers(
    figures: Figures, work: Workload, callers: int, only: Sequence[str] | None = None, regard: str = "regard"
) -> tuple[str, float]:
    """Find the peer that regard is least ahead of; returns its name, and how many times faster regard is."""
    own = figures[work.title]
    ours, suffix = own[f"{regard}, {load_name(callers, 'plain')}"], f", {load_name(callers)}"
    shares = {
        name.removesuffix(suffix): median_ratio(ours, rounds)
        for name, rounds in own.items()
        if name.endswith(suffix) and (only is None or name.removesuffix(suffix) in only)
    }
    if not shares:
        raise KeyError("no peer")
    worst = min(shares, key=lambda name: shares[name])
    return worst, shares[worst]


def median_ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], key: str = "per_second") -> float:
    """Median of the rounds' ratios."""
    return _median_of(
        (
            one[key] / other[key]
            for one, other in zip(ours, theirs, strict=False)
            if one[key] is not None and other[key]
        ),
        key,
    )


def _median(rounds: list[dict[str, Any]], key: str) -> float:
    return _median_of((one[key] for one in rounds if one[key] is not None), key)


def _median_of(values: Iterable[float], what: str) -> float:
    """Median of what there is; a KeyError where nothing was answered, or refused, as where nothing was measured."""
    found = list(values)
    if not found:
        raise KeyError(what)
    return float(statistics.median(found))
