"""Triton Inference Server through PyTriton: the open inference protocol over gRPC, dynamic batches."""
# mypy: ignore-errors

import os
import sysconfig

import common
import grpc
import numpy as np
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.generator import ModelConfigGenerator
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub


class Embed:
    """Embeds batches: the requests that Triton joined, each of one row."""

    def __init__(self, settings):
        self._embed = common.Embedder(settings)

    def __call__(self, requests):
        """An answer to each."""
        rows = [
            np.concatenate([request["input_ids"], request["attention_mask"]])
            if "input_ids" in request
            else next(array[0] for array in request.values())
            for request in requests
        ]
        return [{"embedding": embedding[np.newaxis]} for embedding in self._embed(rows)]


def let_lengths_differ():
    """Set allow_ragged_batch, which Triton wants to join requests of different lengths and PyTriton does not offer."""
    original = ModelConfigGenerator.get_config

    def get_config(self):
        config = original(self)
        for tensor in config["input"]:
            tensor["allow_ragged_batch"] = True
        return config

    ModelConfigGenerator.get_config = get_config


def serve(settings):
    """Serve until killed."""
    # Triton's own Python must be the one whose standard library it gets.
    folders = [sysconfig.get_config_var("LIBDIR"), *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, folders))
    let_lengths_differ()
    http, metrics = common.free_ports(2)
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=settings.port,
        http_address="127.0.0.1",
        http_port=http,
        metrics_port=metrics,
        allow_gpu_metrics=False,
    )
    if settings.kind == "image":
        inputs = [Tensor(name="pixel_values", dtype=np.float32, shape=(3, -1, -1))]
    elif settings.kind == "floats":
        inputs = [Tensor(name="x", dtype=np.float32, shape=(-1,))]
    else:
        inputs = [Tensor(name=name, dtype=np.int64, shape=(-1,)) for name in ("input_ids", "attention_mask")]
    instances = settings.runs
    with Triton(config=config) as triton:
        triton.bind(
            model_name="embed",
            infer_func=[Embed(settings) for _ in range(instances)],
            inputs=inputs,
            outputs=[Tensor(name="embedding", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=settings.max_batch,
                batcher=DynamicBatcher(max_queue_delay_microseconds=common.MAX_DELAY_MS * 1000),
            ),
            strict=False,
        )
        triton.serve()


def make_body(arrays):
    """A ModelInferRequest with its tensors raw."""
    request = pb.ModelInferRequest(model_name="embed")
    for name, array in arrays.items():
        datatype = "FP32" if array.dtype == np.float32 else "INT64"
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def ask(url, body):
    """Through the stub."""
    with grpc.insecure_channel(url.split("/")[2]) as channel:
        return (
            GRPCInferenceServiceStub(channel).ModelInfer(pb.ModelInferRequest.FromString(body)).raw_output_contents[0]
        )


if __name__ == "__main__":
    common.main(serve, make_body, ask)
