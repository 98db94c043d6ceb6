"""A server with TLS and tokens, and everything of ours that calls it."""

import os
import subprocess
import sys
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trustme

import regard
from regard.identity import read_identity
from tests.golden import GOLDEN_MODELS
from tests.processes import ROOT, ServerProcess, StartProcess, environment

TOKEN = "the-token-of-the-tests"  # noqa: S105 -- for this server alone


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with an authority, the server's and a caller's certificates and keys, a token, and who has it."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    for prefix, name in (("", "localhost"), ("own-", "caller.example"), ("other-", "other.example")):
        issued = authority.issue_cert(name)
        (tmp_path / f"{prefix}cert.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        (tmp_path / f"{prefix}key.pem").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "clients.toml").write_text(f'[clients.tests]\ntokens = ["{TOKEN}"]\n')
    return tmp_path


def secured(start_process: StartProcess, files: Path, *more: str) -> "AbstractContextManager[ServerProcess]":
    """Start the server; other machines may reach it."""
    arguments = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--clients", "clients.toml", *more]
    arguments = [str(files / one) if not one.startswith("--") else one for one in arguments]
    return start_process("--models", str(GOLDEN_MODELS), "--listen", "0.0.0.0:0", *arguments)


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of ours."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment() | variables, capture_output=True, text=True, timeout=60, check=False
    )


def test_our_clients_speak_tls_and_show_a_token(files: Path, start_process: StartProcess) -> None:
    """The library and the command line; without the token, or without TLS, in one clear line."""
    with secured(start_process, files) as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        identity = read_identity(files / "ca.pem", token_file=files / "token")
        with regard.Client(address, credentials=identity.credentials, token=identity.token) as client:
            answer = client.embed(text="the cat", attention=regard.AttentionRequest())
            assert answer.attention
            assert len(list(client.attend(text="the cat"))) == len(answer.attention.layers)
            with pytest.raises(regard.PermissionDenied, match="LoadModel: management is off on this address"):
                client.load_model("tiny-text")
        with (
            regard.Client(address, credentials=identity.credentials) as client,
            pytest.raises(regard.Unauthenticated, match="authorization: missing; expected metadata"),
        ):
            client.models()
        given = {"REGARD_SERVER": address, "REGARD_CA": str(files / "ca.pem")}
        done = run("regard", "models", **given, REGARD_TOKEN=TOKEN)
        assert (done.returncode, "tiny-text" in done.stdout) == (0, True), done.stderr
        done = run("regard", "--token-file", str(files / "token"), "embed", "the cat", **given)
        assert done.returncode == 0, done.stderr
        done = run("regard", "models", **given, REGARD_TOKEN=TOKEN[1:])
        assert (done.returncode, TOKEN in done.stderr) == (1, False)
        assert "UNAUTHENTICATED: authorization: not the token of a client" in done.stderr
        assert run("regard", "models", REGARD_SERVER=address, REGARD_TOKEN=TOKEN).returncode == 1
        metrics = server.printed[-2].partition("http://")[2].partition("/")[0]
        healthy = run("server.healthcheck", REGARD_TLS_CERT=str(files / "cert.pem"), REGARD_METRICS=metrics)
        assert healthy.returncode == 0, healthy.stderr


def test_the_command_line_and_the_page_show_a_certificate(files: Path, start_process: StartProcess) -> None:
    """With mutual TLS, from the environment and from flags; without one there is no answer."""
    (files / "clients.toml").write_text('[clients.caller]\ncertificate = "caller.example"\n')
    with secured(start_process, files, "--tls-client-ca", "ca.pem") as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        trusted = {"REGARD_SERVER": address, "REGARD_CA": str(files / "ca.pem")}
        own = {"REGARD_CERT": str(files / "own-cert.pem"), "REGARD_KEY": str(files / "own-key.pem")}
        done = run("regard", "models", **trusted, **own)
        assert (done.returncode, "tiny-text" in done.stdout) == (0, True), done.stderr
        flags = ["--cert", own["REGARD_CERT"], "--key", own["REGARD_KEY"]]
        assert run("regard", *flags, "models", **trusted).returncode == 0
        assert run("regard", "models", **trusted).returncode == 1
        other = {"REGARD_CERT": str(files / "other-cert.pem"), "REGARD_KEY": str(files / "other-key.pem")}
        assert "UNAUTHENTICATED: authorization: missing" in run("regard", "models", **trusted, **other).stderr
        command = [sys.executable, "-m", "regard", "explore", "--no-open", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            command, env=environment() | trusted | own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                with urllib.request.urlopen(f"{url}api/models", timeout=30) as models:  # noqa: S310 -- the page's own
                    assert b"tiny-text" in models.read()
            finally:
                process.kill()


def test_identities_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Half of a pair, a file that is not there, a token of two lines."""
    with pytest.raises(ValueError, match="--cert, --key: one is missing; expected both or neither"):
        read_identity(certificate=tmp_path / "cert.pem")
    with pytest.raises(OSError, match=r"--ca .*ca\.pem: No such file or directory; expected a file that can be read"):
        read_identity(tmp_path / "ca.pem")
    (tmp_path / "token").write_text("one\ntwo")
    with pytest.raises(ValueError, match="the token holds what is no character; expected one line"):
        read_identity(token_file=tmp_path / "token")
    assert read_identity(environment=os.environ | {"REGARD_TOKEN": ""}).token is None
