"""Plain requests of a server that has relevance graphs, beside those of one of the same model without them.

A second server without them is the control: what its ratio to the first differs from 1 is not relevance, but what the
machine does to two servers that are alike. All are started anew several times, each time in another order.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from artifact.contract import CONTRACT_FILE, read_contract
from bench.generator import GeneratorError, Measured, frame, generate
from bench.relevance.loads import Load
from bench.relevance.ratios import Compared, Target, compare
from bench.servers import Serving, serving_regard
from bench.workloads import make_requests

_WITH, _WITHOUT, _CONTROL = "with relevance graphs", "without", "another without"
KINDS = (_WITH, _WITHOUT, _CONTROL)
_CALLERS, _ANSWER_BYTES = 8, 200
_KEPT = Target(0.98, is_most=False)


def measure_plain(load: Load, starts: int, rounds: int, seconds: float) -> list[Compared]:
    """Ask all servers in turn, in many short rounds.

    Raises:
        GeneratorError: h2load is not there, or a request failed.
    """
    rates: list[dict[str, list[float]]] = []
    costs: list[dict[str, list[float]]] = []
    bodies = [frame(one.SerializeToString()) for one in make_requests(load.name, load.size, "none")]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {kind: _publish(load.artifact, Path(scratch) / kind, kind) for kind in KINDS}
        for start in range(starts):
            rates.append({kind: [] for kind in KINDS})
            costs.append({kind: [] for kind in KINDS})
            with ExitStack() as stack:
                servers = {kind: stack.enter_context(serving_regard(folders[kind])) for kind in in_turn(start)}
                for number in range(-1, rounds):
                    for kind in in_turn(start + number):
                        rate, cost = _ask(servers[kind], bodies, seconds, f"{load.name}, {kind}")
                        if number >= 0:  # the first round warms up
                            rates[-1][kind].append(rate)
                            costs[-1][kind].append(cost)
    return [
        compare(load.name, f"plain, {kind}, to {_WITHOUT}", _pairs(rates, kind), "requests/s", target)
        for kind, target in ((_WITH, _KEPT), (_CONTROL, None))
    ] + [
        compare(load.name, f"plain, {kind}, to {_WITHOUT}, CPU of the server", _pairs(costs, kind), "ms")
        for kind in (_WITH, _CONTROL)
    ]


def in_turn(number: int, kinds: tuple[str, ...] = KINDS) -> tuple[str, ...]:
    """Each kind is first as often as the others; of three, every order comes as often, so each follows each other."""
    first = number % len(kinds)
    turned = kinds[first:] + kinds[:first]
    return turned if number // len(kinds) % 2 else turned[::-1]


def check(measured: Measured, what: str) -> Measured:
    """Let no rate pass of which requests failed: a refusal is quicker than an answer.

    Raises:
        GeneratorError: A request failed, or none was answered.
    """
    if measured.errors or not measured.answered:
        raise GeneratorError(f"{what}: {measured.errors} of {measured.errors + measured.answered} requests failed")
    return measured


def strip(artifact: Path) -> None:
    """Leave the relevance graphs of an artifact out of its contract and its folder."""
    contract = read_contract(artifact / CONTRACT_FILE)
    files = {name: digest for name, digest in contract.files.items() if not name.startswith("relevance")}
    for name in contract.files.keys() - files.keys():
        (artifact / name).unlink()
    left = {"files": files, "relevance": None, "other_relevance": ()}
    (artifact / CONTRACT_FILE).write_text(contract.model_copy(update=left).model_dump_json())


def _publish(artifact: Path, folder: Path, kind: str) -> Path:
    target = folder / artifact.parent.name / artifact.name
    shutil.copytree(artifact, target)
    if kind != _WITH:
        strip(target)
    return folder


def _ask(serving: Serving, bodies: Sequence[bytes], seconds: float, what: str) -> tuple[float, float]:
    """Requests a second, and milliseconds of CPU each."""
    before = serving.cpu_seconds
    found = check(generate(serving.target, bodies, _CALLERS, seconds, _ANSWER_BYTES, warm_up_seconds=0), what)
    return found.per_second, 1e3 * (serving.cpu_seconds - before) / found.answered


def _pairs(
    figures: Sequence[Mapping[str, Sequence[float]]], kind: str
) -> list[tuple[Sequence[float], Sequence[float]]]:
    return [(start[kind], start[_WITHOUT]) for start in figures]
