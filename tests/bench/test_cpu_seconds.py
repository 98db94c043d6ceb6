"""A server's CPU time is that of all its processes."""

import os
import subprocess
import sys
from pathlib import Path

from bench.servers import cpu_seconds

# Uses half a second of a CPU by its own clock, says so, and waits.
BURN = "import sys, time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\nsys.stdin.read()"
# Starts one that burns; once that has said so it says so itself; ends it when told to, says so again, and waits.
PARENT = f"""import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {BURN!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(flush=True)
sys.stdin.readline()
child.communicate()
print(flush=True)
sys.stdin.read()"""


def test_children_are_counted_while_they_run_and_after() -> None:
    """Their time goes over to their parent when they have ended, and none is lost."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin
        assert parent.stdout
        parent.stdout.readline()
        running = cpu_seconds(parent.pid)
        assert running >= 0.49  # the system's ticks are 10 ms
        assert own_seconds(parent.pid) < running - 0.45
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        parent.stdout.readline()
        assert cpu_seconds(parent.pid) >= running
        parent.stdin.close()


def test_a_process_that_has_ended_used_nothing() -> None:
    """Rather than an error."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    assert cpu_seconds(ended.pid) == 0


def own_seconds(pid: int) -> float:
    """User and system time of a process alone."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
