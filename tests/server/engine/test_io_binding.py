"""Bound buffers on the CPU: all of the code but the device itself."""

import threading

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import server.engine.io_binding
from artifact.contract import TAPPED_GRAPH
from server.engine.device import Device
from server.engine.device_ops import measures_on
from server.engine.io_binding import BoundSession, _page_locked
from tests.golden import GOLDEN_MODELS

MEASURES = measures_on(Device("CPU", ("CPUExecutionProvider",), "for the test"))
NAMES = ["embedding", "attention.0", "attention.1"]


@pytest.fixture
def session() -> onnxruntime.InferenceSession:
    """The golden model's tapped graph."""
    path = GOLDEN_MODELS / "tiny-text" / "1" / TAPPED_GRAPH
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def make_inputs(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch."""
    ids = np.random.default_rng(seed).integers(4, 60, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def check(bound: BoundSession, session: onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> None:
    """What comes through buffers is what comes without."""
    got = bound.run(inputs, NAMES)
    for name, expected in zip(NAMES, session.run(NAMES, inputs), strict=True):
        np.testing.assert_array_equal(got[name], expected)


def test_buffers_change_nothing(session: onnxruntime.InferenceSession) -> None:
    """The same shape again, others in between, more of them than are kept."""
    bound = BoundSession(session, MEASURES)
    for length in (*range(3, 25), 3, 24, 3):
        for seed in (0, 1):
            check(bound, session, make_inputs(2, length, seed))


def test_answers_do_not_change_when_the_buffers_are_used_again(session: onnxruntime.InferenceSession) -> None:
    """They belong to the caller, who reads them later."""
    bound = BoundSession(session, MEASURES)
    bound.run(make_inputs(1, 5, 0), NAMES)
    first = bound.run(make_inputs(1, 5, 1), NAMES)
    before = {name: array.copy() for name, array in first.items()}
    bound.run(make_inputs(1, 5, 2), NAMES)
    for name, array in first.items():
        np.testing.assert_array_equal(array, before[name])


def test_inputs_that_are_views_are_copied_whole(session: onnxruntime.InferenceSession) -> None:
    """A slice of a larger batch."""
    bound = BoundSession(session, MEASURES)
    whole = make_inputs(4, 9)
    for _ in range(2):
        check(bound, session, {name: array[1:3, :6] for name, array in whole.items()})


def test_instances_do_not_share_buffers(session: onnxruntime.InferenceSession) -> None:
    """Two threads run different batches of one shape at the same time."""
    bound, failures = BoundSession(session, MEASURES), list[BaseException]()

    def work(seed: int) -> None:
        try:
            for _ in range(50):
                check(bound, session, make_inputs(2, 8, seed))
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_without_page_locked_memory_outputs_are_copied_to_ordinary_memory(
    session: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime raises where it has no allocator for it, as with the CUDA provider that is not a plugin."""
    cuda_pinned = _page_locked("cuda", 0)
    assert cuda_pinned is not None
    monkeypatch.setattr(server.engine.io_binding, "_page_locked", lambda kind, number: cuda_pinned)
    bound = BoundSession(session, MEASURES)
    for seed in range(3):
        check(bound, session, make_inputs(2, 8, seed))


def test_outputs_whose_size_depends_on_data_have_no_buffers() -> None:
    """NonZero of one shape finds one place, then three, then none."""
    info = helper.make_tensor_value_info
    numbers, places = info("x", TensorProto.FLOAT, ["batch"]), info("places", TensorProto.INT64, [1, "found"])
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["places"])], "where", [numbers], [places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    bound = BoundSession(onnxruntime.InferenceSession(model.SerializeToString()), MEASURES)
    for values in ([0, 1, 0], [1, 1, 1], [0, 0, 0]):
        x = np.array(values, dtype=np.float32)
        (found,) = bound.run({"x": x}, ["places"]).values()
        assert isinstance(found, np.ndarray)
        assert np.array_equal(found, np.nonzero(x))
