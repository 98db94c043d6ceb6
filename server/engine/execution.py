"""How runs without attention are executed on a GPU: as was asked for, or as a measurement at warm-up chose.

Attention, contributions and hidden states stay on the device for their callers, so their graphs run through bound
buffers whatever is chosen: it concerns the plain graph.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from artifact.contract import SEQUENCE_AXIS, Contract
from artifact.files import hash_file
from server.engine.cuda_graphs import CapturedRuns, Shape, reasons_against, varies
from server.engine.device import CUDA, TENSORRT, Device, with_options
from server.engine.device_memory import check_room
from server.engine.device_ops import measures_on
from server.engine.examples import example, varied_example
from server.engine.io_binding import BoundSession, Runs
from server.engine.session import Graph, load_session
from server.errors import StartError, first_line

Way = Literal["auto", "unbound", "bound", "cuda_graphs", "tensorrt"]
Precision = Literal["float32", "tf32", "float16", "bfloat16"]

DIFFERS = "gives answers that differ"
_FASTER = 0.95  # of the other's time: less may be chance
_RUNS, _MEASURING_SECONDS = 10, 0.1
_MEASURED = ((1, 16), (8, 64))  # rows, positions
# How far answers may be from those of bound buffers, of their largest number. TF32 keeps 10 bits of each factor, as
# float16 does, bfloat16 7; int8 rounds what differs by less to other numbers.
_APART = {"float32": 2e-2, "tf32": 2e-2, "float16": 2e-2, "bfloat16": 1e-1, "int8": 1e-1}


@dataclass(frozen=True)
class Execution:
    """What an operator wants of runs without attention.

    Attributes:
        way: Through memory made for each run (unbound), through kept buffers (bound), with CUDA graphs for small
            batches and else bound, or by TensorRT; auto takes what is fastest.
        precision: What float32 is multiplied in: itself, TF32, or by TensorRT a half precision. It changes answers, so
            no measurement chooses it.
        graph_rows: Rows of the shapes that are captured as CUDA graphs.
        graph_tokens: Their positions, where these vary; what is longer than the contract allows is as long as that.
        tensorrt_cache: Folder where TensorRT's engines are kept; None builds them at every load.
        max_rows: Most rows of a batch.
    """

    way: Way = "auto"
    precision: Precision = "tf32"
    graph_rows: tuple[int, ...] = (1, 2, 4, 8)
    graph_tokens: tuple[int, ...] = (16, 32, 64, 128)
    tensorrt_cache: Path | None = None
    max_rows: int = 32


DEFAULT_EXECUTION = Execution()


def check_execution(folder: Path, wanted: Execution, device: Device) -> None:
    """Refuse what a device cannot do, or what contradicts itself.

    Raises:
        StartError: Names the setting, its value and what was expected.
    """
    way, precision = wanted.way, wanted.precision
    if precision in ("float16", "bfloat16") and way != "tensorrt":
        expected = 'float32, tf32, execution = "tensorrt", or an artifact that was exported so'
        raise _refusal(folder, "precision", precision, f"TensorRT alone makes that of float32, not {way}", expected)
    if not device.bound and way not in ("auto", "unbound"):
        expected = "auto or unbound, or --device cuda"
        raise _refusal(folder, "execution", way, f"{device.name} reads its caller's memory in place", expected)


def choose(path: Path, contract: Contract, devices: Sequence[Device], graph: Graph, wanted: Execution) -> str:
    """Let an artifact's plain graph run as is wanted.

    Args:
        path: The graph's.
        contract: Of the artifact.
        devices: Those of the graph; where they have no bound buffers there is no choice.
        graph: It runs through bound buffers.
        wanted: The way, or that it is to be measured.

    Returns:
        What was measured and what that chose, in words; empty where nothing was.

    Raises:
        StartError: What was asked for cannot be had; names the setting, its value and what was expected.
    """
    if not devices[0].bound:
        return ""
    choice = _Choice(path, contract, devices, graph, wanted)
    if wanted.way == "auto":
        return "; ".join(choice.measure())
    choice.take(wanted.way)
    return ""


def _refusal(path: Path, setting: str, value: str, why: str, expected: str) -> StartError:
    return StartError(f"{path}: {setting}: {value}: {why}; expected {expected}")


class _Choice:
    """The ways to run an artifact's plain graph, and the choice among them."""

    def __init__(
        self, path: Path, contract: Contract, devices: Sequence[Device], graph: Graph, wanted: Execution
    ) -> None:
        self._path, self._contract, self._devices = path, contract, devices
        self._graph, self._wanted, self._bound = graph, wanted, graph.runs
        self._names = [spec.name for spec in contract.outputs]

    def take(self, way: Way) -> None:
        """Let the graph run so.

        Raises:
            StartError: It cannot.
        """
        try:
            self._graph.runs = self._make(way)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise _refusal(self._path, "execution", way, self._reason(error), "auto, or another way") from error

    def _reason(self, error: Exception) -> str:
        return first_line(error).removeprefix(f"{self._path}: ")

    def _make(self, way: Way) -> Sequence[Runs]:
        if way == "cuda_graphs":
            return self._capture(self._bound)
        if way == "tensorrt":
            return self._make_tensorrt()
        return self._graph.unbound() if way == "unbound" else self._bound

    def measure(self) -> Iterator[str]:
        """Let the graph run in the fastest way; yields what was found, in words.

        Raises:
            StartError: It can run in none.
        """
        sizes = [(min(rows, self._wanted.max_rows), self._clip(length)) for rows, length in _MEASURED]
        made, seconds, lacking = dict[Way, Sequence[Runs]](), dict[Way, float](), dict[Way, str]()
        ways: tuple[Way, ...] = ("bound", "unbound", "tensorrt")
        for way in ways:
            try:
                if way == "tensorrt" and self._wanted.tensorrt_cache is None:
                    raise StartError("without --tensorrt-cache its engine would be built at every load")
                made[way] = self._make(way)
                seconds[way] = sum(self._seconds(made[way][0], size) for size in sizes)
            except Exception as error:  # ONNX Runtime's exceptions have no common base
                lacking[way] = self._reason(error)
                yield f"{way} is not to be had: {lacking[way]}"
        if not seconds:
            raise _refusal(self._path, "execution", "auto", lacking["bound"], "a graph that this device can run")
        fastest = min(seconds, key=lambda way: seconds[way])
        taken = fastest if seconds[fastest] < _FASTER * seconds.get("bound", math.inf) else "bound"
        self._graph.runs = made[taken]
        found = ", ".join(f"{way} {1e3 * each:.3f} ms" for way, each in seconds.items())
        yield f"{taken} is taken, runs of {' and '.join(map(_show, sizes))} take {found}"
        yield self._measure_shapes(made[taken])

    def _measure_shapes(self, otherwise: Sequence[Runs]) -> str:
        """Keep the shapes whose replay is faster even for the smallest batch that is padded to them."""
        try:
            captured = self._capture(otherwise)
            seconds = {
                shape: tuple(self._seconds(runs, self._smallest(shape)) for runs in (captured[0], otherwise[0]))
                for shape in captured[0].shapes
            }
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            return f"cuda_graphs are not to be had: {self._reason(error)}"
        kept = [shape for shape, (replayed, plain) in seconds.items() if replayed < _FASTER * plain]
        if not kept:
            return f"cuda_graphs are faster for none of {', '.join(map(_show, seconds))}"
        for one in captured:
            one.keep(kept)
        self._graph.runs = captured
        found = (f"{_show(one)} {1e3 * seconds[one][0]:.3f} instead of {1e3 * seconds[one][1]:.3f} ms" for one in kept)
        return f"cuda_graphs are taken for {len(kept)} of {len(seconds)} shapes: {', '.join(found)}"

    def _capture(self, otherwise: Sequence[Runs]) -> list[CapturedRuns]:
        """Capture every shape on every device, and compare what it gives."""
        device = self._devices[0]
        if why := reasons_against(self._contract):
            raise StartError(why)
        if device.gpu is not None and device.providers[0][0] != CUDA:
            raise StartError(f"{device.name} has graphs of its own; expected --device cuda")
        check_room(self._path.parent, [self._path.name], self._devices)
        made = dict[Device, CapturedRuns]()
        for device, other in zip(self._devices, otherwise, strict=True):
            if device not in made:
                session = load_session(self._path, with_options(device, enable_cuda_graph=1), 1, spin=False)
                runs = made[device] = CapturedRuns(session, device.place, self._contract, other)
                for shape in self._shapes():
                    runs.capture(shape, example(self._contract, *shape))
                for shape in runs.shapes:
                    self._check(_show(shape), runs, self._smallest(shape))
        return [made[device] for device in self._devices]

    def _make_tensorrt(self) -> list[Runs]:
        """Build the engine on every device, or read it from the cache, and compare what it gives."""
        made = dict[Device, BoundSession]()
        for device in dict.fromkeys(self._devices):
            session = load_session(self._path, self._with_tensorrt(device), 1, spin=False)
            runs = made[device] = BoundSession(session, measures_on(device))
            for rows, length in _MEASURED:
                self._check("tensorrt", runs, (min(rows, self._wanted.max_rows), self._clip(length)))
        return [made[device] for device in self._devices]

    def _with_tensorrt(self, device: Device) -> Device:
        """Return a device with TensorRT before CUDA, whose engine takes all shapes of the contract."""
        precision, cache = self._wanted.precision, self._wanted.tensorrt_cache
        if device.gpu is None:
            raise StartError(f"{device.name} is no NVIDIA GPU")
        if precision == "float32":
            raise StartError("it multiplies float32 as TF32; expected precision tf32, float16 or bfloat16")
        options: dict[str, object] = {"device_id": device.gpu, **self._profile()}
        options |= {"trt_fp16_enable": 1} if precision == "float16" else {}
        options |= {"trt_bf16_enable": 1} if precision == "bfloat16" else {}
        if cache is not None:
            place = cache / self._digest(options)
            place.mkdir(parents=True, exist_ok=True)
            options |= {"trt_engine_cache_enable": 1, "trt_engine_cache_path": str(place)}
            options |= {"trt_timing_cache_enable": 1, "trt_timing_cache_path": str(place)}
        others = tuple(one for one in device.providers if one[0] != TENSORRT)
        return replace(device, providers=((TENSORRT, options), *others))

    def _profile(self) -> dict[str, str]:
        """Say between which shapes the inputs are: beyond them an engine is built anew while its caller waits."""
        if why := reasons_against(self._contract):
            raise StartError(why)
        shapes = {"min": (1, 1), "opt": _MEASURED[-1], "max": (self._wanted.max_rows, self._longest)}
        found = {}
        for which, (rows, length) in shapes.items():
            inputs = example(self._contract, min(rows, self._wanted.max_rows), self._clip(length))
            sizes = (f"{name}:{'x'.join(map(str, array.shape))}" for name, array in inputs.items())
            found[f"trt_profile_{which}_shapes"] = ",".join(sizes)
        return found

    def _digest(self, options: Mapping[str, object]) -> str:
        """Name a folder of the cache: TensorRT's own names of engines tell neither weights nor shapes apart."""
        files = self._contract.files or {self._path.name: hash_file(self._path)}
        return hashlib.sha256(repr((sorted(files.items()), sorted(options.items()))).encode()).hexdigest()[:32]

    def _check(self, what: str, runs: Runs, size: Shape) -> None:
        """Compare answers with those through bound buffers.

        Raises:
            StartError: They are too far from each other.
        """
        inputs = varied_example(self._contract, *size)
        limit = max(_APART[self._contract.precision], _APART[self._wanted.precision])
        found, expected = (one.run(inputs, self._names) for one in (runs, self._bound[0]))
        for name in self._names:
            one, other = (np.asarray(each[name], dtype=np.float64) for each in (found, expected))
            if not np.allclose(one, other, rtol=0, atol=limit * np.abs(other).max(initial=0, where=np.isfinite(other))):
                raise StartError(f"{what} {DIFFERS} from those of bound buffers: {name}")

    def _seconds(self, runs: Runs, size: Shape) -> float:
        """The shortest of some runs, after one that does not count."""
        inputs, took = example(self._contract, *size), list[float]()
        runs.run(inputs, self._names)
        ends = time.perf_counter() + _MEASURING_SECONDS
        while len(took) < _RUNS and (not took or time.perf_counter() < ends):
            began = time.perf_counter()
            runs.run(inputs, self._names)
            took.append(time.perf_counter() - began)
        return min(took)

    def _shapes(self) -> list[Shape]:
        """All that are captured."""
        rows = {min(rows, self._wanted.max_rows) for rows in self._wanted.graph_rows}
        lengths = {self._clip(length) for length in self._wanted.graph_tokens}
        return [(one, other) for one in sorted(rows) for other in sorted(lengths)]

    def _smallest(self, shape: Shape) -> Shape:
        """The smallest batch that is padded to a shape."""
        rows, lengths = ({sizes[axis] for sizes in self._shapes()} for axis in (0, 1))
        fewer, shorter = (
            max(filter(own.__gt__, sizes), default=0) for own, sizes in zip(shape, (rows, lengths), strict=True)
        )
        return fewer + 1, self._clip(shorter + 1)

    def _clip(self, length: int) -> int:
        """A number of positions that the contract allows; 0 where all rows have the same."""
        return min(length, self._longest) if varies(self._contract) else 0

    @property
    def _longest(self) -> int:
        """The most positions of a row."""
        text, limit = self._contract.text, self._contract.limits.get(SEQUENCE_AXIS)
        return text.max_tokens if text else limit or max(self._wanted.graph_tokens)


def _show(shape: Shape) -> str:
    rows, length = shape
    return f"{rows}x{length}" if length else str(rows)
