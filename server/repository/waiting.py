"""Threads that wait for disks and stores, which may never answer: a server that ends does not wait for them."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


class WaitingThreads(Executor):
    """Runs calls in the order in which they came, some at a time, in daemon threads.

    The interpreter joins the threads of a ThreadPoolExecutor when it ends, so one call that hangs would keep the
    process. A thread ends when no call is left.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._free, self._name, self._lock = max_threads, name, Lock()
        self._calls = deque[tuple[Future[Any], Callable[[], Any]]]()

    def submit(self, call: Callable[Given, Found], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Found]:
        """Have a call made; its future can be given up while it waits for a thread."""
        future = Future[Found]()
        with self._lock:
            if self._free:
                Thread(target=self._work, name=self._name, daemon=True).start()
                self._free -= 1
            self._calls.append((future, partial(call, *args, **kwargs)))
        return future

    def _work(self) -> None:
        while work := self._next():
            _answer(*work)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._free += 1
            return None


def _answer(future: Future[Any], call: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(call())
        except BaseException as error:  # which is told to whoever waits
            future.set_exception(error)
