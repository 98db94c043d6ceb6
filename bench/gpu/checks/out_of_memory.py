"""Whether a server whose device has no memory left answers an error, and goes on when there is some again."""

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc

from bench.gpu.device_memory import all_taken
from bench.gpu.load import calling, make_request, served, serving
from bench.gpu.rows import Row, failed, judged, measured, skipped
from bench.gpu.setting import Part, Setting
from bench.servers import Serving
from regard.v1 import regard_pb2 as api

_ROWS, _LENGTH = 2048, 512
_MAX_BYTES = 2**28  # of the large request, which _MORE_FLAGS allow
# Nothing is refused at admission, and nothing is cut into runs: the engine itself has to run out of memory.
_FLAGS = ("--max-batch-size", str(_ROWS), "--max-batch-tokens", "1000000000", "--max-run-seconds", "1000")
_MORE_FLAGS = ("--max-queue-seconds", "1000", "--max-message-fields", "1000000", "--max-message-bytes", str(2**30))
_SPARE_BYTES = 96 * 2**20  # that the stand-in's server may still take: its front needs some
Call = Callable[[api.PredictRequest], api.PredictResponse]


def check(setting: Setting) -> Iterator[Row]:
    """Ask for a little, take the memory, ask for much, give it back, ask for a little again."""
    parts = served(setting.parts())
    if not parts:
        yield skipped("all of it", "no artifact takes tensors of a plain size")
        return
    part, gpu = parts[-1], setting.choose().gpu
    rows = rows_of(part)
    with serving(setting, [part], *_FLAGS, *_MORE_FLAGS) as one, calling(one) as call:
        little, much = make_request(part, 1, 8), make_request(part, rows, _LENGTH)
        before = call(little)
        with without_memory(gpu, one):
            yield refused(f"{part.name}, {rows} rows without memory", call, much)
        yield again(f"{part.name}, a row after that", call, little, before)


def rows_of(part: Part) -> int:
    """How many rows a request may have, so that the message is not what is refused."""
    return max(min(_ROWS, _MAX_BYTES // make_request(part, 1, _LENGTH).ByteSize()), 1)


def without_memory(gpu: int | None, one: Serving) -> AbstractContextManager[object]:
    """Leave a server no memory to compute in."""
    return _without_own(one.pid) if gpu is None else all_taken(gpu)


@contextmanager
def _without_own(pid: int) -> Iterator[None]:
    """Bound the stand-in's address space by what it has, and a little."""
    pages = int(Path("/proc", str(pid), "statm").read_text().split()[0])
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + _SPARE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def refused(name: str, call: Call, request: api.PredictRequest) -> Row:
    """Ask for what cannot be computed; of a device's memory admission knows nothing, so the engine has to say it."""
    try:
        call(request)
    except grpc.RpcError as error:
        code, shown = error.code(), f"{error.code().name}: {error.details()}"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return skipped(name, f"refused at admission, before the engine was asked: {shown}")
        return judged(name, shown, "INTERNAL", ok=code is grpc.StatusCode.INTERNAL, why="another answer")
    return measured(name, "answered: there was room for it all the same")


def again(name: str, call: Call, request: api.PredictRequest, before: api.PredictResponse) -> Row:
    """Ask for what was answered before."""
    try:
        after = call(request)
    except grpc.RpcError as error:
        return failed(name, str(error), "answered as before")
    same = all(after.outputs[key].data == before.outputs[key].data for key in before.outputs)
    return judged(name, "the same" if same else "another answer", "answered as before", ok=same, why="the bytes differ")
