"""Checks that go wrong, each in a way of its own, for the runner to tell."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from bench.gpu.rows import Row, at_most, judged, measured
from bench.gpu.setting import Setting


def fine(setting: Setting) -> Iterator[Row]:
    """Passes."""
    yield judged("device", setting.device, "any", ok=True)
    yield measured("seconds", setting.seconds)


def beyond(setting: Setting) -> Iterator[Row]:
    """Finds a figure beyond its limit, then one within it."""
    del setting
    yield at_most("too far", 2.0, 1.0)
    yield at_most("near", 0.5, 1.0)


def raises(setting: Setting) -> Iterator[Row]:
    """Raises behind its first row."""
    yield from fine(setting)
    print("about to fail")
    raise RuntimeError("the device is gone")


def crashes(setting: Setting) -> Iterator[Row]:
    """Ends as a fault in a library does."""
    yield from fine(setting)
    yield measured("left behind", leave_behind().pid)
    os.kill(os.getpid(), signal.SIGSEGV)


def hangs(setting: Setting) -> Iterator[Row]:
    """Never ends, and leaves a process that does not either."""
    yield from fine(setting)
    yield measured("left behind", leave_behind().pid)
    threading.Event().wait()


def leave_behind() -> subprocess.Popen[bytes]:
    """Start what never ends, in a session of its own, as servers are, and takes its time to give its memory back."""
    program = "import threading; held = b'1' * 2**28; print('held', flush=True); threading.Event().wait()"
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process
