"""Whether a server whose device has no memory left answers an error, and goes on when there is some again."""

import gc
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc

from bench.gpu.device_memory import take_all
from bench.gpu.load import calling, make_request, served, serving
from bench.gpu.rows import Row, failed, judged, measured, skipped
from bench.gpu.setting import Setting
from bench.servers import Serving
from regard.v1 import regard_pb2 as api

_ROWS, _LENGTH = 2048, 512
# Nothing is refused at admission, and nothing is cut into runs: the engine itself has to run out of memory.
_FLAGS = ("--max-batch-size", str(_ROWS), "--max-batch-tokens", "1000000000", "--max-run-seconds", "1000")
_MORE_FLAGS = ("--max-queue-seconds", "1000", "--max-message-fields", "1000000", "--max-message-bytes", str(2**30))
_SPARE_BYTES = 96 * 2**20  # that the stand-in's server may still take: its front needs some
_ANSWERS = ("INTERNAL", "RESOURCE_EXHAUSTED")
Call = Callable[[api.PredictRequest], api.PredictResponse]


def check(setting: Setting) -> Iterator[Row]:
    """Ask for a little, take the memory, ask for much, give it back, ask for a little again."""
    parts = served(setting.parts())
    if not parts:
        yield skipped("all of it", "no artifact takes tensors of a plain size")
        return
    part = parts[-1]
    with serving(setting, *_FLAGS, *_MORE_FLAGS) as one, calling(one) as call:
        little, much = make_request(part, 1, 8), make_request(part, _ROWS, _LENGTH)
        before = call(little)
        with without_memory(setting, one):
            yield refused(f"{part.name}, {_ROWS} rows without memory", call, much)
        yield again(f"{part.name}, a row after that", call, little, before)


def without_memory(setting: Setting, one: Serving) -> AbstractContextManager[None]:
    """Leave a server no memory to compute in."""
    return _without_own(one.pid) if setting.is_stand_in else _without_device(setting)


@contextmanager
def _without_device(setting: Setting) -> Iterator[None]:
    taken = take_all(setting.choose())
    try:
        yield
    finally:
        taken.clear()
        gc.collect()


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
    """Ask for what cannot be computed."""
    try:
        call(request)
    except grpc.RpcError as error:
        code = error.code().name
        return judged(name, code, " or ".join(_ANSWERS), ok=code in _ANSWERS, why=str(error.details()))
    return measured(name, "answered: there was room for it all the same")


def again(name: str, call: Call, request: api.PredictRequest, before: api.PredictResponse) -> Row:
    """Ask for what was answered before."""
    try:
        after = call(request)
    except grpc.RpcError as error:
        return failed(name, str(error), "answered as before")
    same = all(after.outputs[key].data == before.outputs[key].data for key in before.outputs)
    return judged(name, "the same" if same else "another answer", "answered as before", ok=same, why="the bytes differ")
