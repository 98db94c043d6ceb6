"""Uses of a GPU and captures of CUDA graphs, which exclude each other."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.engine.capture_gate import CaptureGate


def test_uses_do_not_wait_for_each_other() -> None:
    """Each is there while the other is."""
    gate, meeting = CaptureGate(), threading.Barrier(2, timeout=30)

    def use() -> None:
        with gate.use():
            meeting.wait()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(use) for _ in range(2)]:
            done.result(30)


class Waits(threading.Condition):
    """Says when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.began = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.began.set()
        return super().wait(timeout)


@pytest.mark.parametrize(("first", "second"), [("use", "capture"), ("capture", "use"), ("capture", "capture")])
def test_a_capture_is_alone(first: str, second: str) -> None:
    """What comes second waits until the first has ended."""
    gate, order, inside, ends = CaptureGate(), list[str](), threading.Event(), threading.Event()
    gate._changed = waits = Waits()

    def hold() -> None:
        with getattr(gate, first)():
            inside.set()
            ends.wait(30)
            order.append("the first ends")

    def follow() -> None:
        with getattr(gate, second)():
            order.append("the second is in")

    with ThreadPoolExecutor(2) as threads:
        holding = threads.submit(hold)
        assert inside.wait(30)
        following = threads.submit(follow)
        is_waiting = waits.began.wait(10)
        ends.set()
        holding.result(30)
        following.result(30)
    assert is_waiting
    assert order == ["the first ends", "the second is in"]


def test_a_capture_goes_before_uses_that_come_later() -> None:
    """Else a busy server would never let one be."""
    gate, order = CaptureGate(), list[str]()
    gate._changed = waits = Waits()

    def work(kind: str) -> None:
        with getattr(gate, kind)():
            order.append(kind)

    with ThreadPoolExecutor(2) as threads:
        with gate.use():
            waiting = []
            for kind in ("capture", "use"):
                waits.began.clear()
                waiting.append(threads.submit(work, kind))
                assert waits.began.wait(10)
        for done in waiting:
            done.result(30)
    assert order == ["capture", "use"]


def test_what_fails_lets_others_in() -> None:
    """Whichever it was."""
    gate = CaptureGate()
    for kind in (gate.use, gate.capture, gate.use):
        with pytest.raises(ValueError, match="broken"), kind():
            raise ValueError("broken")
    with gate.capture():
        pass
