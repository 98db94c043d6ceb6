"""Whether what is made of attention on the device is what numpy makes of it, for every function there is."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime

from artifact.dtypes import Array
from bench.gpu.inputs import apart
from bench.gpu.limits import FLOAT32, TF32, UINT8
from bench.gpu.rows import Row, at_most, failed, judged
from bench.gpu.setting import Setting
from server.engine import array_ops
from server.engine.device_ops import DeviceArray, DeviceMeasures, measures_on
from server.errors import first_line

_SHAPE = (3, 12, 96, 96)  # [B, H, Q, K]
_HEADS, _QUERIES, _KEYS = [7, 0, 3], [95, 0, 17], [5, 0, 90, 6]
_FLOAT16 = 1e-3  # half a unit in the last place
_HELD = ("to_host",)  # what every other row uses
Both = tuple[Any, DeviceArray]
Made = tuple[Array, Array]


def check(setting: Setting) -> Iterator[Row]:
    """Compare each function; matrices are multiplied in TF32 where the device does so by itself."""
    on = measures_on(setting.choose())
    functions = functions_of(make_weights(on), on)
    missing = sorted(public_names(on) - {name.partition(",")[0] for name in functions} - set(_HELD))
    yield judged("every function is compared", len(functions), "none left out", ok=not missing, why=", ".join(missing))
    for name, (make, limit) in functions.items():
        yield compare(name, make, limit)


def compare(name: str, make: Callable[[], Made], limit: float) -> Row:
    """Compare what host and device make."""
    try:
        expected, found = make()
        return at_most(name, apart(found, expected), limit)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        return failed(name, f"{type(error).__name__}: {first_line(error)}")


def public_names(on: DeviceMeasures) -> set[str]:
    """Names of the functions that a device has."""
    return {name for name in dir(on) if not name.startswith("_") and callable(getattr(on, name))}


def make_weights(on: DeviceMeasures) -> dict[str, Both]:
    """Attention weights, some rows all zero, norms of values, and weights whose heads are fused: here and there."""
    random = np.random.default_rng(0)
    weights = random.random(_SHAPE, dtype=np.float32)
    weights /= weights.sum(axis=-1, keepdims=True)
    weights[0, :, 90:] = 0
    arrays = {"weights": weights, "norms": random.random(_SHAPE[:3], dtype=np.float32), "fused": weights.mean(axis=1)}
    arrays["layers"] = weights[:, 1].copy()
    return {name: (array, put(array, on)) for name, array in arrays.items()}


def put(array: Array, on: DeviceMeasures) -> DeviceArray:
    """Copy an array to the device."""
    return DeviceArray(onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *on.place), on)


def functions_of(given: dict[str, Both], on: DeviceMeasures) -> dict[str, tuple[Callable[[], Made], float]]:
    """What is compared, by name, and how far it may be apart."""
    weights, norms, fused, layers = (given[name] for name in ("weights", "norms", "fused", "layers"))

    def both(name: str, *values: Both, **options: Any) -> Callable[[], Made]:
        def make() -> Made:
            found = getattr(on, name)(*(there for _, there in values), *options.values())
            return np.asarray(getattr(array_ops, name)(*(here for here, _ in values), *options.values())), found.copy()

        return make

    apart_ = array_ops.distances(range(_SHAPE[2]), range(_SHAPE[3]), None)
    counted = np.ones(_SHAPE[3], np.float32)
    part = (slice(1, 3), slice(None), slice(7), slice(9))
    exact: dict[str, Callable[[], Made]] = {
        "choose, all": both("choose", weights, heads=None, queries=None),
        "choose, heads and rows": both("choose", weights, heads=_HEADS, queries=_QUERIES),
        "choose, of a part": lambda: (weights[0][part], weights[1][part].copy()),
        "choose_fused": both("choose_fused", fused, firsts=_QUERIES),
        "choose_keys": both("choose_keys", weights, keys=_KEYS),
        "as_one_head": both("as_one_head", fused),
        "largest, values": lambda: (array_ops.largest(weights[0], 5)[0], on.largest(weights[1], 5)[0].copy()),
        "largest, places": lambda: _places(weights[0], on.largest(weights[1], 5)[1]),
        **{f"fuse_heads, {one}": both("fuse_heads", weights, reduction=one) for one in ("max", "min")},
    }
    close: dict[str, Callable[[], Made]] = {
        "fuse_heads, mean": both("fuse_heads", weights, reduction="mean"),
        "weigh_by_values": both("weigh_by_values", weights, norms),
        "normalize_rows": both("normalize_rows", weights),
        "entropy": both("entropy", weights),
        "mean_distance": both("mean_distance", weights, apart=apart_, counted=counted, rows=_QUERIES),
        "received": both("received", weights),
        "sum_places": both("sum_places", weights, places=np.array([0, 7, _SHAPE[3] + 1])),
    }
    multiplied: dict[str, Callable[[], Made]] = {
        "rollout, all rows": lambda: _rolled(fused, layers, on, None),
        "rollout, a row": lambda: _rolled(fused, layers, on, [0]),
        "contribution_rollout": lambda: (
            array_ops.contribution_rollout([fused[0], layers[0]], None),
            on.contribution_rollout([fused[1], layers[1]], None).copy(),
        ),
    }
    rounded: dict[str, tuple[Callable[[], Made], float]] = {
        "to_float16": (both("to_float16", weights), _FLOAT16),
        "to_uint8": (lambda: _uint8(weights, on), UINT8),
    }
    limits = ((exact, 0.0), (close, FLOAT32), (multiplied, TF32))
    return {name: (make, limit) for group, limit in limits for name, make in group.items()} | rounded


def _rolled(fused: Both, layers: Both, on: DeviceMeasures, rows: list[int] | None) -> Made:
    here, there = array_ops.rollout([fused[0], layers[0]], 0.5, rows), on.rollout([fused[1], layers[1]], 0.5, rows)
    return here, there.copy()


def _places(weights: Array, places: Array) -> Made:
    """Compare by what stands at the places: of equal numbers either may be named."""
    return array_ops.largest(weights, 5)[0], np.take_along_axis(weights, places.astype(np.int64), axis=-1)


def _uint8(weights: Both, on: DeviceMeasures) -> Made:
    """Compare what a caller makes of the steps."""
    (here, here_scale), (there, there_scale) = array_ops.to_uint8(weights[0]), on.to_uint8(weights[1])
    return here * np.float32(here_scale), there.copy() * np.float32(there_scale)
