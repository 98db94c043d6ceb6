"""Envoy with the server inside, and the process that starts it: how it ends, what it refuses, what it starts."""

import json
import os
import signal
import socket
import struct
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import regard
from regard.v1 import regard_pb2 as api
from server.config import Config
from server.errors import StartError
from server.transport.envoy.launcher import run_inside_envoy
from tests.faults.callers import wait_until
from tests.golden import GOLDEN_MODELS
from tests.hostile import http2
from tests.hostile.http2 import call, connected, frame, greeting, read_code
from tests.hostile.measure import Target
from tests.hostile.test_readers import much_attention
from tests.processes import ROOT, ServerProcess, StartProcess, has_ended, run_server, serving

pytest.importorskip("pyvoy", reason="pyvoy is not installed")

ENVOY = ("--transport", "envoy")
EXPOSED = "can be reached from other machines, and --transport envoy has no TLS here; expected --allow-insecure"
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """One that nothing ends; who does not read is cut off soon."""
    with serving(*ENVOY, "--max-stall-seconds", "0.5", "--device", "cpu") as process:
        yield process


def sample(server: ServerProcess, name: str) -> float:
    """A metric without labels."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "/nowhere"), "--models: /nowhere: not a folder"),
        (("--metrics", "{taken}"), "--metrics: {taken}: cannot listen"),
        (("--listen", "{taken}"), "--listen: {taken}: cannot listen: Address already in use"),
        (("--listen", "0.0.0.0:0"), f"--listen: 0.0.0.0:0: {EXPOSED}"),
        (("--listen", "[::]:0", "--clients", "clients.toml"), f"--listen: [::]:0: {EXPOSED}"),
        (("--listen", "0.0.0.0:0", "--tls-cert", "cert.pem"), "--transport envoy: has no TLS here"),
        (("--allow-insecure", "--tls-key", "key.pem"), "--transport envoy: has no TLS here"),
        (("--tls-cert", "cert.pem"), "--transport envoy: has no TLS here; expected none of --tls-cert"),
        (("--tls-client-ca", "ca.pem"), "--transport envoy: has no TLS here"),
    ],
)
def test_what_it_cannot_start_with_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    """From whichever of the two processes, with exit code 1 and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_server(*ENVOY, *(one.format(taken=address) for one in arguments))
    lines = done.stderr.splitlines()
    assert (done.returncode, [line for line in lines if line.startswith("regard: ")]) == (1, lines[-1:]), done.stderr
    assert lines[-1].startswith(f"regard: error: {message.format(taken=address)}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("missing", "extra"), [("envoy", "envoy"), ("find_libpython", "envoy"), ("onnxruntime", "server")]
)
def test_without_its_packages_it_says_what_to_install(
    missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line; the server's own, too, which only Envoy's process imports."""
    monkeypatch.setitem(sys.modules, missing, None)
    expected = f"--transport envoy: import of {missing} halted|--transport envoy: {missing} is not installed"
    with pytest.raises(StartError, match=rf"({expected}).*expected regard\[{extra}\]"):
        run_inside_envoy(Config.from_command_line([], "x"), [], "python -m server")


@pytest.mark.parametrize(
    ("listen", "more"), [("[::1]:0", ()), ("localhost:0", ()), ("0.0.0.0:0", ("--allow-insecure",))], ids=str
)
def test_it_listens_where_it_is_told_to(listen: str, more: tuple[str, ...], start_process: StartProcess) -> None:
    """On IPv6, by a name, and beyond loopback where that is meant; on a port of its own, as grpcio tells it."""
    with start_process(*ENVOY, "--models", str(GOLDEN_MODELS), "--listen", listen, *more) as one:
        host, _, port = one.address.rpartition(":")
        assert host == listen.removesuffix(":0")
        assert int(port) > 0
        with regard.Client(one.address) as client:
            assert client.embed(text="the cat").vector.size
        assert one.stop() == 0


LOADED = """
import atexit, os, sys
def note():
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"{sorted({'onnxruntime', 'numpy', 'server.app'} & set(sys.modules))}")
atexit.register(note)
"""


def test_what_starts_it_has_no_engine(
    start_process: StartProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher stays small; Envoy's own process ends without what Python has for its end."""
    (tmp_path / "sitecustomize.py").write_text(LOADED)
    notes = tmp_path / "notes"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("NOTES", str(notes))
    with start_process(*ENVOY, "--models", str(GOLDEN_MODELS)) as one:
        assert one.stop() == 0
    assert notes.read_text() == "[]"


def test_the_command_of_the_client_starts_it() -> None:
    """`regard serve --transport envoy`."""
    """`regard serve --transport envoy`."""
    program = (sys.executable, "-m", "regard", "serve")
    with serving(*ENVOY, "--models", str(GOLDEN_MODELS), program=program) as one, regard.Client(one.address) as client:
        assert client.embed(text="the cat").vector.size
        assert one.stop() == 0


def test_killed_its_server_ends_with_it(start_process: StartProcess) -> None:
    """Though nobody told it to."""
    with start_process(*ENVOY, "--models", str(GOLDEN_MODELS)) as one:
        inside = one.serving_pid
        assert inside != one.process.pid
        assert one.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_until(lambda: has_ended(inside))


def test_an_envoy_that_is_killed_is_a_fault(start_process: StartProcess, capfd: pytest.CaptureFixture[str]) -> None:
    """Of which orchestrators have a code of their own."""
    with start_process(*ENVOY, "--models", str(GOLDEN_MODELS)) as one:
        os.kill(one.serving_pid, signal.SIGKILL)
        assert one.process.wait(30) == 70
    assert "regard: fault: Envoy was ended by SIGKILL" in capfd.readouterr().err


HANGING = """
import os, threading
if "_REGARD_INSIDE_ENVOY" in os.environ:
    from server.engine import session
    run = session.Graph.run
    def instead(self, inputs, *rest, **how):
        if inputs["input_ids"].shape[1] == 7:
            threading.Event().wait()
        return run(self, inputs, *rest, **how)
    session.Graph.run = instead
"""


def test_an_engine_that_hangs_ends_both(
    start_process: StartProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the same code and line as without Envoy."""
    (tmp_path / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    arguments = (*ENVOY, "--models", str(GOLDEN_MODELS), "--watchdog-seconds", "0.3")
    with start_process(*arguments) as one, regard.Client(one.address) as client:
        with pytest.raises(regard.Unavailable, match="the engine has failed"):
            client.embed(text="the cat sat on mat")
        assert one.process.wait(30) == 70
    assert "regard: fault: a run has taken longer than 0.3 s" in capfd.readouterr().err


NOTING = """
import json, os, sys
names = ("LD_PRELOAD", "PYTHONHOME", "_REGARD_INSIDE_ENVOY")
with open(os.environ["NOTES"], "a") as notes:
    notes.write(json.dumps([sys.executable, [name for name in names if name in os.environ]]) + "\\n")
"""


def test_what_it_starts_is_python_as_it_was_started(
    start_process: StartProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial load is a process: nothing of Envoy's gets into it."""
    (tmp_path / "sitecustomize.py").write_text(NOTING)
    notes = tmp_path / "notes"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("NOTES", str(notes))
    arguments = (*ENVOY, "--models", str(GOLDEN_MODELS), "--trial-load")
    with start_process(*arguments) as one, regard.Client(one.address) as client:
        before = len(notes.read_text().splitlines())
        client.unload_model("tiny-text")
        client.load_model("tiny-text")
        started = [json.loads(line) for line in notes.read_text().splitlines()]
    assert len(started) > before
    assert started[0] == [sys.executable, []]
    assert started[-1] == [sys.executable, []]
    assert [*filter(lambda of: of[1], started)] == [started[1]]  # Envoy itself


def test_whoever_reads_nothing_is_hung_up_on(server: ServerProcess) -> None:
    """In the middle of an answer, for which Envoy has no way but to close the connection; what it held is free."""
    with connected(server.address) as connection:
        connection.sendall(greeting(0) + call(INFER, much_attention()))
        connection.settimeout(60)
        while connection.recv(65_536):
            pass
    wait_until(lambda: sample(server, "regard_held_bytes") == 0)


def test_an_answer_that_is_not_read_to_its_end_is_reset(server: ServerProcess) -> None:
    """Where all of it is Envoy's; other calls of the connection go on."""
    image = (ROOT / "examples" / "clothing" / "bag.png").read_bytes()
    asked = api.ClassifyRequest(model="fashion", image=image).SerializeToString()
    with connected(server.address) as connection:
        connection.sendall(greeting(0) + call("/regard.v1.RegardService/Classify", asked))
        connection.settimeout(60)
        received = b""
        while bytes([0, 0, 4, http2.RESET, 0, 0, 0, 0, 1]) not in received:
            part = connection.recv(65_536)
            assert part, "the connection was closed"
            received += part
    wait_until(lambda: sample(server, "regard_held_bytes") == 0)


def test_memory_is_given_back_in_the_background(server: ServerProcess) -> None:
    """By a thread that Envoy starts for its allocator where it is told to, and not otherwise."""
    names = {path.read_text().strip() for path in Path(f"/proc/{server.serving_pid}/task").glob("*/comm")}
    assert any("TcmallocProcessBackgroundActions".startswith(name) for name in names if len(name) > 8), names


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/grpc.health.v1.Health/Check", "OK"),
        ("/no.such.Service/Method", "UNIMPLEMENTED"),
        ("/%ff", "PERMISSION_DENIED"),
        ("/grpc.health.v1.Health/%43heck", "PERMISSION_DENIED"),
        ("/" + "x" * 10_000, "UNIMPLEMENTED"),
    ],
)
def test_each_path_is_answered(path: str, code: str, server: ServerProcess) -> None:
    """One that is no path, too."""
    with connected(server.address) as connection:
        connection.sendall(greeting() + call(path, b""))
        assert read_code(connection, 60) == code


def test_much_metadata_is_refused(server: ServerProcess) -> None:
    """A hundred kilobytes, in one header or in many; the next call of another is answered."""
    for more in (
        {"x": "y" * 100_000},
        {f"x_{number}": "y" * 1000 for number in range(100)},
        dict.fromkeys(map(str, range(300)), ""),
    ):
        with connected(server.address) as connection:
            content = http2.fields("/grpc.health.v1.Health/Check", **more)
            parts = [content[begin : begin + 16_000] for begin in range(0, len(content), 16_000)]
            frames = [frame(http2.HEADERS, parts[0], stream=1, flags=http2.END_HEADERS if len(parts) == 1 else 0)]
            frames += [
                frame(http2.CONTINUATION, part, stream=1, flags=http2.END_HEADERS if part is parts[-1] else 0)
                for part in parts[1:]
            ]
            connection.sendall(greeting() + b"".join(frames))
            assert read_code(connection, 60) in ("closed", "HTTP 431", "UNKNOWN", "RESOURCE_EXHAUSTED")
    with regard.Client(server.address) as client:
        assert client.models()


def test_a_message_of_which_too_much_waits_is_refused(server: ServerProcess) -> None:
    """Of health's, beyond what may wait for a turn, and of another method's beyond --max-message-bytes."""
    target = Target(server.address, "")
    prefix = b"\0" + (2**30).to_bytes(4)
    for path in ("/grpc.health.v1.Health/Check", INFER):
        with connected(target.address) as connection:
            head = frame(http2.HEADERS, http2.fields(path), flags=http2.END_HEADERS, stream=1)
            connection.sendall(greeting() + head + frame(http2.DATA, prefix, stream=1))
            assert read_code(connection, 60) == "RESOURCE_EXHAUSTED"


def test_a_connection_has_so_many_streams_and_no_more(server: ServerProcess) -> None:
    """Envoy says so when it greets."""
    with connected(server.address) as connection:
        connection.sendall(greeting())
        head = connection.recv(9, socket.MSG_WAITALL)
        settings = struct.iter_unpack(">HI", connection.recv(int.from_bytes(head[:3]), socket.MSG_WAITALL))
    assert head[3] == http2.SETTINGS
    assert dict(settings)[http2.MAX_CONCURRENT_STREAMS] == 256


def test_who_resets_calls_at_once_is_hung_up_on(server: ServerProcess) -> None:
    """Not one whose calls end, however many they are."""
    head = frame(http2.HEADERS, http2.fields("/no.such.Service/Method"), flags=http2.END_HEADERS, stream=1)
    with connected(server.address) as connection:
        streams = (stream.to_bytes(4, "big") for stream in range(1, 301, 2))
        pairs = (
            head[:5] + stream + head[9:] + frame(http2.RESET, bytes(4))[:5] + stream + bytes(4) for stream in streams
        )
        connection.sendall(greeting() + b"".join(pairs))
        assert read_code(connection, 60) == "closed"
    with regard.Client(server.address) as client:
        for _ in range(150):
            assert client.models()


def test_nothing_is_said_of_callers_that_hang_up(capfd: pytest.CaptureFixture[str]) -> None:
    """In the middle of a message, while they wait, and while they are answered: no traceback."""
    with serving(*ENVOY, "--max-stall-seconds", "0.3") as one, regard.Client(one.address) as client:
        whole = call(INFER, much_attention())
        for end in (40, 200, len(whole) // 2, len(whole)):
            for _ in range(5):
                with connected(one.address) as connection:
                    connection.sendall(greeting(0) + whole[:end])
        with connected(one.address) as connection:  # is cut off
            connection.sendall(greeting(0) + whole[: len(whole) // 2])
            assert read_code(connection, 60) == "CANCELLED"
        assert client.models()
        assert one.stop() == 0
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert "Exception" not in said
