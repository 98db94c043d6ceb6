"""A server process that is stopped, killed, starved and abused, under load; what its callers see."""

import ast
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

import regard
from regard.v1 import regard_pb2 as api
from regard.v1.regard_pb2_grpc import RegardServiceStub
from server.address import split_address
from tests.faults.callers import Callers, embed, wait_until
from tests.golden import GOLDEN_MODELS
from tests.hostile.http2 import call, connected, greeting
from tests.processes import ROOT, ServerProcess, StartProcess

MOUNT, UMOUNT = (shutil.which(command) or "" for command in ("mount", "umount"))


def open_descriptors(server: ServerProcess) -> int:
    """How many files and sockets the server has open."""
    return len(list(Path(f"/proc/{server.serving_pid}/fd").iterdir()))


def documented_retries() -> str:
    """The service config that docs/operations.md gives."""
    text = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(r"^retries = (\{.*?^\})", text, re.DOTALL | re.MULTILINE)
    assert found
    return json.dumps(ast.literal_eval(found[1]))


@pytest.mark.parametrize("run", range(int(os.environ.get("REGARD_STOPS", "2"))))
def test_stopped_under_load_it_finishes_what_it_accepted(start_each: StartProcess, run: int) -> None:
    """SIGTERM: callers see answers, then that nobody is there, and nothing else; it ends well within its time.

    Calls that race with the end are never CANCELLED: REGARD_STOPS=20 tries oftener.
    """
    with start_each("--models", str(GOLDEN_MODELS), "--drain-seconds", "20") as server:
        callers = Callers(server.address, 32, "{}", embed)
        wait_until(lambda: callers.codes["OK"] > 50)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
        assert set(callers.end()) <= {"OK", "UNAVAILABLE"}
        # Turned away, or nobody was there any more: before the call, or before it was taken in.
        refusals = ("the server is stopping", "failed to connect to all addresses", "Stream removed", "Socket closed")
        assert not [said for said in callers.messages if not said.startswith(refusals)]


def test_killed_and_started_again_it_loses_no_caller_that_retries(start_each: StartProcess) -> None:
    """SIGKILL in the middle, and a start that takes seconds: with the documented settings every call is answered."""
    with start_each("--models", str(GOLDEN_MODELS)) as first:
        callers = Callers(first.address, 4, documented_retries(), embed)
        wait_until(lambda: callers.codes["OK"] > 50)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
        answered = callers.codes["OK"]
        with start_each("--models", str(GOLDEN_MODELS), "--listen", first.address):
            wait_until(lambda: callers.codes["OK"] > answered + 50)
            assert set(callers.end()) == {"OK"}


def test_models_deleted_or_damaged_while_they_are_served_go_on(start_process: StartProcess, tmp_path: Path) -> None:
    """What is loaded does not depend on its files any more; what is damaged is not loaded in its place."""
    models = tmp_path / "models"
    shutil.copytree(GOLDEN_MODELS, models)
    with start_process("--models", str(models)) as server, regard.Client(server.address) as client:
        before = client.embed(text="the cat", attention=regard.AttentionRequest())
        shutil.copytree(models / "tiny-text" / "1", models / "tiny-text" / "2")
        contract, weights = (models / "tiny-text" / "2" / name for name in ("contract.json", "weights.bin"))
        contract.write_text(
            contract.read_text().replace('"version":1', '"version":2').replace('"version": 1', '"version": 2')
        )
        weights.write_bytes(bytes(weights.stat().st_size))
        with pytest.raises(regard.FailedPrecondition, match=r"weights\.bin"):
            client.load_model("tiny-text")
        shutil.rmtree(models / "tiny-text")
        after = client.embed(text="the cat", attention=regard.AttentionRequest())
        assert before.vector.tobytes() == after.vector.tobytes()
        assert after.attention
        with pytest.raises(regard.RegardError):
            client.load_model("tiny-text")


@pytest.mark.skipif(os.getuid() != 0 or not MOUNT, reason="a small disk needs root")
def test_a_full_disk_costs_memory_and_no_request(
    start_process: StartProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without room to pack weights in, sessions keep their own copies; the log says so."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run([MOUNT, "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounts are not allowed here")
    try:
        (disk / "filler").write_bytes(bytes(60 * 2**10))
        monkeypatch.setenv("TMPDIR", str(disk))
        with start_process("--models", str(GOLDEN_MODELS)) as server, regard.Client(server.address) as client:
            assert client.embed(text="the cat", attention=regard.AttentionRequest()).attention
        assert [path.name for path in disk.iterdir()] == ["filler"]
        assert "each session keeps its own copy of the weights" in capfd.readouterr().err
    finally:
        subprocess.run([UMOUNT, disk], check=True)


def test_without_descriptors_for_more_connections_those_there_are_go_on(
    start_each: StartProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    """The log says so; and when the others have gone, new ones are taken again."""
    with start_each("--models", str(GOLDEN_MODELS)) as server, regard.Client(server.address) as client:
        client.embed(text="the cat")
        limit = open_descriptors(server) + 20
        resource.prlimit(server.serving_pid, resource.RLIMIT_NOFILE, (limit, limit))
        place = split_address(server.address)
        crowd = [socket.create_connection(place) for _ in range(60)]
        wait_until(lambda: open_descriptors(server) >= limit - 1)
        for _ in range(20):
            assert client.embed(text="the cat").vector.size
        wait_until(lambda: "descriptors: none is left (ulimit -n)" in capfd.readouterr().err)
        for one in crowd:
            one.close()
        wait_until(lambda: open_descriptors(server) < limit - 10)
        with regard.Client(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as another:
            assert another.embed(text="the cat", timeout=30).vector.size


def test_thousands_of_connections_opened_and_dropped_leave_nothing(start_each: StartProcess) -> None:
    """Neither descriptors nor an open call; `python -m bench.faults connections` does ten thousand."""
    with start_each("--models", str(GOLDEN_MODELS)) as server, regard.Client(server.address) as client:
        client.embed(text="the cat")
        before, place = open_descriptors(server), split_address(server.address)
        for number in range(2000):
            with socket.create_connection(place) as one:
                if number % 2:
                    one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        wait_until(lambda: open_descriptors(server) <= before + 2)
        assert client.embed(text="the cat").vector.size


def test_a_reader_that_does_not_read_keeps_nobody_waiting(start_each: StartProcess) -> None:
    """Its answer is stuck in flow control; others are answered, and its call ends when it hangs up."""
    with start_each("--models", str(GOLDEN_MODELS)) as server:
        options = [
            ("grpc.http2.lookahead_bytes", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.insecure_channel(server.address, options) as channel, regard.Client(server.address) as client:
            request = api.AttendRequest(model="tiny-text", text="the cat sat on the mat " * 8, truncate=True)
            request.attention.SetInParent()
            stuck = [RegardServiceStub(channel).Attend(request) for _ in range(50)]
            first = next(stuck[0])  # the others are never read
            assert first.attention.layers
            for _ in range(20):
                assert client.embed(text="the cat").vector.size
            for call in stuck:
                call.cancel()
            assert client.embed(text="the cat").vector.size


def test_a_connection_that_ends_with_an_unread_answer_is_no_fault(
    start_each: StartProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    """GRPC would log a traceback for each."""
    request = api.EmbedRequest(model="tiny-text", text="the cat")
    message = greeting(window=0) + call("/regard.v1.RegardService/Embed", request.SerializeToString())
    with start_each("--models", str(GOLDEN_MODELS)) as server, regard.Client(server.address) as client:
        before = open_descriptors(server)
        with ExitStack() as crowd:
            for _ in range(5):
                crowd.enter_context(connected(server.address)).sendall(message)
            for _ in range(5):
                assert client.embed(text="the cat").vector.size
        wait_until(lambda: open_descriptors(server) <= before + 1)
        assert client.embed(text="the cat").vector.size
        assert server.stop() == 0
    assert "Traceback" not in capfd.readouterr().err


def test_callers_that_vanish_in_mid_call_leave_nothing(start_each: StartProcess) -> None:
    """Their connections are gone without a word; what they asked is dropped or ends, and nothing of them stays."""
    with start_each("--models", str(GOLDEN_MODELS)) as server, regard.Client(server.address) as client:
        client.embed(text="the cat")
        before = open_descriptors(server)
        asking = (
            "import regard, sys\nwith regard.Client(sys.argv[1]) as c:\n while True: list(c.attend(text='the cat'))"
        )
        crowd = [subprocess.Popen([sys.executable, "-c", asking, server.address]) for _ in range(3)]
        wait_until(lambda: open_descriptors(server) >= before + 3)
        for one in crowd:
            one.kill()
            one.wait()
        wait_until(lambda: open_descriptors(server) <= before)
        assert client.embed(text="the cat").vector.size


def test_a_writer_that_does_not_write_keeps_nobody_waiting(start_each: StartProcess) -> None:
    """A request that stops half way holds its connection and no more."""
    with start_each("--models", str(GOLDEN_MODELS)) as server, regard.Client(server.address) as client:
        place = split_address(server.address)
        half = []
        for _ in range(50):
            one = socket.create_connection(place)
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + bytes([0, 1, 0]))
            half.append(one)
        for _ in range(20):
            assert client.embed(text="the cat").vector.size
        for one in half:
            one.close()
