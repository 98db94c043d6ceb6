"""What is sent layer by layer is let go of layer by layer."""

import weakref

import numpy as np

from regard.v1 import types_pb2 as pb
from server.context import Timings
from server.inference.request import InferenceResponse, PreparedInput
from server.scheduling.batch import Result
from tests.server.fakes import CONTRACT, make_model, plan_for

LENGTH = 5


def test_a_layer_is_let_go_once_it_is_reduced() -> None:
    """Before it is sent, which may take long; what others have of the same result stays theirs."""
    names = [layer.output for layer in CONTRACT.attention]
    weights = {name: np.ones((1, 4, LENGTH, LENGTH), dtype=np.float32) for name in names}
    shared = Result({}, dict(weights))
    kept = [weakref.ref(array) for array in weights.values()]
    wanted = pb.AttentionRequest(layers=[1, 0], head_reduction=pb.HEAD_REDUCTION_MEAN)
    plan = plan_for(wanted, CONTRACT, sizes={"seq_len": LENGTH}, positions=LENGTH)
    response = InferenceResponse(make_model(CONTRACT), PreparedInput({}, 1, LENGTH), plan, shared, Timings())
    layers = response.attention()
    assert shared.further.keys() == set(names)
    del weights, shared
    found = []
    for _ in plan.layers:
        next(layers)
        found.append(([one() is not None for one in kept], response.result.size_bytes))
    size = 4 * 4 * LENGTH * LENGTH
    assert found == [([True, False], size), ([False, False], 0)]
