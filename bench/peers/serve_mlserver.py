"""MLServer: the open inference protocol over gRPC, adaptive batches, a runtime of one's own.

Rows travel as elements of BYTES tensors: its batches join numeric tensors of one shape only, element by element.
"""
# mypy: ignore-errors

import asyncio

import common
import grpc
from mlserver import MLModel, MLServer, ModelSettings
from mlserver import Settings as ServerSettings
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub
from mlserver.types import InferenceResponse, ResponseOutput


class Embed(MLModel):
    """Embeds batches."""

    async def load(self):
        """Load the graph, in the worker."""
        settings = common.Settings()
        self._kind = settings.kind
        self._embed = common.Embedder(settings)
        return True

    async def predict(self, payload):
        """A batch."""
        embeddings = self._embed([common.read_row(row, self._kind) for row in payload.inputs[0].data.root])
        data = [embedding.tobytes() for embedding in embeddings]
        output = ResponseOutput(name="embedding", shape=[len(data), 1], datatype="BYTES", data=data)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def run(settings):
    """Serve until killed."""
    ports = common.free_ports(2)
    workers = settings.runs
    server = MLServer(
        ServerSettings(
            host="127.0.0.1",
            grpc_port=settings.port,
            http_port=ports[0],
            metrics_port=ports[1],
            parallel_workers=workers,
            debug=False,
        )
    )
    model = ModelSettings(
        name="embed",
        implementation=Embed,
        max_batch_size=settings.max_batch,
        max_batch_time=common.MAX_DELAY_MS / 1e3,
    )
    await server.start([model])


def make_body(arrays):
    """A ModelInferRequest of one element."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="rows", datatype="BYTES", shape=[1, 1])
    tensor.contents.bytes_contents.append(common.write_row(arrays))
    return pb.ModelInferRequest(model_name="embed", inputs=[tensor]).SerializeToString()


def ask(url, body):
    """Through the stub."""
    with grpc.insecure_channel(url.split("/")[2]) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(pb.ModelInferRequest.FromString(body))
    return answer.outputs[0].contents.bytes_contents[0]


if __name__ == "__main__":
    import serve_mlserver  # so that workers find Embed by its name

    common.main(lambda settings: asyncio.run(serve_mlserver.run(settings)), make_body, ask)
