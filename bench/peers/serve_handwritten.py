"""What one writes by hand: grpc.aio and a pool of threads, each request alone at its own length."""
# mypy: ignore-errors

import asyncio
from concurrent.futures import ThreadPoolExecutor

import common
import grpc
import numpy as np

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceServicer, RegardServiceStub, add_RegardServiceServicer_to_server

DTYPES = {pb.DATA_TYPE_FLOAT32: np.float32, pb.DATA_TYPE_INT64: np.int64}


class Service(RegardServiceServicer):
    """Predict alone."""

    def __init__(self, settings):
        self._embed = common.Embedder(settings)
        self._pool = ThreadPoolExecutor(settings.runs)

    async def Predict(self, request, context):  # noqa: N802 -- gRPC's name
        """One run for each request."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._predict, request)

    def _predict(self, request):
        inputs = {
            name: np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape)
            for name, tensor in request.inputs.items()
        }
        embedding = self._embed.run(inputs)
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=embedding.shape, data=embedding.tobytes())
        return api.PredictResponse(outputs={"embedding": tensor})


async def run(settings):
    """Serve until killed."""
    server = grpc.aio.server()
    add_RegardServiceServicer_to_server(Service(settings), server)
    server.add_insecure_port(f"127.0.0.1:{settings.port}")
    await server.start()
    await server.wait_for_termination()


def make_body(arrays):
    """A PredictRequest."""
    inputs = {
        name: pb.Tensor(
            dtype=pb.DATA_TYPE_FLOAT32 if array.dtype == np.float32 else pb.DATA_TYPE_INT64,
            shape=array.shape,
            data=array.tobytes(),
        )
        for name, array in arrays.items()
    }
    return api.PredictRequest(inputs=inputs, outputs=["embedding"]).SerializeToString()


def ask(url, body):
    """Through the stub."""
    with grpc.insecure_channel(url.split("/")[2]) as channel:
        answer = RegardServiceStub(channel).Predict(api.PredictRequest.FromString(body))
    return answer.outputs["embedding"].data


if __name__ == "__main__":
    common.main(lambda settings: asyncio.run(run(settings)), make_body, ask)
