"""A stand-in of the Hugging Face hub's HTTP interface: models at commits, large files on another host."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

_LARGE = ".safetensors"  # such files are kept by their sha256, as git-lfs does
Answer = tuple[int, dict[str, str], bytes]


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def git_hash(content: bytes) -> str:
    """Git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    host: str
    token: str | None
    start: str | None  # of a range


@dataclass
class Hub:
    """What the stand-in knows and does.

    Attributes:
        url: Of the hub; large files are at the same port of another host.
        commits: Files by name, by commit, by id.
        refs: Commits by branch or tag, by id.
        refusal: What a request for a file of an id gets: status and the hub's code.
        token: Whoever sends another is told that no model exists; None: everyone may read.
        sent: What is sent in place of a file, by its name.
        cuts: After so many bytes the connection ends, once, by file.
        broken: Names of large files that the other host does not give.
        requests: In the order of arrival.
    """

    url: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[str, dict[str, str]] = field(default_factory=dict)
    refusal: dict[str, tuple[int, str]] = field(default_factory=dict)
    token: str | None = None
    sent: dict[str, bytes] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)

    def commit(self, repository: str, files: Mapping[str, bytes], *refs: str) -> str:
        """Add files as a commit, and let branches and tags be it; returns it."""
        listing = json.dumps({name: sha256(content) for name, content in sorted(files.items())})
        commit = git_hash(listing.encode())
        self.commits.setdefault(repository, {})[commit] = dict(files)
        self.refs.setdefault(repository, {}).update(dict.fromkeys(refs or ("main",), commit))
        return commit

    def asked(self, ending: str = "", method: str = "GET") -> list[Request]:
        """Requests for what ends so."""
        return [one for one in self.requests if one.method == method and one.path.endswith(ending)]

    def answer(self, request: Request) -> Answer:
        """Do what the hub does."""
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        if parts[0] == "large" and parts[2] in self.broken:
            return _refuse(500, "Broken")
        if parts[0] == "large":
            return 200, {}, self._find_large(parts[1], parts[2])
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repository not in self.commits or (self.token and request.token != f"Bearer {self.token}"):
            return _refuse(401 if request.token is None else 404, "RepoNotFound")
        verb, revision, *path = parts[4:] if parts[0] == "api" else parts[2:]
        commit = self.refs[repository].get(revision, revision)
        files = self.commits[repository].get(commit)
        if files is None:
            return _refuse(404, "RevisionNotFound")
        if verb == "revision":
            content = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
        if verb == "tree":
            return (
                200,
                {"Content-Type": "application/json"},
                json.dumps([_entry(*one) for one in files.items()]).encode(),
            )
        if repository in self.refusal:
            return _refuse(*self.refusal[repository])
        return self._file(files, commit, "/".join(path))

    def _file(self, files: Mapping[str, bytes], commit: str, name: str) -> Answer:
        if name not in files:
            return _refuse(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit}
        if name.endswith(_LARGE):
            digest, size = sha256(files[name]), len(files[name])
            linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(size)}
            elsewhere = self.url.replace("127.0.0.1", "localhost")
            return 302, headers | linked | {"Location": f"{elsewhere}/large/{digest}/{name}"}, b""
        return 200, headers | {"ETag": f'"{git_hash(files[name])}"'}, self.sent.get(name, files[name])

    def _find_large(self, digest: str, name: str) -> bytes:
        every = (files for commits in self.commits.values() for files in commits.values())
        contents = (content for files in every for content in files.values())
        return self.sent.get(name, next(content for content in contents if sha256(content) == digest))


def _refuse(status: int, code: str) -> Answer:
    return status, {"X-Error-Code": code, "X-Error-Message": code}, b""


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
    if name.endswith(_LARGE):
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
        entry["oid"] = git_hash(pointer.encode())
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}
    return entry


@contextmanager
def run_hub() -> Iterator[Hub]:
    """Serve on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's own name
            """Say nothing."""

        def _answer(self) -> None:
            start = self.headers.get("Range")
            path = urlsplit(self.path).path
            host = self.headers["Host"].rpartition(":")[0]
            request = Request(self.command, path, host, self.headers.get("Authorization"), start)
            hub.requests.append(request)
            status, headers, body = hub.answer(request)
            if start and status == 200:
                first = int(start.removeprefix("bytes=").partition("-")[0])
                status, headers["Content-Range"] = 206, f"bytes {first}-{len(body) - 1}/{len(body)}"
                body = body[first:]
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: hub.cuts.pop(path.rpartition("/")[2], len(body))])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield hub
        server.shutdown()
        thread.join()
