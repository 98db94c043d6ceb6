from pathlib import Path

import pytest

from server.config import EMBEDDED_MODELS, Config, misspelt_variables
from server.errors import StartError


def test_defaults_serve_the_embedded_model_on_loopback() -> None:
    """Nothing given: the embedded default, on the documented ports."""
    config = Config.from_command_line([])
    assert (config.models, config.listen, config.metrics) == (EMBEDDED_MODELS, "127.0.0.1:8001", "127.0.0.1:9090")


def test_flags_win_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """REGARD_MAX_BATCH_SIZE is --max-batch-size."""
    monkeypatch.setenv("REGARD_MAX_BATCH_SIZE", "7")
    monkeypatch.setenv("REGARD_LISTEN", "127.0.0.1:7")
    config = Config.from_command_line(["--max-batch-size", "9", "--models", "elsewhere"])
    assert (config.max_batch_size, config.listen, config.models) == (9, "127.0.0.1:7", Path("elsewhere"))


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--listen", "8001", "--listen .REGARD_LISTEN.: '8001': expected HOST:PORT"),
        ("--listen", "localhost:99999", "--listen .*'localhost:99999': expected HOST:PORT"),
        ("--metrics", "localhost:", "--metrics .*: expected HOST:PORT"),
        ("--device", "gpu", "--device .*'gpu': expected auto, cpu, cuda or tensorrt"),
        ("--device", "cuda:x", "--device .*'cuda:x': expected auto, cpu, cuda or tensorrt"),
        ("--device", "cpu:all", "--device .*'cpu:all': expected auto, cpu, cuda or tensorrt"),
        ("--device", "cuda:", "--device .*'cuda:': expected auto, cpu, cuda or tensorrt"),
        ("--device", "auto,cuda:1", "--device .*'auto,cuda:1': .* or several with commas between: cuda:0,cuda:1"),
        ("--device", "cuda:all,cuda:0", "--device .*'cuda:all,cuda:0': .* or several with commas between"),
        ("--device", "cpu,cuda:0", "--device .*'cpu,cuda:0': expected devices of one kind"),
        ("--device", "cuda:0,tensorrt:1", "--device .*: expected devices of one kind"),
        ("--device", "cuda:0,cuda:0", "--device .*'cuda:0,cuda:0': cuda:0 is named twice; expected each device once"),
        ("--device", "cpu:1,cpu,cpu:00", "--device .*: cpu is named twice; expected each device once"),
        ("--execution", "fast", "--execution .REGARD_EXECUTION.: 'fast': Input should be 'auto', 'unbound', 'bound', "),
        ("--max-batch-size", "0", "--max-batch-size .*'0': Input should be greater than or equal to 1"),
        ("--threads", "many", "--threads .*'many': Input should be a valid integer"),
        ("--log-level", "loud", "--log-level .*'loud'"),
    ],
)
def test_a_wrong_value_names_flag_value_and_expectation(flag: str, value: str, message: str) -> None:
    """One line, whichever flag."""
    with pytest.raises(StartError, match=message):
        Config.from_command_line([flag, value])


@pytest.mark.parametrize(
    "value", ["auto", "cpu", "cuda:7", "tensorrt:all", "cpu:0,cpu:1", "cuda,cuda:1", "cuda:3,cuda:1"]
)
def test_one_device_or_several_of_a_kind(value: str) -> None:
    """In the order given."""
    assert Config.from_command_line(["--device", value]).device == value


def test_every_flag_has_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists each flag with what it means."""
    with pytest.raises(SystemExit):
        Config.from_command_line(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for name, field in Config.model_fields.items():
        assert f"--{name.replace('_', '-')}" in printed
        assert field.description
        assert field.description.split(";")[0] in printed


def test_variables_that_resemble_a_setting_are_found() -> None:
    """The command line's own and those of others are none of the server's business."""
    environment = ["REGARD_CLIENT", "REGARD_MODELS", "REGARD_MAX_BATCHSIZE", "HOME"]
    clients = ["REGARD_TOKEN", "REGARD_TOKEN_FILE", "REGARD_CA", "REGARD_CERT", "REGARD_KEY", "REGARD_SERVER"]
    assert list(misspelt_variables([*environment, *clients])) == [
        ("REGARD_CLIENT", "REGARD_CLIENTS"),
        ("REGARD_MAX_BATCHSIZE", "REGARD_MAX_BATCH_SIZE"),
    ]


def test_budgets_come_from_the_memory_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a container's for what is held, and for one image; what is given is taken as it is."""
    monkeypatch.setattr("server.config.available_bytes", lambda: 2**30)
    small = Config.from_command_line([])
    assert (small.held_bytes, small.image_pixels) == (2**28, 2**24)
    given = Config.from_command_line(["--max-held-bytes", "5", "--max-image-pixels", "7"])
    assert (given.held_bytes, given.image_pixels) == (5, 7)
    monkeypatch.setattr("server.config.available_bytes", lambda: 2**40)
    assert Config.from_command_line([]).image_pixels == 50_000_000


def test_values_by_name_are_checked_as_flags_are() -> None:
    """As an application of another host has them."""
    assert Config.from_values({"max_queue_size": "7", "allow_insecure": True}).max_queue_size == 7
    with pytest.raises(StartError, match=r"--max-queue-size \(REGARD_MAX_QUEUE_SIZE\): 0"):
        Config.from_values({"max_queue_size": 0})
    with pytest.raises(StartError, match="--modls"):
        Config.from_values({"modls": "x"})
