"""The step of an encoder-decoder's decoder in ONNX Runtime: one token of each row, with the caches written in place."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from artifact.dtypes import Array
from artifact.generation import (
    CROSS_KEY,
    CROSS_VALUE,
    LENGTHS,
    LOGITS,
    NEXT_KEY,
    NEXT_VALUE,
    SELF_BIAS,
    SELF_KEY,
    SELF_VALUE,
    SOURCE_LENGTHS,
    TOKENS,
    GenerationContract,
    names_of_layers,
)
from server.engine.capture_gate import GATE
from server.engine.cost import CostModel, Sample, fit_costs
from server.engine.device import Device, Instances
from server.engine.session import load_sessions
from server.errors import StartError

# Rows of the steps that are run to fit the cost model, until the time for it is used up.
_SAMPLES, _MEASURING_SECONDS, _TRIED_LENGTH = (1, 4, 16), 0.2, 8
_LARGE_SAMPLES = (1, 2, 4)  # where sources are all of one size, which takes megabytes a row
_FASTER = 0.9  # of the time of one thread: otherwise the others are better left alone


class Held:
    """Inputs that stay on a device between steps: copied there after they have changed, not before each step.

    Attributes:
        is_stale: Whether they have changed since.
    """

    def __init__(self, arrays: Mapping[str, Array], place: tuple[str, int]) -> None:
        """Take memory on the device.

        Args:
            arrays: By name, with room for all rows, each C-contiguous; a step reads the first of them.
            place: Of the device, as onnxruntime.OrtValue takes it.
        """
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self.arrays, self._place, self.is_stale = dict(arrays), place, True
        with GATE.use():
            self._values = {name: make(array.shape, array.dtype.type, *place) for name, array in arrays.items()}

    def bind(self, binding: onnxruntime.IOBinding, rows: int) -> None:
        """Let a step read the first rows."""
        for name, value in self._values.items():
            array = self.arrays[name]
            binding.bind_input(name, *self._place, array.dtype.type, (rows, *array.shape[1:]), value.data_ptr())

    def refresh(self) -> None:
        """Copy them to the device where they have changed."""
        if self.is_stale:
            for name, value in self._values.items():
                value.update_inplace(self.arrays[name])
            self.is_stale = False


class BoundStep:
    """A step whose inputs and outputs lie in memory of the caller's, which must stay where it is.

    The CPU reads inputs where they lie. For a GPU they are copied when they are bound, hence before each step, but for
    those that it holds.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        given: Mapping[str, Array],
        made: Mapping[str, Array],
        *,
        in_place: bool = True,
        held: Held | None = None,
    ) -> None:
        self._session, self._made, self._in_place, self._held = session, dict(made), in_place, held
        self._given = {name: array for name, array in given.items() if held is None or name not in held.arrays}
        self._binding = session.io_binding()
        if held:
            held.bind(self._binding, len(given[TOKENS]))
        if in_place:
            self._bind_given()
        for name, array in self._made.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_given(self) -> None:
        for name, array in self._given.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> None:
        """Compute one token of each row."""
        if self._in_place:
            self._session.run_with_iobinding(self._binding)
            return
        with GATE.use():
            if self._held:
                self._held.refresh()
            self._bind_given()
            self._session.run_with_iobinding(self._binding)


class Decoder:
    """The decoder's graph; `cost` is that of a step, its length being 1."""

    def __init__(
        self, path: Path, generation: GenerationContract, devices: Sequence[Device], instances: Instances
    ) -> None:
        """Load the graph.

        Args:
            path: The file.
            generation: What its contract says.
            devices: Where it runs; to a GPU the caches of what is written are copied, and back, at each step.
            instances: How runs of a device share the CPUs.

        Raises:
            StartError: It cannot be loaded, or is not what the contract says.
        """
        self.generation = generation
        self._devices = devices
        self._one = load_sessions(path, devices, instances.pool_threads, spin=False)
        self._check(path)
        self._all: Sequence[onnxruntime.InferenceSession] = ()
        if devices[0].gpu is None and instances.count > 1:
            self._all = load_sessions(path, devices, instances.threads, spin=True)
        self.cost = CostModel()

    @property
    def can_use_all_threads(self) -> bool:
        """Whether there is a session with all threads, and it is the faster one for a row."""
        return bool(self._all)

    def bind(
        self,
        given: Mapping[str, Array],
        made: Mapping[str, Array],
        *,
        all_threads: bool = False,
        device: int = 0,
        held: Held | None = None,
    ) -> BoundStep:
        """Prepare a step.

        Args:
            given: Every input by name, each C-contiguous.
            made: Where the outputs that are wanted go, likewise; those of the caches may be those given.
            all_threads: Whether all of the device may be used, since nothing else runs there.
            device: Which of those that it was loaded on.
            held: What `hold` returned for it, of the arrays whose first rows are given.
        """
        session = (self._all if all_threads and self._all else self._one)[device]
        return BoundStep(session, given, made, in_place=not self._devices[device].bound, held=held)

    def hold(self, given: Mapping[str, Array], device: int = 0) -> Held | None:
        """Let a device keep keys and values of the sources, which a step only reads; None where it reads the host's.

        Args:
            given: Every input by name, with room for all rows.
            device: Which of those that it was loaded on.
        """
        if not self._devices[device].bound:
            return None
        names = names_of_layers((CROSS_KEY, CROSS_VALUE), self.generation.num_layers)
        return Held({name: given[name] for name in names}, self._devices[device].place)

    def try_longest(self) -> None:
        """Write the last token of the longest text that the contract allows."""
        longest = self.generation.max_positions
        given, made = step_arrays(self.generation, 1, longest, 1)
        given[LENGTHS][:], given[SOURCE_LENGTHS][:] = longest - 1, 1
        self.bind(given, made).run()

    def warm_up(self) -> None:
        """Measure what a step costs, and whether a row alone is faster with all threads."""
        samples, ends = list[Sample](), time.perf_counter() + _MEASURING_SECONDS
        for rows in _LARGE_SAMPLES if self.generation.source_positions else _SAMPLES:
            samples.append(Sample(rows, 1, self._fastest(rows)))
            if time.perf_counter() > ends:
                break
        self.cost = fit_costs(samples)
        if self._all and self._fastest(1, all_threads=True) > _FASTER * samples[0].seconds:
            self._all = ()
        for device in range(1, len(self._one)):
            self._fastest(1, device=device)

    def _fastest(self, rows: int, *, all_threads: bool = False, device: int = 0) -> float:
        source_length = self.generation.source_positions
        given, made = step_arrays(self.generation, rows, _TRIED_LENGTH, source_length or _TRIED_LENGTH)
        given[SOURCE_LENGTHS][:] = source_length or 1
        held, seconds = self.hold(given, device), list[float]()
        step = self.bind(given, made, all_threads=all_threads, device=device, held=held)
        for _ in range(4):
            started = time.perf_counter()
            step.run()
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    def _check(self, path: Path) -> None:
        for what, values, expected in (
            ("inputs", self._one[0].get_inputs(), self.generation.step_inputs),
            ("outputs", self._one[0].get_outputs(), self.generation.step_outputs),
        ):
            if (found := {value.name for value in values}) != set(expected):
                raise StartError(f"{path}: has the {what} {sorted(found)}; its contract says {sorted(expected)}")
        expected_sizes = {
            LOGITS: (self.generation.vocab_size,),
            f"{SELF_KEY}.0": (self.generation.num_heads, None, self.generation.head_dim),
            f"{SELF_BIAS}.0": (self.generation.num_heads, None),
        }
        for value in (*self._one[0].get_inputs(), *self._one[0].get_outputs()):
            sizes = expected_sizes.get(value.name, ())
            for found_size, size in zip(value.shape[1:], sizes, strict=False):
                if isinstance(found_size, int) and size is not None and found_size != size:
                    raise StartError(f"{path}: {value.name} is {value.shape}; its contract says {list(sizes)}")


def step_arrays(
    generation: GenerationContract, rows: int, length: int, source_length: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Make what a step takes and gives, zeros: so many rows, places in the caches, and places for the source."""

    def floats(*shape: int) -> Array:
        return np.zeros((rows, *shape), np.float32)

    heads, head_dim = generation.num_heads, generation.head_dim
    given: dict[str, Array] = {
        TOKENS: np.zeros((rows, 1), np.int64),
        LENGTHS: np.zeros(rows, np.int64),
        SOURCE_LENGTHS: np.zeros(rows, np.int64),
    }
    made: dict[str, Array] = {LOGITS: floats(generation.vocab_size)}
    for layer in range(generation.num_layers):
        for taken, written in ((SELF_KEY, NEXT_KEY), (SELF_VALUE, NEXT_VALUE)):
            given[f"{taken}.{layer}"] = made[f"{written}.{layer}"] = floats(heads, length, head_dim)
        for taken in (CROSS_KEY, CROSS_VALUE):
            given[f"{taken}.{layer}"] = floats(heads, source_length, head_dim)
    return given, made


def attention_weights(query: Array, keys: Array, scale: float, bias: Array | None = None) -> Array:
    """Return softmax(scale q k + bias), float32 [H, K], of [H, 1, d] and [H, K, d] (Vaswani et al. 2017, equation 1).

    The bias, float32 [H, K], tells how far keys are (Raffel et al. 2020, section 2.1); None where there is none.
    """
    scores = (keys @ query.swapaxes(1, 2))[..., 0]  # [H, K]
    scores *= scale
    if bias is not None:
        scores += bias
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
