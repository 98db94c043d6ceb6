from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from artifact.contract import Origin
from export.__main__ import app
from export.errors import HubError
from export.hub import Snapshot, is_hub_id
from export.hub_address import Address, read_address
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


@pytest.mark.parametrize(
    ("given", "revision", "fetched"),
    [
        ("https://huggingface.co/acme/bert", None, ("acme/bert", "main")),
        ("HTTPS://HuggingFace.co/acme/bert/", "v1", ("acme/bert", "v1")),
        ("huggingface.co/acme/bert?library=transformers#use", None, ("acme/bert", "main")),
        ("http://hf.co/acme/bert/tree/v1", None, ("acme/bert", "v1")),
        ("https://huggingface.co/acme/bert/tree/refs%2Fpr%2F1", "refs/pr/1", ("acme/bert", "refs/pr/1")),
        ("https://huggingface.co/acme/bert/commit/0123abc", None, ("acme/bert", "0123abc")),
        ("https://Mirror.example/acme/bert", None, ("acme/bert", "main")),
    ],
)
def test_the_page_of_a_model_is_its_id(
    given: str, revision: str | None, fetched: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a browser shows it, with the revision that it names."""
    asked = list[tuple[str, str]]()

    def fetch(repository: str, revision: str) -> Snapshot:
        asked.append((repository, revision))
        return Snapshot(Path(), Origin(repository=repository, revision="0" * 40))

    monkeypatch.setattr("export.known.fetch_snapshot", fetch)
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    located = locate(given, revision)
    assert isinstance(located, Snapshot)
    assert asked == [fetched]


@pytest.mark.parametrize("behind", ["", "/", "/tree/v1"])
def test_an_endpoint_may_have_a_path(behind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mirror below another site has; what lies elsewhere on that site is nothing of the hub."""
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example/hub/hf/")
    revision = "v1" if "v1" in behind else None
    assert read_address(f"https://mirror.example/hub/hf/acme/bert{behind}") == Address("acme/bert", revision)
    assert read_address(f"https://huggingface.co/acme/bert{behind}") == Address("acme/bert", revision)
    assert read_address(f"https://mirror.example/acme/bert{behind}") is None
    with pytest.raises(HubError, match="hf/datasets/films: is no model's page on the hub; expected owner/name"):
        read_address("https://mirror.example/hub/hf/datasets/films")


@pytest.mark.parametrize(
    "page", ["docs/transformers", "papers/1706.03762", "collections/acme", "blog/bert", "tasks/ranking", "learn/nlp"]
)
def test_a_page_of_the_site_is_no_model(page: str) -> None:
    """Though it has two parts, as an id."""
    with pytest.raises(HubError, match=f"{page}: is no model's page on the hub; expected owner/name"):
        read_address(f"https://huggingface.co/{page}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["https://huggingface.co/bert"], "is no model's page on the hub; expected owner/name, or its page, https://"),
        (["https://huggingface.co/datasets/acme/films"], "is no model's page on the hub; expected owner/name"),
        (
            ["https://huggingface.co/acme/bert/blob/main/config.json"],
            "is a page within a model; expected acme/bert, with --revision for another than main",
        ),
        (["https://huggingface.co/acme/bert/tree/main/onnx"], "is a page within a model; expected acme/bert, with"),
        (
            ["https://huggingface.co/acme/bert/tree/v1", "--revision", "v2"],
            "--revision: 'v2'; https://huggingface.co/acme/bert/tree/v1 has 'v1'; expected one",
        ),
        (["https://example.com/acme/bert"], "https://example.com/acme/bert: neither a folder, nor an ONNX file"),
        (["https://[huggingface.co/acme/bert"], "https://[huggingface.co/acme/bert: neither a folder"),
    ],
)
def test_an_address_of_something_else_is_refused(given: list[str], message: str, out: Path) -> None:
    """In a line that says what to write."""
    done = CliRunner().invoke(app, [*given, "--out", str(out)])
    assert done.exit_code == 1
    assert message in done.output.replace("\n", "")
