"""The runner: whatever a check does, its rows and its end are told, and the next one runs."""

import json
import tempfile
from pathlib import Path

import pytest

from bench.gpu.__main__ import main, page_of, read_arguments
from bench.gpu.page import make_page
from bench.gpu.rows import ON_GPU, Row, at_most, failed, judged, measured
from bench.gpu.running import Check, read_rows, run_checks
from bench.programs import ROOT

_BROKEN = "tests.bench.gpu.broken"
FINE = Check("fine", f"{_BROKEN}:fine")


def run(*checks: Check, seconds: float = 60) -> list[Row]:
    """Run checks with the CPU in the device's place."""
    return list(run_checks(checks, "cpu", Path("server/embedded"), seconds))


def test_a_check_that_raises_keeps_its_rows_and_fails_and_the_next_one_runs() -> None:
    """With what it raised."""
    rows = run(Check("raising", f"{_BROKEN}:raises"), FINE)
    assert [(row.check, row.status) for row in rows] == [
        ("raising", "passed"),
        ("raising", "measured"),
        ("raising", "failed"),
        ("fine", "passed"),
        ("fine", "measured"),
    ]
    assert rows[2].why.startswith("RuntimeError: the device is gone (broken.py, line ")
    assert rows[2].why.endswith("; it said: about to fail")


def test_a_check_whose_process_dies_keeps_its_rows_and_fails() -> None:
    """With the signal."""
    rows = run(Check("crashing", f"{_BROKEN}:crashes"))
    assert [row.status for row in rows] == ["passed", "measured", "measured", "failed"]
    assert "SIGSEGV" in rows[-1].why
    assert not is_alive(int(rows[2].measured))


def test_a_check_that_cannot_be_started_fails() -> None:
    """With the end of what its process said."""
    (row,) = run(Check("absent", "tests.bench.gpu.absent:check"))
    assert row.status == "failed"
    assert "ended with code 1" in row.why
    assert "No module named 'tests.bench.gpu.absent'" in row.why


def test_a_check_that_does_not_end_is_ended_with_what_it_started() -> None:
    """Within the time there is; its rows are kept."""
    rows = run(Check("hanging", f"{_BROKEN}:hangs"), seconds=6)
    assert [row.status for row in rows] == ["passed", "measured", "measured", "failed"]
    assert "had not ended" in rows[-1].why
    assert not is_alive(int(rows[2].measured))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be told so does not."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_check_for_which_no_time_is_left_is_skipped_with_the_reason() -> None:
    """And not begun."""
    (row,) = run(Check("long", f"{_BROKEN}:fine", needs_seconds=100), seconds=10)
    assert (row.status, row.why) == ("skipped", "10 s left for it, and it needs 100")


def test_a_line_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    """Of a check that died while it wrote."""
    path = tmp_path / "rows"
    path.write_text(json.dumps(Row("one").as_json()) + '\n{"name": "tw')
    assert list(read_rows(path)) == [Row("one")]


@pytest.mark.parametrize("found", [1.5, float("nan"), float("inf")])
def test_what_is_beyond_a_limit_or_no_number_fails(found: float) -> None:
    """NaN is no answer."""
    assert at_most("it", found, 1.0).status == "failed"
    assert at_most("it", 1.0, 1.0).status == "passed"


def test_the_exit_code_tells_whether_a_check_failed_and_everything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page with the failures first, and JSON."""
    arguments = ["--device", "cpu", "--seconds", "60"]
    arguments += ["--json", str(tmp_path / "new" / "gpu.json"), "--page", str(tmp_path / "gpu.md")]
    assert main(arguments, (FINE,)) == 0
    assert main(arguments, (FINE, Check("beyond", f"{_BROKEN}:beyond"))) == 1
    assert "failed   beyond: too far: 2; expected at most 1; beyond the limit" in capsys.readouterr().out
    page = (tmp_path / "gpu.md").read_text()
    assert "says nothing of a GPU" in page
    assert page.index("### Failed") < page.index("beyond: too far") < page.index("### Fine")
    told = json.loads((tmp_path / "new" / "gpu.json").read_text())
    assert [row["status"] for row in told["rows"]] == ["passed", "measured", "failed", "passed"]


def test_of_a_page_only_what_was_found_is_written_anew() -> None:
    """How to run it stays."""
    before = "# On a GPU\n\nIt.\n\n## What was found\n\nNothing.\n\n### Of it\n\n## How to run it\n\nSo.\n"
    page = make_page([judged("it", 1, "2", ok=False)], "cuda", 1.0, before)
    assert page.startswith("# On a GPU\n\nIt.\n\n## What was found\n\nWritten by ")
    assert page.endswith("\n## How to run it\n\nSo.\n")
    assert "Nothing." not in page
    assert "1 failed" in page
    assert make_page([judged("it", 1, "2", ok=True)], "cuda", 1.0, page).count("## What was found") == 1


@pytest.mark.parametrize(
    ("arguments", "found", "page"),
    [
        (["--device", "cuda"], "yes", "docs/gpu.md"),
        (["--device", "cuda", "--page", "docs/../docs/gpu.md"], "no", "build/gpu.md"),
        (["--device", "cuda", "--only", "fine"], "yes", "build/gpu.md"),
        (["--device", "auto"], "no", "build/gpu.md"),
        (["--device", "cpu:0"], "no", "build/gpu.md"),
        (["--device", "cuda", "--page", "elsewhere.md", "--only", "fine"], "no", "elsewhere.md"),
    ],
)
def test_the_page_of_the_documentation_is_of_all_checks_on_a_gpu(arguments: list[str], found: str, page: str) -> None:
    """As the checks found the device to be, whatever was asked for."""
    assert page_of(read_arguments(arguments, (FINE,)), [measured(ON_GPU, found)]) == Path(page)


@pytest.mark.parametrize("name", ["cuda:0,cuda:1", "cuda:all"])
def test_several_devices_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what is expected."""
    with pytest.raises(SystemExit):
        read_arguments(["--device", name], (FINE,))
    assert f"{name}: several devices are not checked; expected one" in capsys.readouterr().err


def test_a_folder_that_was_asked_for_and_has_no_artifact_is_refused(tmp_path: Path) -> None:
    """Rather than that others are checked."""
    with pytest.raises(SystemExit, match="no artifact there"):
        main(["--device", "cpu", "--models", str(tmp_path / "modles")], (FINE,))


def test_the_page_has_nothing_of_the_machine_that_wrote_it() -> None:
    """Neither its name nor where things lie on it."""
    scratch = Path(tempfile.gettempdir(), "tmpab_1")
    why = f"failure 2 ; GPU=0 ; hostname=secret ; {ROOT}/server/app.py: {scratch}/models/it/1"
    page = make_page([failed("it", why)], "cuda", 1.0)
    assert "| failure 2 ; GPU=0 ; ; server/app.py: it/1 |" in page
