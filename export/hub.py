"""Downloads checkpoints from the Hugging Face hub by id, at one commit, and checks them by their hashes.

The library's environment variables hold: HF_HOME (cache), HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE. Nothing that is code
or a pickle is asked for.
"""

import errno
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import tqdm, validate_repo_id  # type: ignore[attr-defined] # documented so
from huggingface_hub.utils.sha import git_hash

from artifact.contract import Origin
from artifact.files import hash_file
from export.errors import HubError

DEFAULT_REVISION = "main"
_WEIGHTS = ("model.safetensors", "model-?????-of-?????.safetensors")
_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors.index.json",
    *_WEIGHTS,
)
# What an export reads: of the folder itself, and of the numbered ones in which sentence-transformers keeps modules.
_READ = (
    *("modules.json", "sentence_*_config.json", "config_sentence_transformers.json"),
    *_FILES,
    *(f"[0-9]*_*/{name}" for name in (*_FILES, "sentence_*_config.json")),
)
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".safetensors")
_HASH, _SHA256_DIGITS = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}"), 64
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint's files as they were at a commit.

    Attributes:
        folder: In the hub's cache.
        origin: The id, and the commit.
    """

    folder: Path
    origin: Origin

    @property
    def name(self) -> str:
        """The artifact's, unless another is given."""
        return default_name(self.origin.repository)


def is_hub_id(text: str) -> bool:
    """Whether a text is the id of a model on the hub, owner/name; an ONNX file's path is not."""
    if text.count("/") != 1 or text.endswith(".onnx"):
        return False
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def default_name(repository: str) -> str:
    """The last part of an id."""
    return repository.rpartition("/")[2]


def fetch_snapshot(repository: str, revision: str = DEFAULT_REVISION) -> Snapshot:
    """Download what an export reads of a model, but for what the cache has, and check every file's hash.

    Args:
        repository: The id, owner/name.
        revision: Branch, tag or commit; is made a commit first, at which everything is fetched.

    Raises:
        HubError: The hub cannot be reached or does not give it; it has no safetensors; a file is not what the hub says
            it is, and was removed; the disk is full.
    """
    wanted = revision
    try:
        wanted = _find_commit(repository, revision)
        folder = _download(repository, wanted)
        paths = [file.path for file in get_cached_repo_tree(repository, revision=wanted)]
        _check_weights(repository, paths)
        _check_hashes([folder / path for path in paths if _is_read(path)])
        return Snapshot(folder, Origin(repository=repository, revision=wanted))
    except RevisionNotFoundError as error:
        raise HubError(f"--revision: {revision!r}; {repository} has no such branch, tag or commit") from error
    except _Unsuitable as error:
        raise HubError(f"{repository}: {error}") from error
    except Exception as error:  # the library raises whatever its parts raise
        raise HubError(f"{repository}: {_reason(repository, error)}. {_elsewhere(repository, wanted)}") from error


def _download(repository: str, commit: str) -> Path:
    """Return the folder of what an export reads; without bars where the cache has it, which would tell of 0 bytes."""
    read = list(_READ)
    with suppress(CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        get_cached_repo_tree(repository, revision=commit)  # which says what "all" is
        return Path(snapshot_download(repository, revision=commit, allow_patterns=read, local_files_only=True))
    with _progress() as bars:
        return Path(snapshot_download(repository, revision=commit, allow_patterns=read, tqdm_class=bars))


@contextmanager
def _progress() -> Iterator[type[tqdm]]:
    """The library's bars, on a terminal alone; it leaves some open, whose lines would come after ours."""
    opened = list[tqdm]()

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options["disable"] = options.get("disable") or not sys.stderr.isatty()
            super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
            opened.append(self)

    try:
        yield Bar
    finally:
        for bar in opened:
            bar.close()


def _find_commit(repository: str, revision: str) -> str:
    """Ask the hub which commit is meant, or the cache where there is no network."""
    commit: str = HfApi().resolve_revision(repository, revision=revision).resolved
    if commit == revision:  # nothing was asked yet
        try:
            get_cached_repo_tree(repository, revision=commit)
        except CachedRepoTreeNotFoundError:
            HfApi().model_info(repository, revision=commit)  # fails at once, where a download tries for half a minute
    return commit


class _Unsuitable(Exception):
    """Files that would be the same wherever they are fetched."""


class _WrongHash(Exception):
    """A file that is not what the hub says it is."""


def _is_read(path: str, patterns: Sequence[str] = _READ) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)  # as the library does


def _check_weights(repository: str, paths: Sequence[str]) -> None:
    """Refuse a model without safetensors."""
    if any(_is_read(path, (*_WEIGHTS, *(f"0_*/{name}" for name in _WEIGHTS))) for path in paths):
        return
    others = [path for path in paths if path.endswith(_OTHER_WEIGHTS)]
    if any(Path(path).name.startswith("pytorch_model") for path in others):
        raise _Unsuitable(
            "has no safetensors, only pytorch_model.bin, a pickle, which is never loaded. If you trust it, convert it"
            f' (from_pretrained("{repository}").save_pretrained("DIR") of the class that its config.json names in'
            " architectures, in transformers, and put its"
            " tokenizer.json or preprocessor_config.json beside that), then: regard export DIR"
            f" --name {default_name(repository)}"
        )
    found = f"; it has {', '.join(others[:3])}" if others else ""
    raise _Unsuitable(f"has no safetensors; expected model.safetensors, or its parts and their index{found}")


def _check_hashes(files: Sequence[Path]) -> None:
    """Compare files with the hub's ETags, and remove what differs; the library compares sizes alone.

    The cache has files as links to blobs that are named by their ETag: sha256 of large files, git's hash of others.
    Where it may make no links, or a mirror has ETags of its own, nothing tells.
    """
    wrong = []
    for file in files:
        blob = file.resolve()
        if not file.is_symlink() or not _HASH.fullmatch(blob.name):
            continue
        found = hash_file(blob) if len(blob.name) == _SHA256_DIGITS else git_hash(blob.read_bytes())
        if found != blob.name:
            file.unlink()
            blob.unlink()
            wrong.append(f"{file.name} has the hash {found}, but the hub says {blob.name}")
    if wrong:
        raise _WrongHash(f"{', and '.join(wrong)}; removed, so that the next try fetches it anew")


def _reason(repository: str, error: BaseException) -> str:
    """What went wrong, in a line."""
    while isinstance(error, LocalEntryNotFoundError | RevisionResolutionError) and error.__cause__:
        error = error.__cause__
    hub = constants.ENDPOINT
    if isinstance(error, _WrongHash):
        return str(error)
    if isinstance(error, GatedRepoError):
        return f"is gated: accept its terms at {hub}/{repository}, and set HF_TOKEN to a token of that account"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub} has no such model, or it is private: check the id, or set HF_TOKEN to a token that may read it"
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or error.response.reason_phrase
        return f"{hub} answers {error.response.status_code}: {_first_line(said)}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, and not all of it is in the cache, {constants.HF_HUB_CACHE}"
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return f"the disk of the cache is full, {constants.HF_HUB_CACHE}: make room, or set HF_HOME to another folder"
    return f"cannot be fetched from {hub}: {_first_line(str(error)) or type(error).__name__}"


def _elsewhere(repository: str, revision: str) -> str:
    """How to fetch it on another machine, or as another user."""
    return (
        "Or fetch it where that works, with"
        f" `hf download {repository} --revision {shlex.quote(revision)} --local-dir DIR`,"
        f" and export the folder: `regard export DIR --name {default_name(repository)}`"
    )


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
