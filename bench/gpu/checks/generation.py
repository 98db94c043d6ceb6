"""Whether an encoder-decoder writes on the device what it writes on the CPU, its caches included."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH, PLAIN_GRAPH
from artifact.dtypes import Array
from artifact.generation import GenerationContract
from bench.gpu.checks.parity import ways_of
from bench.gpu.engines import make_decoder, make_graph
from bench.gpu.forms import refused
from bench.gpu.inputs import apart, make_inputs
from bench.gpu.limits import FLOAT32
from bench.gpu.rows import Row, at_most, guarded, judged, measured, skipped
from bench.gpu.setting import PLAIN_CPU, Part, Setting
from server.engine.decoder import Decoder
from server.engine.device import Device
from server.errors import first_line
from server.generation.caches import Caches

_ROWS, _LENGTH, _STEPS = 4, 9, 12
_SAME_OTHERWISE = 0.9  # than in float32: two tokens may be as likely as each other


@dataclass
class Written:
    """What was written: logits of every step [rows, V], tokens [rows], and seconds of each step but the first."""

    logits: list[Array] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def check(setting: Setting) -> Iterator[Row]:
    """Compare every encoder-decoder, in each form of its step."""
    device, parts = setting.choose(), [part for part in setting.parts() if part.contract.generation]
    if not parts:
        yield skipped("all of it", "no artifact writes")
    for part in parts:
        yield from guarded(part.name, compare(part, device, setting))


def compare(part: Part, device: Device, setting: Setting) -> Iterator[Row]:
    """Let the CPU write; let the device read the same tokens step by step, in both forms."""
    contract, generation = part.contract, part.contract.generation
    assert generation is not None  # noqa: S101 -- those without were left out
    sources = source_of(part, PLAIN_CPU, generation)
    expected = write(make_decoder(part.folder / DECODER_GRAPH, generation, PLAIN_CPU), sources)
    for way, (chosen, limit) in ways_of(contract, device).items():
        for graph in (name for name in (DECODER_GRAPH, LOWERED_DECODER_GRAPH) if name in contract.files):
            name, least = f"{part.name}/{graph}{way}", 1.0 if limit <= FLOAT32 else _SAME_OTHERWISE
            if setting.seconds_left < 0:
                yield skipped(name, "the time is up")
                continue
            try:
                decoder = make_decoder(part.folder / graph, generation, chosen)
                found = write(decoder, source_of(part, chosen, generation), expected.tokens)
            except Exception as error:  # ONNX Runtime's exceptions have no common base
                yield refused(name, graph, contract, first_line(error))
            else:
                yield from judge(name, found, expected, limit, least)


def judge(name: str, found: Written, expected: Written, limit: float, least: float) -> Iterator[Row]:
    """Compare what was written."""
    distance = max(apart(one, other) for one, other in zip(found.logits, expected.logits, strict=True))
    yield at_most(f"{name}, logits", distance, limit)
    same = float(np.mean([one == other for one, other in zip(found.tokens, expected.tokens, strict=True)]))
    yield judged(f"{name}, steps with the same tokens", f"{same:.0%}", f"at least {least:.0%}", ok=same >= least)
    yield measured(f"{name}, a step of {_ROWS} rows", f"{np.median(found.seconds) * 1e3:.2f} ms")


def source_of(part: Part, device: Device, generation: GenerationContract) -> list[Array]:
    """Run the encoder; keys and values of the source, each float32 [rows, heads, S, d]."""
    graph, names = make_graph(part.folder / PLAIN_GRAPH, device), list(generation.source_names)
    inputs = make_inputs(part.contract, _ROWS, generation.source_positions or _LENGTH)
    for spec in part.contract.inputs:  # a row of a batch is as long as its longest, which padding would make shorter
        if spec.mask:
            inputs[spec.name][:] = 1
    found = graph.run(inputs, names)
    return [np.asarray(found[name]) for name in names]


def write(decoder: Decoder, sources: Sequence[Array], tokens: Sequence[list[int]] = ()) -> Written:
    """Write some tokens greedily; each step reads the tokens given, or those that it wrote."""
    generation = decoder.generation
    caches, written = Caches(decoder, generation), Written()
    for row in range(_ROWS):
        caches.add([array[row : row + 1] for array in sources], 1)
        caches.set_token(row, next(iter(generation.starts.values()))[0])
    for number in range(min(_STEPS, generation.max_tokens)):
        began = time.perf_counter()
        logits = caches.step().copy()
        if number:
            written.seconds.append(time.perf_counter() - began)
        written.logits.append(logits)
        written.tokens.append([int(token) for token in logits.argmax(axis=1)])
        for row, token in enumerate(tokens[number] if tokens else written.tokens[-1]):
            caches.set_token(row, token)
    return written
