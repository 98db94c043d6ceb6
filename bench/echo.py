"""A bare grpc.aio server that answers every ModelInfer alike, for what gRPC itself costs. A program of its own.

It reads each request and writes its answer as messages of the Open Inference Protocol, on regard's event loop, uvloop.
"""

import grpc
import numpy as np
import uvloop

from bench.trivial_graph import FLOATS, NAME, OUTPUT
from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

_ANSWER = pb.ModelInferResponse(
    model_name=NAME,
    model_version="1",
    outputs=[pb.ModelInferResponse.InferOutputTensor(name=OUTPUT, datatype="FP32", shape=[1, FLOATS])],
    raw_output_contents=[np.zeros(FLOATS, np.float32).tobytes()],
)


class Echo(GRPCInferenceServiceServicer):
    """ModelInfer alone."""

    async def ModelInfer(  # noqa: N802 -- gRPC's name
        self,
        request: pb.ModelInferRequest,
        context: grpc.aio.ServicerContext[pb.ModelInferRequest, pb.ModelInferResponse],
    ) -> pb.ModelInferResponse:
        """The same answer each time."""
        return _ANSWER


async def main() -> None:
    """Print the port, and serve until killed."""
    server = grpc.aio.server()
    add_GRPCInferenceServiceServicer_to_server(Echo(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
