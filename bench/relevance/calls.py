"""Calls that ask why, by every method that a model has, beside plain calls of the same inputs."""

import time
from collections import defaultdict
from collections.abc import Iterator

from bench.relevance.loads import Load, find_methods
from bench.relevance.ratios import Compared, Target, compare
from bench.servers import Serving, serving_regard
from regard import Client, RelevanceRequest

BATCHES = (1, 8)
_PLAIN, _MANY_POINTS = "plain", "integrated-gradients"  # 64 runs of a gradient: no single one
_COST = Target(3, is_most=True)
_INPUTS = 80  # of a method in a round, so that ticks of 10 ms tell its CPU time


def measure_calls(load: Load, rounds: int) -> tuple[list[Compared], list[str]]:
    """Ask plainly and by each method in turn; returns figures, and lines that say what is left out."""
    with serving_regard(load.artifact.parents[1]) as serving, Client(serving.address, timeout=600) as client:
        methods, left_out = find_methods(client, load)
        asked: dict[str, RelevanceRequest | None] = {_PLAIN: None, **methods}
        return [one for batch in BATCHES for one in _compare(serving, client, load, asked, batch, rounds)], left_out


def _compare(
    serving: Serving,
    client: Client,
    load: Load,
    asked: dict[str, RelevanceRequest | None],
    batch: int,
    rounds: int,
) -> Iterator[Compared]:
    inputs = {kind: values * batch for kind, values in load.inputs.items()}
    taken, spent = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for number in range(rounds + 1):
        for method in list(asked) if number % 2 else reversed(list(asked)):
            calls = 1 if method == _MANY_POINTS else max(1, _INPUTS // batch)
            before, began = serving.cpu_seconds, time.perf_counter()
            for _ in range(calls):
                list(client.classify_many(**inputs, model=load.name, relevance=asked[method]))  # raises any error
            if number:  # the first round warms up
                taken[method].append(1e3 * (time.perf_counter() - began) / calls)
                spent[method].append(1e3 * (serving.cpu_seconds - before) / calls)
    for method in asked:
        if method != _PLAIN:
            target, what = None if method == _MANY_POINTS else _COST, f"{method}, {batch} a call, to plain"
            yield compare(load.name, what, [(taken[method], taken[_PLAIN])], "ms", target)
            yield compare(load.name, f"{what}, CPU of the server", [(spent[method], spent[_PLAIN])], "ms")
