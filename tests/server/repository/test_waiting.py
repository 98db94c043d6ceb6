"""Threads for what may hang: so many at a time, in order."""

from threading import Event

import pytest

from server.repository.waiting import WaitingThreads


def test_so_many_calls_are_made_at_a_time_in_their_order() -> None:
    """What waits can be given up; what hangs holds up nobody else while a thread is free."""
    gate, asked, done = Event(), Event(), list[int]()
    threads = WaitingThreads(2, "test")

    def hang() -> None:
        asked.set()
        gate.wait()

    hanging = threads.submit(hang)
    assert asked.wait(60)
    for number in range(3):
        threads.submit(done.append, number).result(60)
    assert done == [0, 1, 2]
    last = threads.submit(hang)
    given_up, kept = threads.submit(done.append, 3), threads.submit(done.append, 4)
    assert given_up.cancel()
    assert not kept.done()
    gate.set()
    for future in (hanging, last, kept):
        future.result(60)
    assert done == [0, 1, 2, 4]


def test_what_a_call_raises_is_told_and_the_next_is_made() -> None:
    """As by any executor."""
    threads = WaitingThreads(1, "test")
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 1, 0).result(60)
    assert threads.submit(divmod, 7, 2).result(60) == (3, 1)
