"""One message that is small on the way, or says little, and becomes large."""

from collections import Counter
from itertools import starmap
from typing import Any

import grpc
import pytest

from server.api.open_inference import open_inference_pb2 as pb
from tests.hostile.asking import ask, channel_of
from tests.hostile.measure import IS_FULL, Attack, Target, Withstand, cases

INFER, STREAM = (f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelStreamInfer"))
CLASSIFY, PREDICT = "/regard.v1.RegardService/Classify", "/regard.v1.RegardService/Predict"
SIZE = 62 * 10**6 if IS_FULL else 8 * 10**6  # bytes of a message
MAX_GROWTH_MB = 320.0 if IS_FULL else 96.0  # gRPC has three copies of a message for a moment, one is parsed
SECONDS = 60.0
LISTS = ("layers", 1), ("heads", 2), ("rows", 4), ("keys", 7)  # of AttentionRequest


def send(target: Target, path: str, *messages: bytes) -> "Counter[str]":
    """Send messages at once."""
    return ask(target, path, *messages, seconds=SECONDS)


def field(number: int, content: bytes) -> bytes:
    """Write a field of bytes, as protobuf does."""
    length, prefix = len(content), bytearray([number << 3 | 2])
    while length >= 128:
        prefix.append(length % 128 + 128)
        length //= 128
    return bytes(prefix) + bytes([length]) + content


def infer(*more: bytes) -> bytes:
    """Write a ModelInferRequest to the image model."""
    return field(1, b"fashion") + b"".join(more)


def empty_inputs(target: Target) -> "Counter[str]":
    """2 bytes each."""
    return send(target, INFER, infer(b"\x2a\0" * (SIZE // 2)))


def empty_outputs(target: Target) -> "Counter[str]":
    """Likewise."""
    return send(target, INFER, infer(b"\x32\0" * (SIZE // 2)))


def empty_raw_contents(target: Target) -> "Counter[str]":
    """Likewise."""
    return send(target, INFER, infer(b"\x3a\0" * (SIZE // 2)))


def empty_parameters(target: Target) -> "Counter[str]":
    """Entries of a map, all of the same key."""
    return send(target, INFER, infer(b"\x22\0" * (SIZE // 2)))


def empty_contents_of_an_input(target: Target) -> "Counter[str]":
    """Strings of no bytes, two levels down."""
    contents = field(1, b"image") + field(2, b"BYTES") + field(5, b"\x42\0" * (SIZE // 2))
    return send(target, INFER, infer(field(5, contents)))


def typed_integers(target: Target) -> "Counter[str]":
    """8 MB of int64_contents, a byte each."""
    count = 8 * 10**6
    tensor = pb.ModelInferRequest.InferInputTensor(name="pixel_values", datatype="INT64", shape=[count])
    return send(target, INFER, infer(field(5, tensor.SerializeToString() + field(5, field(3, b"\1" * count)))))


def empty_strings_in_raw_contents(target: Target) -> "Counter[str]":
    """BYTES of a shape of millions, 4 bytes each."""
    count = SIZE // 4
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[count])
    return send(target, INFER, infer(field(5, tensor.SerializeToString()), field(7, bytes(4 * count))))


def long_shape(target: Target) -> "Counter[str]":
    """Millions of axes of size 1."""
    tensor = field(1, b"pixel_values") + field(2, b"FP32") + field(3, b"\1" * SIZE)
    return send(target, INFER, infer(field(5, tensor)))


def long_attention_layers(target: Target) -> "Counter[str]":
    """attention_layers = "0,0,0..."."""
    parameter = field(1, b"attention_layers") + field(2, field(3, b"0," * (SIZE // 2) + b"0"))
    return send(target, INFER, infer(field(4, parameter)))


def long_name_of_an_input(target: Target) -> "Counter[str]":
    """It would stand in the refusal."""
    return send(target, INFER, infer(field(5, field(1, b"x" * SIZE))))


def long_list(name: str, number: int) -> Attack:
    """Make an attack of a list of AttentionRequest, which is packed: a byte each."""

    def attack(target: Target) -> "Counter[str]":
        return send(target, CLASSIFY, field(1, b"fashion") + field(7, field(number, bytes(SIZE))))

    attack.__name__ = f"long_{name}"
    return attack


def empty_names_of_outputs(target: Target) -> "Counter[str]":
    """Of Predict."""
    return send(target, PREDICT, field(1, b"fashion") + b"\x22\0" * (SIZE // 2))


def empty_tensors_by_name(target: Target) -> "Counter[str]":
    """Entries of Predict's map, all of the same key."""
    return send(target, PREDICT, field(1, b"fashion") + b"\x1a\0" * (SIZE // 2))


def empty_inputs_at_once(target: Target) -> "Counter[str]":
    """By eight callers."""
    return send(target, INFER, *[infer(b"\x2a\0" * (SIZE // 16))] * 8)


def zeros_compressed(target: Target) -> "Counter[str]":
    """A picture of nothing, larger than a message may be once it is inflated."""
    message = field(1, b"fashion") + field(3, bytes(70 * 10**6))
    calls = range(8 if IS_FULL else 1)  # one after the other: each takes the caller as much memory
    asked = [ask(target, CLASSIFY, message, seconds=SECONDS, compression=grpc.Compression.Gzip) for _ in calls]
    return sum(asked, Counter())


def stream_of_empty_inputs(target: Target) -> "Counter[str]":
    """Many in one stream."""
    with channel_of(target) as channel:
        method: Any = channel.stream_stream(STREAM)
        stream = method(iter([infer(b"\x2a\0" * (SIZE // 16))] * 8), metadata=target.metadata, timeout=SECONDS)
        try:
            answers = [pb.ModelStreamInferResponse.FromString(one) for one in stream]
        except grpc.RpcError as error:
            return Counter([error.code().name])
    return Counter("error" if one.error_message else "OK" for one in answers)


ATTACKS: tuple[Attack, ...] = (
    empty_inputs, empty_outputs, empty_raw_contents, empty_parameters, empty_contents_of_an_input, typed_integers,
    empty_strings_in_raw_contents, long_shape, long_attention_layers, long_name_of_an_input, *starmap(long_list, LISTS),
    empty_names_of_outputs, empty_tensors_by_name, empty_inputs_at_once, stream_of_empty_inputs,
)  # fmt: skip


CODES = ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "error")


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_a_message_is_refused_before_it_becomes_large(attack: Attack, withstand: Withstand) -> None:
    """Its fields and elements are counted first; the loop goes on, and the honest caller is answered."""
    withstand(attack, CODES, MAX_GROWTH_MB)


def test_a_message_inflates_to_its_limit_and_no_further(withstand: Withstand) -> None:
    """64 MB, unless --max-message-bytes says otherwise."""
    withstand(zeros_compressed, CODES, max_growth_mb=256)
