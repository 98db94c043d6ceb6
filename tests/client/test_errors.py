"""Which exception each failure becomes."""

import grpc
import numpy as np
import pytest

import regard
from regard import AsyncClient, Client, RegardError
from regard.tensors import read_tensor
from regard.v1 import types_pb2 as pb
from tests.client.fake import FakeServer, free_address

CLASSES = [
    (grpc.StatusCode.INVALID_ARGUMENT, regard.InvalidArgument),
    (grpc.StatusCode.NOT_FOUND, regard.NotFound),
    (grpc.StatusCode.FAILED_PRECONDITION, regard.FailedPrecondition),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, regard.ResourceExhausted),
    (grpc.StatusCode.UNAVAILABLE, regard.Unavailable),
    (grpc.StatusCode.DEADLINE_EXCEEDED, regard.DeadlineExceeded),
    (grpc.StatusCode.INTERNAL, RegardError),
    (grpc.StatusCode.UNAUTHENTICATED, regard.Unauthenticated),
    (grpc.StatusCode.PERMISSION_DENIED, regard.PermissionDenied),
    (grpc.StatusCode.ABORTED, RegardError),
]


@pytest.mark.parametrize(("code", "kind"), CLASSES, ids=[code.name for code, _ in CLASSES])
def test_each_status_has_its_exception(
    client: Client, server: FakeServer, code: grpc.StatusCode, kind: type[RegardError]
) -> None:
    """It carries the code and the server's own words, and the gRPC error is its cause."""
    server.error = (code, "layers: 99 is out of range")
    with pytest.raises(RegardError) as caught:
        client.classify(text="hm")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message) == (code, "layers: 99 is out of range")
    assert str(caught.value) == f"{code.name}: layers: 99 is out of range"
    assert caught.value.retry_seconds is None
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize(("code", "kind"), CLASSES, ids=[code.name for code, _ in CLASSES])
async def test_each_status_has_its_exception_in_asyncio_too(
    aio_client: AsyncClient, server: FakeServer, code: grpc.StatusCode, kind: type[RegardError]
) -> None:
    """The same tree, with the gRPC error as the cause."""
    server.error = (code, "no")
    with pytest.raises(RegardError) as caught:
        await aio_client.models()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message) == (code, "no")
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_a_full_server_says_when_to_come_back(client: Client, server: FakeServer) -> None:
    """In its trailers, as gRPC's own retries read it."""
    server.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
    server.trailers = (("grpc-retry-pushback-ms", "250"),)
    with pytest.raises(regard.ResourceExhausted) as caught:
        client.classify(text="hm")
    assert caught.value.retry_seconds == 0.25


def test_a_server_that_does_not_answer_in_time_is_given_up(server: FakeServer) -> None:
    """By the client's own timeout, or by that of one call."""
    server.held = True
    with Client(server.address, timeout=0.05) as hasty, pytest.raises(regard.DeadlineExceeded):
        hasty.models()
    with Client(server.address) as patient, pytest.raises(regard.DeadlineExceeded):
        patient.embed(text="hm", timeout=0.05)


def test_nobody_listening_is_unavailable() -> None:
    """At the first call, not when the client is made."""
    with Client(free_address()) as client, pytest.raises(regard.Unavailable, match="refused"):
        client.models()


def test_an_answer_larger_than_allowed_is_refused(server: FakeServer) -> None:
    """The limit is the client's option; the default takes far more."""
    array = np.zeros(2**21, np.float32)
    with Client(server.address, max_message_bytes=2**20) as small, pytest.raises(regard.ResourceExhausted):
        small.predict({"x": array})


def test_a_broken_tensor_is_the_servers_fault() -> None:
    """Too few bytes, or a type from the future."""
    with pytest.raises(RegardError, match=r"INTERNAL: .* 4 bytes for float32 \[2\]"):
        read_tensor(pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[2], data=b"\0\0\0\0"))
    with pytest.raises(RegardError, match=r"INTERNAL: .* unknown type 0"):
        read_tensor(pb.Tensor(shape=[2], data=b"\0\0"))


@pytest.mark.parametrize("hint", ["-1", "soon", "1.5", ""])
def test_a_hint_that_is_no_time_is_no_hint(client: Client, server: FakeServer, hint: str) -> None:
    """A server says with it that trying again is of no use."""
    server.error = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
    server.trailers = (("grpc-retry-pushback-ms", hint),)
    with pytest.raises(regard.ResourceExhausted) as caught:
        client.classify(text="hm")
    assert caught.value.retry_seconds is None
