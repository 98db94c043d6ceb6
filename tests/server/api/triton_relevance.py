"""What docs/relevance.md says of tritonclient, which asks for it alike by gRPC and by HTTP.

Imports nothing of regard: the programs that use it have protobuf messages of their own.
"""

import json
import os
from typing import Any

import numpy as np
import tritonclient.utils.shared_memory as shared_memory


def check_relevance(triton: Any, client: Any, texts: Any) -> Any:
    """Ask why each row has its label, in the message and in shared memory; return what each position did.

    Args:
        triton: tritonclient.grpc or tritonclient.http.
        client: Of it.
        texts: BYTES [2] of three words and of fewer.
    """
    found = client.infer("tiny-text", [texts], parameters={"relevance": True})
    values, score = found.as_numpy("relevance.values"), found.as_numpy("relevance.score")
    assert values.shape == (2, 5)
    np.testing.assert_allclose(values.sum(axis=1) + found.as_numpy("relevance.rest"), score, atol=1e-5)
    np.testing.assert_allclose(score, found.as_numpy("logits").max(axis=1), atol=1e-5)
    chosen = {"relevance_labels": json.dumps(["positive", "negative"])}
    both = client.infer("tiny-text", [texts], parameters=chosen)
    assert both.as_numpy("relevance.values").shape == (2, 2, 5)
    assert both.as_numpy("relevance.label").tolist() == [[1, 0], [1, 0]]
    key = f"/regard-why-{os.getpid()}"
    region = shared_memory.create_shared_memory_region("why", key, 64)
    try:
        client.register_system_shared_memory("why", key, 64)
        output = triton.InferRequestedOutput("relevance.values")
        output.set_shared_memory("why", 40)
        client.infer("tiny-text", [texts], outputs=[output])
        placed = shared_memory.get_contents_as_numpy(region, np.float32, (2, 5))
        np.testing.assert_array_equal(placed, values)
    finally:
        client.unregister_system_shared_memory("why")
        shared_memory.destroy_shared_memory_region(region)
    return values
