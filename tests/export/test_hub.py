"""Models of the hub by their ids, from a stand-in of its HTTP interface, in processes with the library's settings."""

import contextlib
import errno
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

import regard
from artifact.contract import Origin, read_contract
from export import hub as export_hub
from export.errors import HubError
from export.hub import fetch_snapshot
from export.publish import same_as_newest
from tests.export.hub import Hub, read_folder, run_hub
from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK
from tests.processes import ROOT, StartProcess

ID = "acme/Tiny-Text"
CHUNK = 10 * 2**20  # the library writes downloads in such parts, and resumes after the last whole one
FETCH = """
import sys
from export.errors import HubError
from export.hub import fetch_snapshot
try:
    print(fetch_snapshot(*sys.argv[1:]).folder)
except HubError as error:
    print("error:", error)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with nothing on it."""
    with run_hub() as hub:
        yield hub


@pytest.fixture
def settings(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """The library's settings: that hub, and an empty cache."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    path = f"{ROOT / 'client'}:{ROOT}"
    return own | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "PYTHONPATH": path}


def run(settings: dict[str, str], *command: str) -> "subprocess.CompletedProcess[str]":
    """Run Python."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=600, check=False
    )


def watch(settings: dict[str, str], *command: str) -> str:
    """Run Python with a terminal for its standard error; returns what stands there."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 80))
    seen = b""
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=end
    ) as done:
        os.close(end)
        with contextlib.suppress(OSError):  # nobody has it open any more
            while part := os.read(terminal, CHUNK):
                seen += part
    os.close(terminal)
    assert done.returncode == 0, seen
    return seen.decode()


def fetch(settings: dict[str, str], *arguments: str) -> str:
    """Fetch a snapshot in a process of its own; returns its folder, or its error in one line."""
    done = run(settings, "-c", FETCH, *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return line


def golden(**more: bytes) -> dict[str, bytes]:
    """The golden network's files, and more."""
    return read_folder(GOLDEN_NETWORK) | more


def downloads(hub: Hub) -> list[str]:
    """Names of the files that were sent, and forget them."""
    names = sorted(one.path.rpartition("/")[2] for one in hub.asked() if not one.path.startswith("/api/"))
    hub.requests.clear()
    return names


def test_an_id_is_exported_and_served(
    hub: Hub, settings: dict[str, str], out: Path, start_process: StartProcess
) -> None:
    """Pinned to its commit; the same commit by a tag changes nothing and downloads nothing."""
    commit = hub.commit(ID, golden(), "main", "v1")
    first = run(settings, "-m", "export", ID, "--out", str(out), "--summary")
    assert first.returncode == 0, first.stderr
    assert not first.stderr
    assert f"from {ID} at {commit}\npublished {out / 'Tiny-Text' / '1'}\n" in first.stdout
    contract = read_contract(out / "Tiny-Text" / "1" / "contract.json")
    assert contract.origin == Origin(repository=ID, revision=commit)
    assert contract.description == f"{ID} of the hub at {commit[:12]}"
    assert downloads(hub) == ["config.json", "model.safetensors", "tokenizer.json"]
    again = run(settings, "-m", "export", f"{hub.url}/{ID}/tree/v1", "--out", str(out), "--summary")
    assert f"unchanged {out / 'Tiny-Text' / '1'}\n" in again.stdout, again.stderr
    assert downloads(hub) == []
    with start_process("--models", str(out)) as server, regard.Client(server.address) as client:
        answer = client.classify(text="the film was good", attention=regard.AttentionRequest())
    assert {label.name for label in answer.labels} == {"negative", "positive"}
    assert answer.attention is not None
    assert answer.attention.layer(-1).weights.shape == (4, 6, 6)


def test_another_origin_is_another_version() -> None:
    """Artifacts of before have none."""
    contract = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")
    assert contract.origin is None
    assert same_as_newest(GOLDEN_MODELS, contract) == 1
    origin = Origin(repository=ID, revision="0" * 40)
    assert same_as_newest(GOLDEN_MODELS, contract.model_copy(update={"origin": origin})) is None


def test_only_what_an_export_reads_is_asked_for(hub: Hub, settings: dict[str, str]) -> None:
    """No code, no pickles, no other formats; modules of sentence-transformers and weights in parts are."""
    read = ["config.json", "tokenizer.json", "preprocessor_config.json", "modules.json", "sentence_bert_config.json"]
    read += ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    read += ["config_sentence_transformers.json", "1_Pooling/config.json"]
    read += ["2_Dense/config.json", "2_Dense/model.safetensors"]
    left = ["modeling_acme.py", "pytorch_model.bin", "2_Dense/pytorch_model.bin", "onnx/model.onnx", "README.md"]
    left += ["model.fp16.safetensors", "unet/model.safetensors", "openvino/config.json", "training_args.bin", "x.pkl"]
    hub.commit(ID, {name: name.encode() for name in (*read, *left)})
    folder = Path(fetch(settings, ID))
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(read)
    assert not [one for one in hub.requests if one.path.endswith(tuple(left[:5]))]
    assert downloads(hub) == sorted(name.rpartition("/")[2] for name in read)


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, settings: dict[str, str]) -> None:
    """Each is made a commit before anything is fetched."""
    old = hub.commit(ID, {"config.json": b"old", "model.safetensors": b"old"}, "v1")
    new = hub.commit(ID, {"config.json": b"new", "model.safetensors": b"old"}, "main")
    for revision, commit, sent in (
        ("v1", old, ["config.json", "model.safetensors"]),
        ("main", new, ["config.json"]),  # the weights are the same file
        (old, old, []),
    ):
        folder = Path(fetch(settings, ID, revision))
        assert folder.name == commit
        assert (folder / "config.json").read_bytes() == (b"old" if commit == old else b"new")
        assert all(f"/resolve/{commit}/" in one.path for one in hub.asked() if "/resolve/" in one.path)
        assert downloads(hub) == sent
    for revision in ("v9", "0" * 40):
        line = fetch(settings, ID, revision)
        assert line == f"error: --revision: {revision!r}; {ID} has no such branch, tag or commit"


def test_the_token_goes_to_the_hub_alone(hub: Hub, settings: dict[str, str]) -> None:
    """Large files lie on another host; without a token a private model is said to be unknown or private."""
    hub.commit(ID, golden())
    hub.token = "right"  # noqa: S105 -- of the stand-in
    for token in ({}, {"HF_TOKEN": "wrong"}):
        line = fetch(settings | token, ID)
        assert f"{hub.url} has no such model, or it is private: check the id, or set HF_TOKEN" in line
    hub.requests.clear()
    assert Path(fetch(settings | {"HF_TOKEN": "right"}, ID)).is_dir()
    tokens = {(one.host, one.token) for one in hub.requests if one.path != "/api/agent-harnesses"}
    assert tokens == {("127.0.0.1", "Bearer right"), ("localhost", None)}


def test_a_broken_download_goes_on_where_it_was(hub: Hub, settings: dict[str, str]) -> None:
    """The library asks for the rest, in the same command."""
    content = os.urandom(CHUNK + 2_000_000)
    hub.commit(ID, golden(**{"model.safetensors": content}))
    hub.cuts["model.safetensors"] = CHUNK + 1_000_000
    folder = Path(fetch(settings, ID))
    assert (folder / "model.safetensors").read_bytes() == content
    assert [one.start for one in hub.asked("model.safetensors")] == [None, f"bytes={CHUNK}-"]


def test_the_next_try_fetches_what_the_last_one_did_not(hub: Hub, settings: dict[str, str]) -> None:
    """What is complete stays in the cache."""
    commit = hub.commit(ID, golden())
    hub.broken.add("model.safetensors")
    line = fetch(settings, ID)
    assert line.startswith(f"error: {ID}: {hub.url} answers 500: Broken. Or fetch it where that works, with ")
    assert f"`hf download {ID} --revision {commit} --local-dir DIR`" in line
    assert line.endswith("and export the folder: `regard export DIR --name Tiny-Text`")
    hub.broken.clear()
    hub.requests.clear()
    assert Path(fetch(settings, ID)).name == commit
    assert downloads(hub) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_with_another_hash_is_removed(hub: Hub, settings: dict[str, str], name: str) -> None:
    """Its size is right, which is all that the library looks at."""
    files = golden()
    hub.commit(ID, files)
    hub.sent[name] = bytes(len(files[name]))
    line = fetch(settings, ID)
    assert line.startswith(f"error: {ID}: {name} has the hash ")
    assert "; removed, so that the next try fetches it anew. Or fetch it where that works" in line
    hub.sent.clear()
    hub.requests.clear()
    assert (Path(fetch(settings, ID)) / name).read_bytes() == files[name]
    assert downloads(hub) == [name]


def test_a_gated_model_says_where_its_terms_are(hub: Hub, settings: dict[str, str]) -> None:
    """And that a token is needed."""
    hub.commit(ID, golden())
    hub.refusal[ID] = (403, "GatedRepo")
    line = fetch(settings, ID)
    said = f"error: {ID}: is gated: accept its terms at {hub.url}/{ID}, and set HF_TOKEN to a token of that account. "
    assert line.startswith(said)
    assert "`hf download " in line


def test_an_unknown_model_says_what_to_check(hub: Hub, settings: dict[str, str]) -> None:
    """It may be private."""
    hub.commit(ID, golden())
    line = fetch(settings, "acme/none")
    assert line.startswith(f"error: acme/none: {hub.url} has no such model, or it is private: check the id, or set HF_")
    assert "`hf download acme/none --revision main --local-dir DIR`" in line


def test_no_network_is_one_line_at_once(hub: Hub, settings: dict[str, str]) -> None:
    """For a branch and for a commit, with how to fetch it elsewhere."""
    nowhere = settings | {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the port discard, where nobody listens
    for revision in ("main", "0" * 40):
        done = run(nowhere, "-c", FETCH, ID, revision)
        assert not done.stderr
        assert f"{ID}: cannot be fetched from http://127.0.0.1:9: " in done.stdout
        assert f"`hf download {ID} --revision {revision} --local-dir DIR`" in done.stdout


def test_a_terminal_shows_how_far_a_download_is(hub: Hub, settings: dict[str, str], tmp_path: Path) -> None:
    """To its end, on lines of its own, and on none where the cache has all; a pipe gets nothing."""
    hub.commit(ID, golden())
    seen = watch(settings, "-c", FETCH, ID)
    assert re.search(r"Fetching 3 files: 100%.* 3/3 ", seen)
    assert re.search(r"\d+%.* 106kB / +106kB ", seen)
    assert seen.endswith("\n")
    assert watch(settings, "-c", FETCH, ID) == ""
    assert not run(settings | {"HF_HOME": str(tmp_path / "other")}, "-c", FETCH, ID).stderr


def test_offline_the_cache_is_enough(hub: Hub, settings: dict[str, str]) -> None:
    """If it has everything; nothing is asked."""
    commit = hub.commit(ID, golden())
    offline = settings | {"HF_HUB_OFFLINE": "1"}
    line = fetch(offline, ID)
    assert f"{ID}: HF_HUB_OFFLINE is set, and not all of it is in the cache, {settings['HF_HOME']}" in line
    assert "`hf download " in line
    fetch(settings, ID)
    hub.requests.clear()
    assert Path(fetch(offline, ID)).name == commit
    assert hub.requests == []
    next(Path(settings["HF_HOME"]).rglob("snapshots/*/tokenizer.json")).unlink()
    assert "not all of it is in the cache" in fetch(offline, ID)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ["pytorch_model.bin", "model.py"],
            "has no safetensors, only pytorch_model.bin, a pickle, which is never load",
        ),
        (
            ["tiny.gguf"],
            "has no safetensors; expected model.safetensors, or its parts and their index; it has tiny.gguf",
        ),
        ([], "has no safetensors; expected model.safetensors, or its parts and their index"),
    ],
)
def test_a_model_without_safetensors_is_refused(
    hub: Hub, settings: dict[str, str], files: list[str], said: str
) -> None:
    """A pickle is never fetched, and the line says how to convert it."""
    hub.commit(ID, {name: name.encode() for name in ("config.json", *files)})
    line = fetch(settings, ID)
    assert line.startswith(f"error: {ID}: {said}")
    assert ('from_pretrained("acme/Tiny-Text").save_pretrained("DIR")' in line) == (len(files) == 2)
    assert not [one for one in hub.requests if one.path.endswith(tuple(files))]
    assert downloads(hub) == ["config.json"]


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that takes another."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_hub, "_find_commit", lambda repository, revision: "0" * 40)
    monkeypatch.setattr(export_hub, "snapshot_download", fail)
    with pytest.raises(HubError, match=r"the disk of the cache is full, .*: make room, or set HF_HOME .* `hf download"):
        fetch_snapshot(ID)
