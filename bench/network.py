"""Faults of the network between client and server: `python -m bench.network`, as root, with iproute2 and iptables.

The server runs in a network namespace of its own behind a veth pair, so that nothing but this link is disturbed.
Callers have deadlines of two seconds, gRPC's retries and keepalive, as docs/operations.md advises. Delay is made by a
relay between them, since not every kernel has netem.
"""

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc

from bench.servers import only
from bench.workloads import TEXT, make_requests
from regard.v1.regard_pb2_grpc import RegardServiceStub

_SPACE, _HERE, _THERE = "regard-faults", "10.211.0.1", "10.211.0.2"
_RETRIES = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s",
  "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
_DEADLINE_SECONDS, _CALLERS = 2.0, 4
_DELAY_SECONDS = 0.1  # each way
_INSIDE = ["ip", "netns", "exec", _SPACE]
_INPUT = "INPUT --in-interface regard0"
# What is done to the link from the server's side, and undone.
_FAULTS = {
    "none": ("true", "true"),
    "5 % of the packets lost": tuple(
        f"iptables {how} {_INPUT} -m statistic --mode random --probability 0.05 -j DROP" for how in ("-A", "-D")
    ),
    "connections reset": tuple(
        f"iptables {how} {_INPUT} -p tcp -j REJECT --reject-with tcp-reset" for how in ("-A", "-D")
    ),
    "black hole": tuple(f"iptables {how} {_INPUT} -j DROP" for how in ("-A", "-D")),
    "link down": ("ip link set regard0 down", "ip link set regard0 up"),
    "1 Mbit a second": (
        "tc qdisc add dev regard0 root tbf rate 1mbit burst 4kb latency 50ms",
        "tc qdisc del dev regard0 root",
    ),
}


def main() -> None:
    """Disturb the link in each way for some seconds, and print what callers saw during and after."""
    parser = argparse.ArgumentParser(prog="python -m bench.network", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each fault, and after it")
    args = parser.parse_args()
    missing = [tool for tool in ("ip", "iptables", "tc") if not shutil.which(tool)]
    if os.geteuid() or missing:
        sys.exit(f"bench.network: expected root, and {', '.join(missing) or 'nothing else'}")
    print("| fault | during: answered | other ends | after: answered | other ends | first answer after, s |")
    print("|---|---|---|---|---|---|")
    with only(args.models, TEXT.model) as folder, serving(folder) as address:
        for name, (doing, undoing) in _FAULTS.items():
            do, undo = (partial(_run, [*_INSIDE, *command.split()]) for command in (doing, undoing))
            print(f"| {name} | {disturb(address, do, undo, args.seconds)} |", flush=True)
        with _Relay(address) as relay:
            do, undo = (partial(setattr, relay, "delay_seconds", delay) for delay in (_DELAY_SECONDS, 0.0))
            told = disturb(relay.address, do, undo, args.seconds)
            print(f"| {_DELAY_SECONDS * 1e3:.0f} ms of delay each way | {told} |")


def disturb(address: str, do: Callable[[], None], undo: Callable[[], None], seconds: float) -> str:
    """Do something to the link while callers ask, undo it, and tell what they saw."""
    callers = _Callers(address)
    try:
        callers.wait_for_answers()
        do()
        try:
            during = callers.count(seconds)
        finally:
            undo()
        mended = time.monotonic()
        after = callers.count(seconds)
    finally:
        callers.end()
    return f"{_told(during)} | {_told(after)} | {callers.first_answer_after(mended) - mended:.1f}"


@contextmanager
def serving(models: Path) -> Iterator[str]:
    """A server behind a link of its own."""
    start = [*_INSIDE, sys.executable, "-m", "server", "--models", str(models), "--listen", f"{_THERE}:8001"]
    start += ["--metrics", "127.0.0.1:0", "--allow-insecure", "--log-level", "warning"]
    try:
        for command in (
            f"ip netns add {_SPACE}",
            f"ip link add regard1 type veth peer name regard0 netns {_SPACE}",
            f"ip addr add {_HERE}/24 dev regard1",
            "ip link set regard1 up",
            f"{' '.join(_INSIDE)} ip addr add {_THERE}/24 dev regard0",
            f"{' '.join(_INSIDE)} ip link set regard0 up",
            f"{' '.join(_INSIDE)} ip link set lo up",
        ):
            _run(command.split())
        with subprocess.Popen(start, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 -- our own
            next(line for line in process.stdout or () if line.startswith("ready"))
            try:
                yield f"{_THERE}:8001"
            finally:
                process.send_signal(signal.SIGTERM)
    finally:
        for undoing in (["ip", "link", "del", "regard1"], ["ip", "netns", "del", _SPACE]):
            subprocess.run(undoing, check=False, capture_output=True)  # noqa: S603 -- what there is of both


class _Relay:
    """Passes bytes on between callers and a server, late by `delay_seconds` in each direction."""

    def __init__(self, target: str) -> None:
        self.delay_seconds, self.address = 0.0, ""
        self._target, self._ready = target, threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "_Relay":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        listening = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = "{}:{}".format(*listening.sockets[0].getsockname())
        self._ready.set()
        await self._ended.wait()
        listening.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.split(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late = asyncio.Queue[tuple[float, bytes]]()

        async def write() -> None:
            while True:
                due, data = await late.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    return writer.close()
                writer.write(data)

        writing = asyncio.create_task(write())
        data = b"more"
        while data:
            data = await reader.read(2**16)
            late.put_nowait((self._loop.time() + self.delay_seconds, data))
        await writing


class _Callers:
    """Callers that ask again and again, each on a connection of its own."""

    def __init__(self, address: str) -> None:
        self._address, self._ended, self._lock = address, threading.Event(), threading.Lock()
        self._ends = list[tuple[float, str]]()
        self._threads = [threading.Thread(target=self._call) for _ in range(_CALLERS)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        options: list[tuple[str, object]] = [("grpc.service_config", _RETRIES), ("grpc.use_local_subchannel_pool", 1)]
        options += [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 2_000)]
        request = make_requests(TEXT.model, TEXT.size, "none")[0]
        with grpc.insecure_channel(self._address, [*options, ("grpc.max_reconnect_backoff_ms", 1000)]) as channel:
            stub = RegardServiceStub(channel)
            while not self._ended.is_set():
                code = "OK"
                try:
                    stub.Predict(request, timeout=_DEADLINE_SECONDS)
                except grpc.RpcError as error:
                    code = error.code().name
                with self._lock:
                    self._ends.append((time.monotonic(), code))

    def wait_for_answers(self) -> None:
        """Wait until everyone has connected."""
        while sum(code == "OK" for _, code in list(self._ends)) < 10 * _CALLERS:
            self._ended.wait(0.05)

    def count(self, seconds: float) -> Counter[str]:
        """How calls end within the next seconds."""
        began = time.monotonic()
        self._ended.wait(seconds)
        with self._lock:
            return Counter(code for at, code in self._ends if at >= began)

    def first_answer_after(self, moment: float) -> float:
        """When the first call was answered that ended later; infinite where none was."""
        with self._lock:
            return min((at for at, code in self._ends if at >= moment and code == "OK"), default=float("inf"))

    def end(self) -> None:
        """Let the last calls end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def _told(ends: Counter[str]) -> str:
    others = ", ".join(f"{count} {code}" for code, count in sorted(ends.items()) if code != "OK")
    return f"{ends['OK']} | {others or 'none'}"


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 -- the commands above


if __name__ == "__main__":
    main()
