"""What a broken model does to the start, and what is tried in a process of its own first."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regard.v1 import regard_pb2 as api
from server.engine.device import Device, choose_device
from server.engine.execution import Execution
from server.errors import StartError
from server.repository import trial as module
from server.repository.trial import Trial
from tests.faults.callers import wait_until
from tests.golden import BARE_ONNX_MODELS, GOLDEN_MODELS
from tests.server.conftest import Serve
from tests.server.repository.folders import add_model, damage, load, make

ROOT = Path(__file__).parents[3]
TRIAL = Trial(lambda: choose_device("cpu"), threads=1, instances=1)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with a copy of the golden model, and the same under another name."""
    folder = tmp_path / "models"
    shutil.copytree(GOLDEN_MODELS, folder)
    add_model(folder, "broken")
    return folder


def interpreter(path: Path, script: str) -> str:
    """Something that is run in the interpreter's place."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def test_one_broken_model_is_listed_with_its_reason_and_the_others_are_served(models: Path, start: Serve) -> None:
    """The server starts, and says what is wrong to whoever asks."""
    damage(models / "broken" / "1" / "weights.bin")
    async with start(models=models) as running:
        await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"))
        found = {one.model: one for one in (await running.stub.ListModels(api.ListModelsRequest())).versions}
        assert (found["tiny-text"].state, found["broken"].state) == ("READY", "UNAVAILABLE")
        assert "changed or damaged" in found["broken"].reason


async def test_where_every_model_must_be_served_a_broken_one_stops_the_start(models: Path, start: Serve) -> None:
    """--strict-models, for those who would rather not start than start with less."""
    damage(models / "broken" / "1" / "weights.bin")
    with pytest.raises(StartError, match=r"broken/1/weights.bin: sha256 .* changed or damaged"):
        async with start(models=models, strict_models=True):
            pass


def test_with_nothing_to_serve_every_reason_is_told(models: Path) -> None:
    """One line for each model."""
    for name in ("broken", "tiny-text"):
        damage(models / name / "1" / "weights.bin")
    with pytest.raises(StartError, match=r"broken/1/weights.bin: sha256 .*; .*tiny-text/1/weights.bin: sha256 "):
        load(models)


@pytest.mark.parametrize("name", ["model.onnx", "contract.json", "weights.bin", "notes.txt"])
def test_a_pipe_among_the_files_is_refused_and_not_waited_for(models: Path, name: str) -> None:
    """Opened, it would hold the start and the end of the server for ever."""
    shutil.rmtree(models / "broken")
    path = models / "tiny-text" / "1" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(StartError, match=f"{name}: is a named pipe; expected a regular file"):
        load(models)


def test_a_pipe_for_a_models_settings_is_refused(models: Path) -> None:
    """It lies beside the versions."""
    shutil.rmtree(models / "broken")
    os.mkfifo(models / "tiny-text" / "config.toml")
    with pytest.raises(StartError, match=r"config.toml: is a named pipe; expected a regular file"):
        load(models)


def test_a_pipe_for_a_bare_onnx_model_is_refused(tmp_path: Path) -> None:
    """A folder with nothing else in it."""
    (tmp_path / "m" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "m" / "1" / "model.onnx")
    with pytest.raises(StartError, match=r"model.onnx: is a named pipe; expected a regular file"):
        load(tmp_path)


async def test_a_graph_that_ends_its_process_ends_only_the_one_that_tries_it(
    models: Path, start: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its model is not served, for a reason that names the signal; the server is up and serves the other."""
    script = f'case "$*" in *broken*) kill -SEGV $$;; esac; exec {sys.executable} "$@"'
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", script))
    async with start(models=models, trial_load=True) as running:
        await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"))
        found = {one.model: one for one in (await running.stub.ListModels(api.ListModelsRequest())).versions}
        assert "ends the process that loads it, by SIGSEGV" in found["broken"].reason


def test_a_start_with_trials_says_nothing_on_its_standard_error(models: Path) -> None:
    """Neither gRPC, of a fork, nor ONNX Runtime."""
    flags = ("--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--device", "cpu", "--log-level", "warning")
    command = [sys.executable, "-m", "server", "--models", str(models), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert any(line.startswith("ready after") for line in process.stdout)
        process.kill()  # at a stop gRPC may say that it listens no more
        assert process.stderr.read() == ""


async def test_what_is_wrong_with_a_version_is_told_as_without_a_trial(models: Path) -> None:
    """The child's own reason."""
    await TRIAL(models / "tiny-text" / "1")
    damage(models / "broken" / "1" / "weights.bin")
    with pytest.raises(StartError, match=r"broken/1/weights.bin: sha256 .* changed or damaged"):
        await TRIAL(models / "broken" / "1")


async def test_a_trial_runs_on_a_device_that_is_in_service(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its name: of the others, which may have failed since, nothing is asked. And as the flags say."""
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", 'echo "$4 $5 $6 $7 $8 $9"; exit 1'))
    up = [choose_device("cpu:0"), Device("CUDA:1", (), "asked for", gpu=1)]
    execution = Execution("tensorrt", max_rows=16, tensorrt_cache=Path("/cache"))
    trial = Trial(lambda: up[0], threads=2, instances=3, execution=execution)
    for name in ("cpu:0", "cuda:1"):
        with pytest.raises(StartError, match=rf"^{name} 2 3 tensorrt 16 /cache$"):
            await trial(models / "tiny-text" / "1")
        del up[0]


def test_a_trial_makes_no_session_on_another_device(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may have failed, and would keep every version from being loaded."""
    chosen = list[str]()

    def choose(wanted: str) -> Device:
        chosen.append(wanted)
        return choose_device("cpu")

    monkeypatch.setattr(module, "choose_device", choose)
    assert module.main([str(models / "tiny-text" / "1"), "cuda:1", "1", "1", "auto", "32"]) == 0
    assert chosen == ["cuda:1"]


async def test_a_trial_that_is_given_up_leaves_no_process(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that is told to stop while it loads does not leave a child behind."""
    born = tmp_path / "born"
    waits = f"echo $$ > {born}; exec tail -f /dev/null"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", waits))
    trying = asyncio.create_task(TRIAL(models / "tiny-text" / "1"))
    await asyncio.to_thread(wait_until, lambda: born.exists() and born.read_text().endswith("\n"))
    child = Path("/proc", born.read_text().strip())
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    await asyncio.to_thread(wait_until, lambda: not child.exists())


def test_a_name_that_is_none_says_what_names_are(models: Path) -> None:
    """Of a bare ONNX model, whose folder is all that names it."""
    (models / "a model" / "1").mkdir(parents=True)
    shutil.copyfile(BARE_ONNX_MODELS / "plus" / "1" / "model.onnx", models / "a model" / "1" / "model.onnx")
    with pytest.raises(StartError, match=r"a model/1: name: String should match pattern .* \(got 'a model'\)"):
        asyncio.run(make(models).start(strict=True))
