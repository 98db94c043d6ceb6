from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.__main__ import app
from export.errors import HubError
from export.hub import is_hub_id
from export.known import locate


def test_what_is_here_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where its folder alone is here, both are named."""

    def refuse(repository: str, revision: str) -> None:
        raise HubError(f"{repository}: unknown at {revision}")

    monkeypatch.setattr("export.known.fetch_snapshot", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=r"^mine/bert: unknown at main"):
        locate("mine/bert")
    (tmp_path / "mine").mkdir()
    with pytest.raises(HubError, match=r"^mine/bert: there is no such folder, so the hub was asked: unknown at v1"):
        locate("mine/bert", "v1")
    (tmp_path / "mine" / "bert").mkdir()
    assert locate("mine/bert") == "mine/bert"
    assert locate("minilm") == "minilm"


@pytest.mark.parametrize("source", ["minilm", ".", "nope", "no/such/folder", "mine/graph.onnx"])
def test_a_revision_is_of_the_hub_alone(source: str, out: Path) -> None:
    """The error names the flag."""
    done = CliRunner().invoke(app, [source, "--revision", "v1", "--out", str(out)])
    assert done.exit_code == 1
    assert f"error: --revision: 'v1'; {source} is no id of the hub (owner/name)" in done.output.replace("\n", "")


def test_ids_are_told_from_paths() -> None:
    """As the hub makes them."""
    assert all(map(is_hub_id, ["acme/Tiny-Text", "sentence-transformers/all-MiniLM-L6-v2", "a/b.c_d"]))
    assert not any(map(is_hub_id, ["bert", "./bert", "/a/b", "a/b/c", "a/b/", "a/../b", "a/b--c", "a/b.onnx", "~/b"]))
