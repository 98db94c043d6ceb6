"""Keeps whatever uses a GPU apart from the capture of a CUDA graph, which must be alone in the process.

ONNX Runtime captures in CUDA's global mode. While one thread does, calls such as cudaMalloc and cudaMemcpy fail in all
others, and spoil the capture (CUDA Runtime API, cudaStreamBeginCapture and cudaThreadExchangeStreamCaptureMode). To
replay is a use like any other. What is freed meanwhile is not held back: a capture that this spoils fails, and its load
says so.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CaptureGate:
    """Any number of uses at a time, or one capture, which goes before uses that come later.

    No use may lie within another one: a capture that waits between them would stop both.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._uses = 0
        self._captures = 0  # those that wait, and the one that is on
        self._is_capturing = False

    @contextmanager
    def use(self) -> Iterator[None]:
        """Use a GPU."""
        with self._changed:
            self._changed.wait_for(lambda: not self._captures)
            self._uses += 1
        try:
            yield
        finally:
            with self._changed:
                self._uses -= 1
                self._changed.notify_all()

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Use one alone."""
        with self._changed:
            self._captures += 1
            self._changed.wait_for(lambda: not self._uses and not self._is_capturing)
            self._is_capturing = True
        try:
            yield
        finally:
            with self._changed:
                self._captures -= 1
                self._is_capturing = False
                self._changed.notify_all()


GATE = CaptureGate()
