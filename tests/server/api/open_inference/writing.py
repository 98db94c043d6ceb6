"""Requests for texts that are written, and what is answered, through the Open Inference Protocol."""

from typing import Any

import numpy as np

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.server.api.open_inference.messages import Request, make_bytes_request


def asked(**parameters: Any) -> Request:
    """A request for a text."""
    request = make_bytes_request("tiny-text", "text", b"the cat")
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], kinds[type(value)], value)
    return request


def read(response: pb.ModelInferResponse) -> dict[str, Any]:
    """Outputs by name, as lists."""
    found: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype == "BYTES":
            texts = []
            while raw:
                end = 4 + int.from_bytes(raw[:4], "little")
                texts.append(raw[4:end].decode())
                raw = raw[end:]
            found[output.name] = texts
        else:
            dtype = {"INT32": np.int32, "FP32": np.float32}[output.datatype]
            found[output.name] = np.frombuffer(raw, dtype).tolist()
        assert list(output.shape) == [1, len(found[output.name])]
    return found


async def stream(stub: GRPCInferenceServiceStub, *requests: Request) -> list[pb.ModelStreamInferResponse]:
    """All that is answered."""
    return [answer async for answer in stub.ModelStreamInfer(iter(requests))]
