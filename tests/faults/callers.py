"""Callers who ask again and again, and waiting for what happens."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub


class Callers:
    """Callers that ask again as soon as they are answered, and a little later where they were not."""

    def __init__(self, address: str, count: int, service_config: str, ask: Callable[[RegardServiceStub], Any]) -> None:
        """Begin."""
        self._ask = ask
        self.codes: Counter[str] = Counter()
        self.messages = list[str]()
        self._address, self._service_config = address, service_config
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def end(self) -> Counter[str]:
        """Let calls that are on their way end; returns how calls ended."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self.codes

    def _call(self) -> None:
        options = [("grpc.service_config", self._service_config), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self._address, [*options, ("grpc.max_reconnect_backoff_ms", 200)]) as channel:
            stub = RegardServiceStub(channel)
            while not self._ended.is_set():
                code = "OK"
                try:
                    self._ask(stub)
                except grpc.RpcError as error:
                    code = error.code().name
                    self.messages.append(error.details() or "")
                    self._ended.wait(0.05)
                with self._lock:
                    self.codes[code] += 1


def embed(stub: RegardServiceStub) -> None:
    """What a caller asks."""
    stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"), timeout=60)


def wait_until(happens: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again; the condition decides, not the time."""
    ends, tick = time.monotonic() + seconds, threading.Event()
    while not happens():
        assert time.monotonic() < ends, "it does not happen"
        tick.wait(0.01)
