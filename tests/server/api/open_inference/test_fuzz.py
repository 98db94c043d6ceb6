"""Whatever is sent, the server answers, with a code that blames the caller; REGARD_FUZZ_EXAMPLES makes it longer."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.api.open_inference import open_inference_pb2 as pb
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.open_inference.tensors import DATATYPE_OF
from server.config import EMBEDDED_MODELS
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS

EXAMPLES = int(os.environ.get("REGARD_FUZZ_EXAMPLES", "400"))
SECONDS = 30.0
BLAMELESS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
}
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Target:
    """A server in a process of its own."""

    channel: grpc.Channel
    process: subprocess.Popen[str]

    @property
    def stub(self) -> GRPCInferenceServiceStub:
        """Its methods."""
        return GRPCInferenceServiceStub(self.channel)

    def memory_mb(self) -> float:
        """Its resident memory."""
        status = Path("/proc", str(self.process.pid), "status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1e3


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Started once."""
    folder = tmp_path_factory.mktemp("models")
    for source in (BARE_ONNX_MODELS, GOLDEN_MODELS, EMBEDDED_MODELS):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    command = [sys.executable, "-m", "server", "--models", str(folder), "--listen", "127.0.0.1:0"]
    command += ["--metrics", "127.0.0.1:0", "--device", "cpu", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = next(line.split()[2].rstrip(",") for line in process.stdout if line.startswith("gRPC on "))
        with grpc.insecure_channel(address) as channel:
            yield Target(channel, process)
        process.terminate()
        _, said = process.communicate(timeout=SECONDS)
        assert "Traceback" not in said, said[-3000:]
        assert process.returncode == 0


names = st.sampled_from(["", "x", "y", "input_ids", "attention_mask", "pixel_values", "text", "image"]) | st.text(
    max_size=8
)
models = st.sampled_from(["tiny-text", "fashion", "free", "fixed", "words", "every-type"]) | st.text(max_size=5)
datatypes = st.sampled_from(sorted(DATATYPE_OF.values())) | st.text(max_size=4)
sizes = st.integers(0, 5) | st.sampled_from([-1, 28, 2**31, 2**62, 2**63 - 1])
parameter = st.one_of(
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(pb.InferParameter, double_param=st.floats()),
    st.builds(
        pb.InferParameter,
        string_param=st.sampled_from(
            ["cls", "all", "mean", "FP16", "-1", "0,1", "9" * 400, "positive", '["positive"]', "genatt"]
        )
        | st.text(max_size=6),
    ),
    st.just(pb.InferParameter()),
)
known = ["priority", "timeout", "attention", "attention_layers", "attention_heads", "attention_rows"]
known += ["attention_reduce", "attention_dtype", "truncate", "prompt", "triton_x"]
known += ["relevance", "relevance_label", "relevance_against", "relevance_labels", "relevance_top", "relevance_method"]
known += ["relevance_steps", "relevance_drop_special"]
asked = st.dictionaries(st.sampled_from(known) | st.text(max_size=6), parameter, max_size=3)
placed = st.dictionaries(
    st.sampled_from(["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"]), parameter, max_size=3
)
contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=3),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
    uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=3),
    fp32_contents=st.lists(st.floats(width=32), max_size=6),
    bytes_contents=st.lists(st.binary(max_size=9), max_size=3),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=datatypes,
    shape=st.lists(sizes, max_size=4),
    parameters=placed | st.just({}),
    contents=contents | st.just(pb.InferTensorContents()),
)
outputs = st.builds(
    pb.ModelInferRequest.InferRequestedOutputTensor,
    name=st.sampled_from(["logits", "embedding", "attention.0", "attention.9", "relevance.values", "y"])
    | st.text(max_size=12),
    parameters=placed | st.just({}),
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=models,
    model_version=st.sampled_from(["", "1"]) | st.text(max_size=4),
    id=st.text(max_size=5),
    parameters=asked,
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(outputs, max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=64), max_size=3),
)


@st.composite
def nearly_right(draw: st.DrawFn) -> pb.ModelInferRequest:
    """A request that the text model answers, but for a little."""
    length = draw(st.integers(1, 70))
    request = pb.ModelInferRequest(model_name="tiny-text", parameters=draw(asked))
    for name in ("input_ids", "attention_mask"):
        request.inputs.add(name=name, datatype="INT64", shape=[1, length])
        values = draw(st.lists(st.integers(-1, 130) | st.just(2**63 - 1), min_size=length, max_size=length))
        request.raw_input_contents.append(b"".join(value.to_bytes(8, "little", signed=True) for value in values))
    if draw(st.booleans()):
        request.raw_input_contents[1] = (1).to_bytes(8, "little") * length
    return request


def code_of(call: Any, request: Any) -> grpc.StatusCode:
    """What becomes of a request."""
    try:
        call(request, timeout=SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@many
@given(request_=requests | nearly_right())
def test_any_request_is_answered_or_blamed(target: Target, request_: pb.ModelInferRequest) -> None:
    """By every field of it."""
    assert code_of(target.stub.ModelInfer, request_) in BLAMELESS


@many
@given(
    content=st.binary(max_size=200), method=st.sampled_from(["ModelInfer", "ModelConfig", "SystemSharedMemoryRegister"])
)
def test_bytes_that_are_no_message_are_refused(target: Target, content: bytes, method: str) -> None:
    """Without a trace in the log; the next request is answered."""
    call: Any = target.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    assert code_of(call, content) in BLAMELESS
    assert target.stub.ServerLive(pb.ServerLiveRequest(), timeout=SECONDS).live


@many
@given(content=st.binary(max_size=300), model=st.sampled_from(["fashion", "tiny-text", "words"]))
def test_any_bytes_as_an_input_are_answered_or_blamed(target: Target, content: bytes, model: str) -> None:
    """As a picture, a text, or strings."""
    name = {"fashion": "image", "tiny-text": "text", "words": "x"}[model]
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype="BYTES", shape=[1]).contents.bytes_contents.append(content)
    assert code_of(target.stub.ModelInfer, request) in BLAMELESS


@many
@given(parts=st.lists(st.binary(max_size=40) | requests.map(pb.ModelInferRequest.SerializeToString), max_size=4))
def test_a_stream_of_anything_is_answered_one_by_one(target: Target, parts: list[bytes]) -> None:
    """Each with an error of its own, or an answer."""
    call: Any = target.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    answers = [pb.ModelStreamInferResponse.FromString(one) for one in call(iter(parts), timeout=SECONDS)]
    assert len(answers) == len(parts)
    assert not any("internal error" in answer.error_message for answer in answers)


def test_nothing_of_it_stays_in_memory(target: Target) -> None:
    """The same thousand bad requests again take no more."""
    request = pb.ModelInferRequest(model_name="tiny-text", raw_input_contents=[bytes(100_000)])
    request.inputs.add(name="input_ids", datatype="INT64", shape=[1, 3])

    def ask() -> None:
        for _ in range(1000):
            assert code_of(target.stub.ModelInfer, request) == grpc.StatusCode.INVALID_ARGUMENT

    ask()
    before = target.memory_mb()
    ask()
    assert target.memory_mb() < before + 50  # all of them are 100 MB
