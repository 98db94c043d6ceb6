import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from server.healthcheck import flags_of
from tests.golden import GOLDEN_MODELS, GOLDEN_PAIRS
from tests.processes import CLOTHING, ROOT, TRANSPORTS, StartProcess, environment, run_server

SMALL = ("--models", str(GOLDEN_MODELS))  # loads in half the time of what is embedded


def regard_command(address: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line against a server."""
    command = [sys.executable, "-m", "regard", *arguments]
    env = environment() | {"REGARD_SERVER": address}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_without_models_the_embedded_ones_are_served(start_process: StartProcess) -> None:
    """It says what is served where, names a boot, and stops with exit code 0."""
    with start_process("--device", "cpu") as server:
        assert server.printed[0] == f"regard {server.printed[0].split()[1]} on CPU (asked for)"
        assert server.printed[1] == "  fashion 1: regard-vit, takes images, attention of 4 layers x 4 heads"
        assert server.printed[2] == "  g2p 1: regard-encoder-decoder, takes text, attention of 3 layers x 4 heads"
        with regard.Client(server.address) as client:
            assert client.classify(image=CLOTHING / "ankle-boot.png").labels[0].name == "Ankle boot"
        assert server.stop() == 0


def test_the_command_line_shows_what_one_text_attends_to_in_the_other(start_process: StartProcess) -> None:
    """A block of a real answer: as many rows and columns as each text has words."""
    with start_process("--models", str(GOLDEN_PAIRS)) as server:
        pair = ("attend", "a very good dog", "--pair", "one cat", "--model", "tiny-nli", "--layer", "0")
        done = regard_command(server.address, *pair, "--rows-of", "first", "--keys-of", "second", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        (layer,) = json.loads(done.stdout)["attention"]["layers"]
        assert [len(layer["queries"]), len(layer["keys"])] == [4, 2]
        assert np.shape(layer["weights"])[-2:] == (4, 2)
        whole = regard_command(server.address, *pair, "--json")
        assert np.shape(json.loads(whole.stdout)["attention"]["layers"][0]["weights"])[-2:] == (9, 9)
        listed = regard_command(server.address, "models", "--json")
        assert [model["takes_pairs"] for model in json.loads(listed.stdout)] == [True, True]
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(start_each: StartProcess, number: signal.Signals) -> None:
    """Exit code 0 and nothing more on stdout."""
    with start_each(*SMALL) as server:
        assert server.stop(number) == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


def test_a_bad_port_device_or_artifact_is_one_clear_line(tmp_path: Path) -> None:
    """With a non-zero exit code and no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "odd" / "1").mkdir(parents=True)
        refusals = {
            ("--listen", f"127.0.0.1:{port}"): f"--listen: 127.0.0.1:{port}: cannot listen",
            ("--metrics", f"127.0.0.1:{port}"): f"--metrics: 127.0.0.1:{port}: cannot listen",
            ("--models", str(tmp_path)): "contract.json: cannot be read: No such file or directory",
            ("--models", "/nowhere"): "--models: /nowhere: not a folder",
            ("--device", "tpu"): "--device (REGARD_DEVICE): 'tpu': expected auto, cpu, cuda or tensorrt",
        }
        for arguments, message in refusals.items():
            done = run_server(*arguments)
            lines = [line for line in done.stderr.splitlines() if line.startswith("regard: error: ")]
            assert (done.returncode, len(lines)) == (1, 1), done.stderr
            assert message in lines[0]
            assert "Traceback" not in done.stderr


def records(stream: str) -> list[dict[str, Any]]:
    """What a log for machines holds; fails where a line of it is none, but for gRPC's own as it stops to listen."""
    return [json.loads(line) for line in stream.splitlines() if "Closing acceptor" not in line]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_without_the_engine_the_command_says_what_to_install(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is imported late, and with Envoy in another process."""
    (tmp_path / "sitecustomize.py").write_text('import sys; sys.modules["onnxruntime"] = None')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    done = regard_command("", "serve", "--transport", transport, "--listen", "127.0.0.1:0")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "onnxruntime" in line
    assert "[server]" in line


def test_with_json_logs_what_is_served_where_is_a_record() -> None:
    """The last of the start; nothing is on the standard output."""
    command = [sys.executable, "-m", "server", "--device", "cpu", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    env, pipe = environment() | {"REGARD_LOG_FORMAT": "json"}, subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["message"].startswith("ready after"):
                break
        process.terminate()
        printed, rest = process.communicate(timeout=60)
    told = lines[-1]
    assert (told["models"], told["device"], told["level"]) == (["fashion/1", "g2p/1"], "CPU", "INFO")
    assert told["address"].startswith("127.0.0.1:")
    assert told["metrics_address"].startswith("127.0.0.1:")
    assert (process.returncode, printed) == (0, "")
    assert records(rest)[0]["message"].startswith("stopping")


@pytest.mark.parametrize("flags", [("--log-format", "json"), ("--log-format=json",)])
def test_with_json_logs_why_it_cannot_start_is_a_record(flags: tuple[str, ...]) -> None:
    """Also where the settings themselves are wrong, before all of them are read."""
    refusals = {
        ("--models", "/nowhere"): "error: --models: /nowhere: not a folder",
        ("--device", "tpu"): "error: --device (REGARD_DEVICE): 'tpu': expected auto, cpu, cuda or tensorrt",
    }
    for arguments, message in refusals.items():
        done = run_server(*arguments, *flags)
        *_, last = records(done.stderr)
        assert (done.returncode, done.stdout, last["level"]) == (1, "", "CRITICAL")
        assert last["message"].startswith(message)


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")  # noqa: PTH110
def test_cuda_refuses_to_start_on_a_machine_without_a_gpu() -> None:
    """Rather than serving slowly from the CPU."""
    done = run_server("--device", "cuda")
    assert done.returncode == 1
    assert "regard: error: --device: cuda: " in done.stderr


def test_the_command_line_lists_classifies_embeds_and_attends(start_process: StartProcess, tmp_path: Path) -> None:
    """Against a real server, as a user would."""
    pytest.importorskip("matplotlib", reason="the extra explore is not installed")
    boot, picture = str(CLOTHING / "ankle-boot.png"), tmp_path / "boot.png"
    with start_process() as server:
        model, writing = json.loads(regard_command(server.address, "models", "--json").stdout)
        assert (writing["name"], writing["generation"]["num_layers"]) == ("g2p", 3)
        assert (model["name"], model["modality"], len(model["attention_layers"])) == ("fashion", "image", 4)
        answer = json.loads(regard_command(server.address, "classify", boot, "--json").stdout)
        assert answer["labels"][0]["name"] == "Ankle boot"
        embedding = json.loads(regard_command(server.address, "embed", boot, "--json").stdout)
        assert len(embedding["vector"]) == 64
        done = regard_command(server.address, "attend", boot, "-o", str(picture))
        assert done.returncode == 0, done.stderr
        assert picture.read_bytes().startswith(b"\x89PNG")
        refused = regard_command(server.address, "classify", "some text", "--model", "fashion")
        assert refused.returncode == 1
        assert refused.stderr.startswith("regard: ")
        assert "fashion takes no text" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_end_nothing(start_each: StartProcess, number: signal.Signals) -> None:
    """Neither what runs, nor a graceful stop afterwards."""
    with start_each(*SMALL) as server:
        server.process.send_signal(number)
        with regard.Client(server.address) as client:
            assert [model.name for model in client.models()] == ["tiny-text"]
        assert server.stop() == 0


def test_the_healthcheck_of_the_container_follows_the_server(start_process: StartProcess) -> None:
    """Exit code 0 while it serves, 1 when it is gone."""
    command = [sys.executable, "-m", "server.healthcheck"]
    with start_process(*SMALL) as server:
        env = environment() | {"REGARD_LISTEN": server.address}
        assert subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0
        server.stop()
    gone = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stderr) == (1, "not serving: UNAVAILABLE\n")


def test_the_healthcheck_takes_the_servers_flags(start_process: StartProcess) -> None:
    """A server that was told its port by a flag, not by the environment."""
    command = [sys.executable, "-m", "server.healthcheck", "--listen"]
    with start_process(*SMALL) as server:
        found = subprocess.run([*command, server.address], cwd=ROOT, env=environment(), check=False)
        other = subprocess.run([*command, "127.0.0.1:1"], cwd=ROOT, env=environment(), capture_output=True, check=False)
        assert (found.returncode, other.returncode) == (0, 1)


def test_in_a_container_the_healthcheck_finds_the_servers_flags(tmp_path: Path) -> None:
    """The process with the id 1 is the server there, started either way; any other process has none."""
    line = tmp_path / "cmdline"

    def flags(*arguments: str) -> list[str]:
        line.write_bytes("".join(f"{argument}\0" for argument in arguments).encode())
        return flags_of(line)

    assert flags("python", "-m", "server", "--listen", "[::]:9") == ["--listen", "[::]:9"]
    assert flags("/opt/python3", "/opt/bin/regard", "serve", "--listen", "0.0.0.0:9") == ["--listen", "0.0.0.0:9"]
    initialised = ("/sbin/docker-init", "--", "python", "-u", "-m", "server", "--listen", "0.0.0.0:9")
    assert flags(*initialised) == ["--listen", "0.0.0.0:9"]
    assert flags("/sbin/init", "--listen", "x") == []
    assert flags_of(tmp_path / "absent") == []
