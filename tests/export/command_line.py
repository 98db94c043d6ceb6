"""The exporter as a user runs it: what it publishes, and what it says of what it refuses."""

from pathlib import Path

import onnx
from onnx import ModelProto
from typer.testing import CliRunner

from artifact.contract import Contract, read_contract
from export.__main__ import app


def export(path: Path, out: Path, *arguments: str) -> Contract:
    """Run the command line, and read what it published."""
    done = CliRunner().invoke(app, [str(path), "--out", str(out), *arguments])
    assert done.exit_code == 0, done.output
    assert f"published {out / path.stem / '1'}" in done.output.replace("\n", "")
    return read_contract(out / path.stem / "1" / "contract.json")


def refused(model: ModelProto, out: Path) -> str:
    """Run the command line, which publishes nothing; returns its one line."""
    onnx.save_model(model, out.parent / "odd.onnx")
    done = CliRunner().invoke(app, [str(out.parent / "odd.onnx"), "--out", str(out)])
    assert done.exit_code == 1, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not list(out.rglob("*.onnx"))
    return done.output.replace("\n", "")
