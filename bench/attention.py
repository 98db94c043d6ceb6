"""What attention costs: `python -m bench.attention` asks for more and more of it, beside two servers to compare with.

One serves the same model without attention; the other the usual way to have attention, a graph that returns every
layer to everyone. All three are regard, so that nothing but the attention differs.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import onnx

from bench.__main__ import newest_graph
from bench.generator import frame, generate
from bench.servers import Serving, serving_regard
from bench.workloads import make_requests
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub

_CAPABLE, _WITHOUT, _USUAL = "capable", "without", "usual"
_FLOAT16, _UINT8 = pb.DATA_TYPE_FLOAT16, pb.DATA_TYPE_UINT8
_ROLLOUT, _CONTRIBUTIONS = pb.ATTENTION_MEASURE_ROLLOUT, pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT
_PLAIN, _EVERY_LAYER = "nothing, attention-capable server", "every layer, float32"
# What is asked, of which server, and how much attention.
_ASKED: dict[str, tuple[str, pb.AttentionRequest | None]] = {
    "nothing, server without attention": (_WITHOUT, None),
    _PLAIN: (_CAPABLE, None),
    "last layer, CLS row": (_CAPABLE, pb.AttentionRequest(layers=[-1], cls_only=True)),
    "rollout, CLS row": (_CAPABLE, pb.AttentionRequest(measure=_ROLLOUT, cls_only=True)),
    "rollout, all rows": (_CAPABLE, pb.AttentionRequest(measure=_ROLLOUT)),
    "contribution rollout, CLS row": (_CAPABLE, pb.AttentionRequest(measure=_CONTRIBUTIONS, cls_only=True)),
    "entropy of every head": (_CAPABLE, pb.AttentionRequest(measure=pb.ATTENTION_MEASURE_ENTROPY)),
    "last layer, all heads": (_CAPABLE, pb.AttentionRequest(layers=[-1])),
    "every layer, uint8": (_CAPABLE, pb.AttentionRequest(dtype=_UINT8)),
    "every layer, float16": (_CAPABLE, pb.AttentionRequest(dtype=_FLOAT16)),
    _EVERY_LAYER: (_CAPABLE, pb.AttentionRequest()),
    "the usual way: every layer is an output": (_USUAL, None),
}


@dataclass(frozen=True)
class Load:
    """A model, what is sent to it, and by how many callers."""

    model: str
    title: str
    size: str
    callers: int


_LOADS = (
    Load("minilm", "MiniLM, 16 tokens", "16", 32),
    Load("minilm", "MiniLM, 128 tokens", "128", 8),
    Load("vit-s14", "ViT-S/14, 224 pixels", "224px", 8),
)


def main() -> None:
    """Print a table for each model, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m bench.attention", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for load in _LOADS:
        graph = newest_graph(args.models, load.model)
        if graph is None:
            parser.exit(1, f"{args.models}/{load.model} is not there: make demo exports it\n")
        print("\n".join(measure(graph.parent, load, args.seconds, args.rounds)), flush=True)


def measure(artifact: Path, load: Load, seconds: float, rounds: int) -> list[str]:
    """Ask all three servers in turn, several times; one of them works at a time."""
    rates, sizes, peaks = defaultdict[str, list[float]](list), dict[str, int](), dict[str, float]()
    medians, errors = defaultdict[str, list[float]](list), defaultdict[str, int](int)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        publish(artifact, Path(name), load.model)
        servers = {kind: stack.enter_context(serving_regard(Path(name, kind))) for kind in (_CAPABLE, _WITHOUT, _USUAL)}
        held = {kind: serving.memory_mb[0] for kind, serving in servers.items()}
        for _ in range(rounds):
            for asked, (kind, attention) in _ASKED.items():
                request = make_request(load, attention, all_outputs=kind == _USUAL)
                sizes[asked] = answer_bytes(servers[kind], request)
                forget_peak(servers[kind])
                body = frame(request.SerializeToString())
                found = generate(servers[kind].target, [body], load.callers, seconds, sizes[asked] // 2)
                errors[asked] += found.errors
                rates[asked].append(found.per_second)
                medians[asked].append(found.p50_ms)
                peaks[asked] = max(peaks.get(asked, 0), peak_mb(servers[kind]))
    plain, usual = rates[_PLAIN], rates["the usual way: every layer is an output"]
    lines = [f"\n**{load.title}, {load.callers} callers**\n"]
    lines += ["| asked | requests/s | of plain | of the usual way | p50 ms | answer, bytes | peak MB | errors |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for asked, found_rates in rates.items():
        of_plain, of_usual = (
            statistics.median(a / b for a, b in zip(found_rates, others, strict=True)) for others in (plain, usual)
        )
        cells = (f"{statistics.median(found_rates):.1f}", f"{of_plain:.2f}", f"{of_usual:.2f}")
        more = (
            f"{statistics.median(medians[asked]):.1f}",
            f"{sizes[asked]:,}",
            f"{peaks[asked]:.0f}",
            f"{errors[asked]}",
        )
        lines.append(f"| {asked} | {' | '.join((*cells, *more))} |")
    weights_mb = (artifact / "weights.bin").stat().st_size / 1e6
    more_mb = held[_CAPABLE] - held[_WITHOUT]
    lines.append(
        f"\nReady and not yet asked, the attention-capable server holds {held[_CAPABLE]:.0f} MB (proportional set), "
        f"the one without {held[_WITHOUT]:.0f} MB: {more_mb:.1f} MB more, {100 * more_mb / weights_mb:.0f} % of the "
        f"weights' {weights_mb:.0f} MB."
    )
    return lines


def publish(artifact: Path, folder: Path, model: str) -> None:
    """Make three models folders: as it is, without attention, and with all attention as ordinary outputs."""
    contract = json.loads((artifact / "contract.json").read_text()) | {"version": 1}
    for kind in (_CAPABLE, _WITHOUT, _USUAL):
        target = folder / kind / model / "1"
        target.mkdir(parents=True)
        for path in artifact.iterdir():
            shutil.copyfile(path, target / path.name)
        (target / "contract.json").unlink()
    graphs = ("attention.onnx", "attention.lowered.onnx", "contributions.onnx")
    files = {name: digest for name, digest in contract["files"].items() if name not in graphs}
    plain = contract | {"attention": [], "files": files}
    (folder / _CAPABLE / model / "1" / "contract.json").write_text(json.dumps(contract))
    (folder / _WITHOUT / model / "1" / "contract.json").write_text(json.dumps(plain))
    graph = folder / _USUAL / model / "1" / "model.onnx"
    graph.unlink()
    graph.with_name("attention.onnx").unlink()
    onnx.save_model(without_norms(onnx.load(artifact / "attention.onnx", load_external_data=False)), graph)
    described = [
        {"name": one["output"], "dtype": "float32", "axes": ["batch", one["num_heads"], "seq_len", "seq_len"]}
        for one in contract["attention"]
    ]
    if not contract["text"]:
        positions = contract["patches"]["prefix_tokens"] + contract["patches"]["rows"] * contract["patches"]["cols"]
        described = [one | {"axes": [*one["axes"][:2], positions, positions]} for one in described]
    files = {name: digest for name, digest in files.items() if name != "model.onnx"}
    always = plain | {"outputs": [*contract["outputs"], *described], "files": files}
    graph.with_name("contract.json").write_text(json.dumps(always))


def without_norms(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Leave attention alone as further outputs, with what only the norms of values need."""
    kept = [value for value in graph.graph.output if not value.name.startswith("value_norms.")]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    while True:
        wanted = {name for node in graph.graph.node for name in node.input} | {value.name for value in kept}
        dead = [node for node in graph.graph.node if not wanted & set(node.output)]
        if not dead:
            return graph
        for node in dead:
            graph.graph.node.remove(node)


def make_request(load: Load, attention: pb.AttentionRequest | None, *, all_outputs: bool) -> api.PredictRequest:
    """Ask for the embedding and some attention, or for every output there is."""
    request = make_requests(load.model, load.size, "none")[0]
    if attention is not None:
        request.attention.CopyFrom(attention)
    if all_outputs:
        del request.outputs[:]
    return request


def answer_bytes(serving: Serving, request: api.PredictRequest) -> int:
    """Size of an answer."""
    with grpc.insecure_channel(serving.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return int(RegardServiceStub(channel).Predict(request).ByteSize())


def forget_peak(serving: Serving) -> None:
    """Let Linux count the largest resident set size anew; see proc(5), clear_refs."""
    Path("/proc", str(serving.pid), "clear_refs").write_text("5")


def peak_mb(serving: Serving) -> float:
    """Largest resident set size since forget_peak, in megabytes."""
    lines = Path("/proc", str(serving.pid), "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
