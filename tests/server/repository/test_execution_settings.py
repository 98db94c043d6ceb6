"""What config.toml and the flags say of runs without attention."""

import shutil
from pathlib import Path

import pytest

from server.engine.device import Device, Instances, choose_device
from server.engine.execution import Execution
from server.errors import StartError
from server.repository import loading
from server.repository.limits import Usage
from server.repository.settings import ModelSettings, SettingsError, read_settings
from server.repository.trial import Trial, main
from tests.golden import GOLDEN_MODELS
from tests.server.conftest import Serve
from tests.server.repository.folders import settle

GPU = Device("CUDA:0", (), "for the test", gpu=0, bound=True)
FLAGS = Execution("bound", max_rows=16, tensorrt_cache=Path("cache"))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with a copy of the golden model."""
    shutil.copytree(GOLDEN_MODELS, tmp_path / "models")
    return tmp_path / "models"


def test_what_a_model_does_not_say_the_flags_say(models: Path) -> None:
    """Shapes and precision are a model's alone, the folder of engines and the most rows the server's."""
    assert ModelSettings().execution_beside(FLAGS) == FLAGS
    settle(models, 'execution = "tensorrt"\nprecision = "float16"\ngraph_rows = [2, 6]\ngraph_tokens = [24]')
    found = read_settings(models / "tiny-text").execution_beside(FLAGS)
    assert found == Execution("tensorrt", "float16", (2, 6), (24,), Path("cache"), 16)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'execution = "fast"',
            r"execution: Input should be 'auto', 'unbound', 'bound', 'cuda_graphs' or 'tensorrt'.*fast",
        ),
        ('precision = "int8"', r"precision: Input should be 'float32', 'tf32', 'float16' or 'bfloat16'.*int8"),
        ("graph_rows = [4, 0]", r"graph_rows.1: Input should be greater than or equal to 1 .*0"),
        ("graph_tokens = []", r"graph_tokens: .* at least 1 item"),
        ("graph_tokens = [true]", r"graph_tokens.0: Input should be a valid integer .*True"),
        (f"graph_rows = {list(range(1, 40))}", r"graph_rows: .* at most 32 items"),
    ],
)
def test_a_wrong_setting_is_refused(line: str, message: str, models: Path) -> None:
    """The file, the field, what was found and what was expected."""
    settle(models, line)
    with pytest.raises(SettingsError, match=f"config.toml: {message}"):
        read_settings(models / "tiny-text")


async def test_what_a_flag_asks_for_and_is_not_to_be_had_is_refused_unless_a_model_says_otherwise(
    models: Path, start: Serve
) -> None:
    """With trials and without."""
    for tried in (True, False):
        with pytest.raises(
            StartError, match=r"tiny-text/1: execution: cuda_graphs: CPU reads .*; expected auto or unb"
        ):
            async with start(models=models, device="cpu", execution="cuda_graphs", trial_load=tried):
                pass
    settle(models, 'execution = "unbound"')
    async with start(models=models, device="cpu", execution="cuda_graphs", trial_load=True) as running:
        assert [contract.name for contract in running.started.contracts] == ["tiny-text"]


@pytest.mark.parametrize(("device", "alone"), [(GPU, True), (choose_device("cpu"), False)], ids=["a GPU", "the CPU"])
def test_one_model_is_loaded_at_a_time_on_gpus(
    device: Device, alone: bool, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capture of one would wait for what the other does, and every request for the capture."""
    seen = list[bool]()
    monkeypatch.setattr(loading, "_load", lambda *_: seen.append(loading._ONE_AT_A_TIME.locked()))
    for _ in range(2):
        loading.load_model(models / "tiny-text" / "1", [device], Instances(1, 1), Usage(ModelSettings()))
    assert seen == [alone, alone]
    assert not loading._ONE_AT_A_TIME.locked()


def test_a_trial_reads_what_a_trial_writes(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way, and with a cache or without."""
    for cache in ([], ["cache"]):
        assert main([str(models / "tiny-text" / "1"), "cpu", "1", "1", "tensorrt", "8", *cache]) == 1
        assert "execution: tensorrt: CPU reads its caller's memory in place; expected auto" in capsys.readouterr().out
    assert Trial(lambda: None, 1, 1).execution == Execution()  # type: ignore[arg-type, return-value]
