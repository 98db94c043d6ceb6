"""Messages and pictures damaged as a whole: every answer is a code that blames the caller, and nothing is left."""

import io
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as types
from server.api.open_inference import open_inference_pb2 as pb
from server.config import EMBEDDED_MODELS
from tests.golden import GOLDEN_MODELS
from tests.hostile.mutations import mutate
from tests.processes import CLOTHING, StartProcess

EXAMPLES = int(os.environ.get("REGARD_FUZZ_EXAMPLES", "30"))  # of each message
SECONDS = 30.0
IMAGE = (CLOTHING / "bag.png").read_bytes()
BLAMELESS = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED",
}  # fmt: skip


def attention(**more: Any) -> types.AttentionRequest:  # one keyword a field
    """What is wanted of the attention, with some of every kind of field."""
    return types.AttentionRequest(layers=[0, -1], heads=[0], top_k=3, residual_share=0.3, renormalize=True, **more)


def predict() -> api.PredictRequest:
    """Tensors by name."""
    request = api.PredictRequest(model="tiny-text", outputs=["embedding"], priority=1, timeout_ms=20_000)
    for name in ("input_ids", "attention_mask"):
        tensor = types.Tensor(dtype=types.DATA_TYPE_INT64, shape=[1, 3], data=(1).to_bytes(8, "little") * 3)
        request.inputs[name].CopyFrom(tensor)
    return request


def infer(model: str, name: str, content: bytes, *, raw: bool = False) -> pb.ModelInferRequest:
    """An inference request with parameters of every kind."""
    request = pb.ModelInferRequest(model_name=model, id="7")
    request.parameters["attention"].bool_param = True
    request.parameters["attention_layers"].string_param = "0,-1"
    request.parameters["timeout"].int64_param = 20_000_000
    tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
    if raw:
        request.raw_input_contents.append(len(content).to_bytes(4, "little") + content)
    else:
        tensor.contents.bytes_contents.append(content)
    request.outputs.add(name="attention.0")
    return request


INFER = "inference.GRPCInferenceService/Model"
MESSAGES: tuple[tuple[str, Any], ...] = (
    ("regard.v1.RegardService/Predict", predict()),
    ("regard.v1.RegardService/Classify", api.ClassifyRequest(model="fashion", image=IMAGE, attention=attention())),
    (
        "regard.v1.RegardService/Embed",
        api.EmbedRequest(model="tiny-text", text="the cat", attention=attention(rows=[1])),
    ),
    ("regard.v1.RegardService/Attend", api.AttendRequest(model="tiny-text", text="the cat", attention=attention())),
    ("regard.v1.RegardService/GetModel", api.GetModelRequest(model="fashion", version="1")),
    (f"{INFER}Infer", infer("tiny-text", "text", b"the cat")),
    (f"{INFER}Infer", infer("fashion", "image", IMAGE, raw=True)),
    (f"{INFER}StreamInfer", infer("tiny-text", "text", b"the cat", raw=True)),
    (f"{INFER}Metadata", pb.ModelMetadataRequest(name="fashion", version="1")),
    (f"{INFER}Config", pb.ModelConfigRequest(name="fashion", version="1")),
    (f"{INFER}Statistics", pb.ModelStatisticsRequest(name="fashion", version="1")),
    ("grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service="fashion")),
)


def pictures() -> Iterator[bytes]:
    """Files of every kind, with all the metadata that they may have, and in several modes."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    some = Image.open(io.BytesIO(IMAGE))
    for mode in ("RGB", "L", "P", "1", "RGBA", "CMYK"):
        for kind, options in (
            ("PNG", {"dpi": (300, 300)}), ("JPEG", {"progressive": True, "comment": b"said"}), ("JPEG", {}),
            ("WEBP", {"lossless": True}), ("WEBP", {"save_all": True, "append_images": [some.convert("RGB")]}),
        ):  # fmt: skip
            file = io.BytesIO()
            try:
                some.convert(mode).save(file, kind, exif=exif, icc_profile=bytes(200), **options)
            except OSError:
                continue  # not every format has every mode
            yield file.getvalue()


class Fuzzing:
    """A server, and how calls to it ended."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.codes = Counter[str]()

    def ask(self, path: str, *requests: bytes) -> None:
        """Send them together."""
        if path.endswith("StreamInfer"):
            method: Any = self._channel.stream_stream(f"/{path}")
            answers = [pb.ModelStreamInferResponse.FromString(one) for one in method(iter(requests), timeout=SECONDS)]
            assert len(answers) == len(requests)
            assert not [one for one in answers if "internal error" in one.error_message]
            return
        streams = path.endswith("Attend")
        for request in requests:
            self.codes[_code_of(self._channel, path, request, streams=streams)] += 1


def _code_of(channel: grpc.Channel, path: str, request: bytes, *, streams: bool) -> str:
    method: Any = (channel.unary_stream if streams else channel.unary_unary)(f"/{path}")
    try:
        answer = method(request, timeout=SECONDS)
        if streams:
            list(answer)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def fuzz(
    start_process: StartProcess, capfd: pytest.CaptureFixture[str], tmp_path: Any, ask: Callable[[Fuzzing], None]
) -> None:
    """Run something against a server of its own, which ends without a traceback in its log."""
    for source in (EMBEDDED_MODELS / "fashion", GOLDEN_MODELS / "tiny-text"):
        (tmp_path / source.name).symlink_to(source)
    with start_process("--models", str(tmp_path)) as server, grpc.insecure_channel(server.address) as channel:
        fuzzing = Fuzzing(channel)
        ask(fuzzing)
        assert set(fuzzing.codes) <= BLAMELESS, fuzzing.codes
        assert fuzzing.codes["OK"], "nothing was right: the messages have gone stale"
        assert server.stop() == 0
    assert "Traceback" not in capfd.readouterr().err


def test_damaged_messages_are_answered_or_blamed(
    start_process: StartProcess, capfd: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """Of both protocols."""
    chance = random.Random(0)  # noqa: S311 -- the same every time

    def ask(fuzzing: Fuzzing) -> None:
        for path, message in MESSAGES:
            content = message.SerializeToString()
            fuzzing.ask(path, content, *(mutate(chance, content) for _ in range(EXAMPLES)))

    fuzz(start_process, capfd, tmp_path, ask)


def test_damaged_pictures_are_answered_or_blamed(
    start_process: StartProcess, capfd: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    """Through both protocols; every part of the file may be damaged, metadata and pixels."""
    chance = random.Random(1)  # noqa: S311 -- the same every time

    def ask(fuzzing: Fuzzing) -> None:
        for whole in pictures():
            for content in (whole, *(mutate(chance, whole) for _ in range(EXAMPLES // 3))):
                request = api.ClassifyRequest(model="fashion", image=content)
                fuzzing.ask("regard.v1.RegardService/Classify", request.SerializeToString())
                fuzzing.ask(f"{INFER}Infer", infer("fashion", "image", content).SerializeToString())

    fuzz(start_process, capfd, tmp_path, ask)
