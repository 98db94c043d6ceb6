"""Calls come, are cancelled, run late, lose their connection and meet a stopping server, in any order."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from regard.v1 import regard_pb2 as api
from server.api.open_inference import open_inference_pb2 as pb
from server.app import serve
from tests.golden import GOLDEN_MODELS
from tests.server.conftest import make_config

EXAMPLES = int(os.environ.get("REGARD_FUZZ_EXAMPLES", "60")) // 20
SECONDS = 60.0
TEXT = "the cat sat on the mat"
REGARD, INFERENCE = "/regard.v1.RegardService", "/inference.GRPCInferenceService"
Code = grpc.StatusCode
_OF_THE_CLIENT = "Internal error from Core"  # grpc.aio's own, where a call ended before it was sent


def infer() -> bytes:
    """Write a request of the Open Inference Protocol, with attention."""
    request = pb.ModelInferRequest(model_name="tiny-text")
    request.parameters["attention"].bool_param = True
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(TEXT.encode())
    return request.SerializeToString()


EMBED = api.EmbedRequest(model="tiny-text", text=TEXT).SerializeToString()
METHODS = {
    "Embed": (f"{REGARD}/Embed", "unary_unary", EMBED),
    "Attend": (f"{REGARD}/Attend", "unary_stream", EMBED),  # model and text have the same numbers in both
    "ModelInfer": (f"{INFERENCE}/ModelInfer", "unary_unary", infer()),
    "ModelStreamInfer": (f"{INFERENCE}/ModelStreamInfer", "stream_stream", infer()),
}


@dataclass
class Call:
    """A call that was begun, and how it may end."""

    task: "asyncio.Task[Code]"
    call: Any
    channel: int
    may_end: set[Code] = field(default_factory=lambda: {Code.OK})


class Interleavings(RuleBasedStateMachine):
    """Drives a server in its own event loop, which runs only while a rule does."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.calls = list[Call]()
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.stop = asyncio.Event()
        started = asyncio.get_running_loop().create_future()
        config = make_config(models=GOLDEN_MODELS, drain_seconds=SECONDS)
        self.server = asyncio.create_task(serve(config, self.stop, started.set_result))
        await asyncio.wait([self.server, started], return_when=asyncio.FIRST_COMPLETED)
        self.address = started.result().address
        self.channels = [await self._open() for _ in range(2)]

    async def _open(self) -> grpc.aio.Channel:
        """Open a connection of its own, within the event loop that it belongs to."""
        return grpc.aio.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    @rule(
        method=st.sampled_from(sorted(METHODS)),
        deadline=st.sampled_from((None, None, 0.001, 0.01, 0.1)),
        count=st.integers(1, 6),
        channel=st.integers(0, 1),
    )
    def ask(self, method: str, deadline: float | None, count: int, channel: int) -> None:
        """Calls are begun, with or without a deadline."""
        for _ in range(count):
            self.loop.run_until_complete(self._ask(method, deadline, channel))

    async def _ask(self, method: str, deadline: float | None, channel: int) -> None:
        path, kind, request = METHODS[method]
        make = getattr(self.channels[channel], kind)(path)
        call = make(_repeat(request) if kind == "stream_stream" else request, timeout=deadline or SECONDS)
        begun = Call(asyncio.create_task(_code_of(call, kind)), call, channel)
        if deadline:
            begun.may_end.add(Code.DEADLINE_EXCEEDED)
        if self.stop.is_set():
            begun.may_end.add(Code.UNAVAILABLE)
        self.calls.append(begun)

    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        """A caller gives one up."""
        if pending := [call for call in self.calls if not call.task.done()]:
            pending[which % len(pending)].may_end.add(Code.CANCELLED)
            self.loop.run_until_complete(_cancel(pending[which % len(pending)].call))

    @rule(channel=st.integers(0, 1))
    def disconnect(self, channel: int) -> None:
        """A caller goes, with all its calls."""
        for call in self.calls:
            if call.channel == channel:
                call.may_end.update({Code.CANCELLED, Code.UNAVAILABLE})
        self.loop.run_until_complete(self._disconnect(channel))

    async def _disconnect(self, channel: int) -> None:
        await self.channels[channel].close()
        self.channels[channel] = await self._open()

    @rule(seconds=st.sampled_from((0.0, 0.001, 0.01)))
    def go_on(self, seconds: float) -> None:
        """The server and its callers run for a moment."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def finish(self) -> None:
        """Every call ends as it may, and the server without an error."""
        self.loop.run_until_complete(self._answer())
        self.stop.set()
        self.loop.run_until_complete(self._end())

    async def _answer(self) -> None:
        for call in self.calls:
            code = await asyncio.wait_for(call.task, SECONDS)
            assert code in call.may_end, (
                f"{code.name}: {await call.call.details()}; expected {', '.join(one.name for one in call.may_end)}"
            )

    async def _end(self) -> None:
        await asyncio.wait_for(self.server, SECONDS)
        for channel in self.channels:
            await channel.close()

    def teardown(self) -> None:
        """The same at the end."""
        self.finish()
        self.loop.close()


class Stopping(Interleavings):
    """The server may stop while there are calls."""

    @rule()
    def begin_to_stop(self) -> None:
        """It goes on with what it has accepted; the rest is told that it stops."""
        for call in self.calls:
            call.may_end.add(Code.UNAVAILABLE)
        self.stop.set()

    def finish(self) -> None:
        """See above."""
        self.begin_to_stop()
        super().finish()


async def _repeat(request: bytes) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield request


async def _code_of(call: Any, kind: str) -> Code:
    """Read all answers; returns how the call ended."""
    try:
        if kind == "unary_unary":
            await call
        else:
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        return Code.OK if error.details() == _OF_THE_CLIENT else error.code()
    except asyncio.CancelledError:
        return Code.CANCELLED
    return Code.OK


async def _cancel(call: Any) -> None:
    call.cancel()


_settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=15,
    deadline=None,
    phases=(Phase.generate,),  # what fails once may succeed the next time, so that it cannot be made smaller
)
Interleavings.TestCase.settings = Stopping.TestCase.settings = _settings
TestInterleavings = Interleavings.TestCase
TestStopping = Stopping.TestCase
