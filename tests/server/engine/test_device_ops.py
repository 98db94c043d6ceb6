"""Measures made on the device that holds the weights, with the CPU for a device: all of the code but the device itself.

That each equals its definition is tested beside the host's, in test_attention.py.
"""

from typing import Any

import numpy as np
import pytest

from artifact.contract import CONTRACT_FILE, read_contract
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.tensors import read_tensor
from server.engine.device import Device, Instances
from server.engine.device_ops import DeviceArray, measures_on
from server.engine.engine import Engine
from server.engine.session import Graph
from server.scheduling.batch import BatchItem
from server.scheduling.collate import run_batch
from tests.golden import GOLDEN_MODELS
from tests.server.fakes import BOUND, on_device, plan_for, write_attention

PLAIN = Device("CPU", ("CPUExecutionProvider",), "for the test")
ARTIFACT = GOLDEN_MODELS / "tiny-text" / "1"
CONTRACT = read_contract(ARTIFACT / CONTRACT_FILE)


def test_a_part_is_cut_without_a_copy_and_copied_when_it_is_wanted() -> None:
    """As numpy's slices, for weights and for contributions."""
    for shape in ((3, 4, 6, 6), (3, 6, 6)):
        array = np.random.default_rng(0).random(shape, dtype=np.float32)
        slices = (slice(1, 3), *[slice(None)] * (len(shape) - 3), slice(4), slice(5))
        part = on_device({"x": array})["x"][slices]
        assert (part.shape, part.nbytes) == (array[slices].shape, array[slices].nbytes)
        np.testing.assert_array_equal(part.copy(), array[slices])
        np.testing.assert_array_equal(part[slice(1), slice(None)].copy(), array[slices][:1])


def test_rows_that_are_all_zero_stay_zero_and_round_to_steps_of_one() -> None:
    """What the host gives."""
    zeros, on = on_device({"x": np.zeros((1, 2, 3, 3), dtype=np.float32)})["x"], measures_on(BOUND)
    assert not on.normalize_rows(zeros).copy().any()
    rounded, scale = on.to_uint8(zeros)
    np.testing.assert_array_equal(rounded.copy(), np.zeros((1, 2, 3, 3), dtype=np.uint8), strict=True)
    assert scale == 1


def make_text(graph: Graph, plan_outputs: tuple[str, ...], length: int) -> BatchItem:
    """A text of so many tokens."""
    ids = np.random.default_rng(length).integers(4, 60, (1, length))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return BatchItem(graph, CONTRACT, inputs, 1, length, ("embedding",), plan_outputs)


@pytest.mark.parametrize(
    "request_fields",
    [
        {},
        {"layers": [-1], "heads": [1], "rows": [0, 2], "keys": [1]},
        {"head_reduction": pb.HEAD_REDUCTION_MAX, "value_weighted": True, "top_k": 2, "keys": [0, 3, 1]},
        {"measure": pb.ATTENTION_MEASURE_ROLLOUT, "cls_only": True},
        {"measure": pb.ATTENTION_MEASURE_ENTROPY, "dtype": pb.DATA_TYPE_FLOAT16},
        {"measure": pb.ATTENTION_MEASURE_DISTANCE, "head_reduction": pb.HEAD_REDUCTION_MIN},
        {"measure": pb.ATTENTION_MEASURE_CONTRIBUTION, "rows": [1]},
        {"measure": pb.ATTENTION_MEASURE_CONTRIBUTION},
        {"measure": pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT, "renormalize": True},
    ],
)
def test_an_engine_that_leaves_attention_on_its_device_answers_as_one_that_does_not(
    request_fields: dict[str, Any],
) -> None:
    """Two texts of different lengths in one batch: padding is cut off there as well."""
    answers = []
    for device in (PLAIN, BOUND):
        engine = Engine(ARTIFACT, CONTRACT, (device,), Instances(1, 1))
        request = pb.AttentionRequest(**request_fields)
        plans = [plan_for(request, CONTRACT, sizes={"seq_len": length}, positions=length) for length in (5, 8)]
        graph = engine.contributing if plans[0].takes_contributions else engine.tapped
        assert graph
        items = [make_text(graph, plan.outputs, length) for plan, length in zip(plans, (5, 8), strict=True)]
        results, _ = run_batch(items)
        stays = [isinstance(array, DeviceArray) for one in results for array in one.further.values()]
        assert all(stay is device.bound for stay in stays)
        answers.append(
            [
                layer
                for plan, one in zip(plans, results, strict=True)
                for layer in write_attention(plan, one.further, batched=False)
            ]
        )
    for here, there in zip(*answers, strict=True):
        tolerance = 1e-3 if here.weights.dtype == pb.DATA_TYPE_FLOAT16 else 1e-6
        found, expected = (read_tensor("weights", message.weights) for message in (there, here))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=tolerance)
        for message in (here, there):
            message.ClearField("weights")
        assert here == there
