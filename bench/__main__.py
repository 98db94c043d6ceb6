"""Measures regard beside its peers and ONNX Runtime alone: `python -m bench`; everything in one run, round by round."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.generator import GeneratorError, Target, frame, generate
from bench.open_loop import Measurement, measure_alone, measure_peer_at_rates, measure_regard_at_rates
from bench.peers import PEERS, Peer, PeerError, install, request_body
from bench.programs import run
from bench.report import make_page, make_sections, print_tables, save_pictures
from bench.servers import Serving, only, serving_other, serving_regard
from bench.targets import CANCELLED, LIMIT, SERVERS, SOAK, TRANSPORTS, Figures, load_name
from bench.trivial import measure_trivial
from bench.workloads import GROWTH, IMAGES, TEXT, WORKLOADS, Workload, make_inputs, make_jpeg_request, make_requests

CPUS = len(os.sched_getaffinity(0))
SOAK_FIGURES, PEERS_FOLDER = Path("build/soak.json"), Path("build/peers")
# float32, 384 wide.
_ANSWER_BYTES = 1536
_SHOWN = {"none": "plain", "cls": "with the last layer's CLS row", "all": "with all attention", "jpeg": "as JPEG"}
# What there is to measure, in the order of a round; the help says how long they take. "growth" comes with --growth.
PARTS = ("trivial", "text", "open", "cancelled", "mixed", "images")

console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)


def main() -> None:
    """Measure, print tables, write the figures as JSON, and a page with pictures."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=3, help="each has every server once; 3 by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement; 3 by default")
    parser.add_argument(
        "--peers", default=",".join(peer.name for peer in PEERS), help="which, separated by commas; all by default"
    )
    parser.add_argument(
        "--only",
        type=parts,
        default=PARTS,
        metavar="PART,PART",
        help="measure these alone: trivial (16 floats in and out, with CPU a call), text (MiniLM, 16 tokens), open "
        "(MiniLM at shares of each server's peak), cancelled, mixed (4 to 128 tokens), images; all by default. With "
        "all peers and 3 s a measurement a round of trivial takes about 70 s, one of open 220 s",
    )
    parser.add_argument("--growth", action="store_true", help="longer texts, too")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--page", type=Path, help="write a page of the documentation, with pictures beside it")
    parser.add_argument("--sections", type=Path, help="write the tables as sections of such a page, to be pasted")
    args = parser.parse_args()
    wanted = (*args.only, "growth") if args.growth else args.only
    whole = set(wanted) >= set(PARTS)
    if args.page and not whole:
        parser.error("--page writes a page of all parts; with --only expected --sections")
    if unknown := set(args.peers.split(",")) - {"", *(peer.name for peer in PEERS)}:
        parser.error(f"--peers: {min(unknown)!r}; expected some of {', '.join(peer.name for peer in PEERS)}")
    if missing := [name for name in models_of(wanted) if not newest_graph(args.models, name)]:
        parser.exit(1, f"{args.models}/{missing[0]} is not there: make demo exports it\n")
    figures: Figures = {}
    peers, failures = prepare_peers([peer for peer in PEERS if peer.name in args.peers.split(",")])
    try:
        for number in range(args.rounds):
            console.print(f"round {number + 1} of {args.rounds}")
            for title, who, figure in measure(args.models, wanted, peers, failures, args.seconds):
                figures.setdefault(title, {}).setdefault(who, []).append(figure)
    except (GeneratorError, PeerError) as error:
        parser.exit(1, f"{error}\n")
    if whole and SOAK_FIGURES.exists():
        figures[SOAK] = {"regard": [json.loads(SOAK_FIGURES.read_text())]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run_of = {"cpus": CPUS, "rounds": args.rounds, "seconds": args.seconds}
    args.out.write_text(json.dumps({"run": run_of, "figures": figures, "failures": failures}, indent=2) + "\n")
    print_tables(figures, failures, console)
    if args.page:
        args.page.write_text(make_page(figures, failures, run_of))
        save_pictures(figures, args.page.parent)
    if args.sections:
        args.sections.write_text(make_sections(figures, failures, run_of))
    console.print(f"written to {args.out}")


def parts(given: str) -> tuple[str, ...]:
    """Read --only.

    Raises:
        ArgumentTypeError: One of them does not exist.
    """
    names = tuple(given.split(","))
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; expected some of {', '.join(PARTS)}, with commas between")
    return names


def models_of(wanted: Collection[str]) -> dict[str, list[Workload]]:
    """Models that some parts need, in the order of measuring, with their workloads."""
    models: dict[str, list[Workload]] = {}
    if {"open", "cancelled"} & set(wanted):
        models[TEXT.model] = []
    for work in (*WORKLOADS, *GROWTH):
        if work.part in wanted:
            models.setdefault(work.model, []).append(work)
    return models


def prepare_peers(wanted: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    """Install peers; returns those that are there, and why others are not."""
    ready, failures = [], {}
    for peer in wanted:
        try:
            install(peer, PEERS_FOLDER)
            ready.append(peer)
        except PeerError as error:
            failures[peer.name] = str(error)
    return ready, failures


def newest_graph(models: Path, name: str) -> Path | None:
    """The plain graph of the newest version of a model."""
    graphs = sorted(models.glob(f"{name}/*/model.onnx"), key=lambda path: int(path.parent.name))
    return graphs[-1] if graphs else None


def measure(
    models: Path, wanted: Collection[str], peers: Sequence[Peer], failures: dict[str, str], seconds: float
) -> Iterator[Measurement]:
    """One round; yields where a figure belongs, whose it is, and the figure."""
    if "trivial" in wanted:
        yield from measure_trivial(peers, PEERS_FOLDER, failures, CPUS, seconds)
    for name, own in models_of(wanted).items():
        at_rates = name == TEXT.model and "open" in wanted
        graph = newest_graph(models, name)
        assert graph  # noqa: S101 -- checked by main
        for work in own:
            yield from measure_limit(work, graph, seconds)
        with only(models, name) as folder:
            if own:
                for regard, transport in TRANSPORTS.items():
                    yield from measure_regard(own, folder, seconds, regard, transport)
            if TEXT in own:
                yield from measure_without_attention(folder, name, seconds)
            if at_rates:
                yield from measure_alone(graph, CPUS)
                for regard, transport in TRANSPORTS.items():
                    yield from measure_regard_at_rates(folder, seconds, regard, transport)
            if name == TEXT.model and "cancelled" in wanted:
                yield from measure_cancelled(folder)
        for peer in peers if at_rates or any(work.peer_callers for work in own) else ():
            try:
                yield from measure_peer(peer, name, own, graph, seconds, at_rates=at_rates)
            except PeerError as error:
                failures[peer.name] = str(error)


def measure_limit(work: Workload, graph: Path, seconds: float) -> Iterator[Measurement]:
    """ONNX Runtime alone, in every way."""
    ways = (
        (CPUS, 1, 1, "one run at a time, spinning"),
        (CPUS, 1, 0, "one run at a time, not spinning"),
        (1, CPUS, 0, "one run a CPU"),
    )
    for batch in work.batches:
        for threads, instances, spin, shown in ways:
            options = {"batch": batch, "size": work.size, "seconds": seconds / 2}
            options |= {"threads": threads, "instances": instances, "spin": spin}
            per_second = json.loads(run("bench.limit", str(graph), options))["per_second"]
            yield work.title, f"{LIMIT}, batch {batch}, {shown}", {"per_second": per_second}


def measure_regard(
    works: Sequence[Workload], folder: Path, seconds: float, regard: str, transport: str
) -> Iterator[Measurement]:
    """Under every load of its workloads; then its memory."""
    with serving_regard(folder, "--transport", transport) as serving:
        for work in works:
            for callers, asked in work.loads:
                target = serving.embed if asked == "jpeg" else serving.target
                figure = ask(target, regard_bodies(work, asked), callers, seconds)
                yield work.title, f"{regard}, {load_name(callers, _SHOWN[asked])}", figure
        weights_mb = sum(path.stat().st_size for path in folder.glob("*/*/weights.bin")) / 1e6
        yield SERVERS, f"{regard}, {works[0].model}", describe(serving) | {"weights_mb": weights_mb}


def measure_without_attention(folder: Path, name: str, seconds: float) -> Iterator[Measurement]:
    """The same model as an artifact that has no attention."""
    with tempfile.TemporaryDirectory() as stripped:
        target = Path(stripped) / name
        shutil.copytree((folder / name).resolve(), target)
        for path in target.glob("*/contract.json"):
            contract = json.loads(path.read_text())
            del contract["files"]["attention.onnx"]
            path.write_text(json.dumps(contract | {"attention": []}))
        with serving_regard(Path(stripped)) as serving:
            figure = ask(serving.target, regard_bodies(TEXT, "none"), 32, seconds)
            yield TEXT.title, f"regard, {load_name(32, 'artifact without attention')}", figure


def measure_cancelled(folder: Path) -> Iterator[Measurement]:
    """Callers who hang up while they wait."""
    with serving_regard(folder) as serving:
        yield CANCELLED, "regard", json.loads(run("bench.cancelling", serving.address, {}, serving.metrics))


def measure_peer(
    peer: Peer, model: str, works: Sequence[Workload], graph: Path, seconds: float, *, at_rates: bool
) -> Iterator[Measurement]:
    """One peer under the loads of its workloads; then its memory, and its latency at rates."""
    kind = "image" if model == IMAGES.model else "text"
    python = install(peer, PEERS_FOLDER)
    with serving_other(peer, PEERS_FOLDER, graph, kind, CPUS) as serving:
        for work in works:
            for callers in work.peer_callers:
                bodies = [request_body(peer, python, inputs) for inputs in make_inputs(work.size)]
                yield work.title, f"{peer.name}, {load_name(callers)}", ask(serving.target, bodies, callers, seconds)
        if works:
            yield SERVERS, f"{peer.name}, {model}", describe(serving)
        if at_rates:
            yield from measure_peer_at_rates(peer, PEERS_FOLDER, serving, seconds)


def regard_bodies(work: Workload, asked: str) -> list[bytes]:
    """What callers send to regard."""
    if asked == "jpeg":
        return [frame(make_jpeg_request(work.model).SerializeToString())]
    return [frame(request.SerializeToString()) for request in make_requests(work.model, work.size, asked)]


def ask(target: Target, bodies: Sequence[bytes], callers: int, seconds: float) -> dict[str, Any]:
    """Let callers ask; returns what they saw."""
    return asdict(generate(target, bodies, callers, seconds, _ANSWER_BYTES))


def describe(serving: Serving) -> dict[str, Any]:
    """What a server takes."""
    pss_mb, rss_mb = serving.memory_mb
    return {"ready_seconds": serving.seconds_to_ready, "pss_mb": pss_mb, "rss_mb": rss_mb}


if __name__ == "__main__":
    main()
