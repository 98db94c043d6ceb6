"""The command `regard explore`: where it listens, what it says, how it ends."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from regard.explorer import Settings
from regard.explorer.serve import listen, read_address, url_of
from regard.sources import InputError
from regard.start import run
from tests.client.fake import FakeServer
from tests.processes import environment

EXPLORE = [sys.executable, "-c", "from regard.cli import main; main()"]


def explore(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command where it is expected to refuse."""
    command = [*EXPLORE, "explore", "--no-open", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_where_the_page_is_and_ends_at_ctrl_c(fake: FakeServer) -> None:
    """The address alone on stdout; the code of an interrupted program."""
    command = [*EXPLORE, "--server", fake.address, "explore", "--no-open", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(url, timeout=30) as page:  # noqa: S310 -- the explorer's own address
                assert b"<title>regard" in page.read()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.splitlines() == [f"regard: exploring {fake.address}; Ctrl-C ends", "regard: interrupted"]


def test_the_name_that_it_listens_on_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the printed address has it, without --host-name."""
    given = list[Settings]()
    monkeypatch.setattr("regard.explorer.serve", lambda settings, address, *, open_page: given.append(settings))
    monkeypatch.setattr(sys, "argv", ["regard", "explore", "--listen", "box.lan:0", "--allow-remote"])
    run()
    assert given[0].host_names == {"box.lan"}


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:80", "example.org:80"])
def test_an_address_that_others_reach_must_be_allowed(address: str) -> None:
    """With the reason, and the flag."""
    with pytest.raises(InputError, match=r"asks for no password; expected .* or --allow-remote"):
        read_address(address, allow_remote=False)
    assert read_address(address, allow_remote=True).port in (80, 8080)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:8080", "[::1]:8080", "127.0.0.2:1"])
def test_this_machine_alone_needs_no_leave(address: str) -> None:
    """Every loopback address."""
    assert f"{read_address(address, allow_remote=False).port}" == address.rpartition(":")[2]


@pytest.mark.parametrize("address", ["8080", "127.0.0.1:", ":8080", "127.0.0.1:http", "127.0.0.1:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """On the command line too, with code 1."""
    with pytest.raises(InputError, match="expected HOST:PORT"):
        read_address(address, allow_remote=False)


def test_the_command_explains_its_refusals_in_one_line() -> None:
    """As every command does."""
    done = explore("--listen", "0.0.0.0:0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("regard: --listen 0.0.0.0:0: whoever reaches the page can use the server")
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_named() -> None:
    """With the flag that chose it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = explore("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert done.stderr.startswith("regard: --listen 127.0.0.1:")
    assert "in use" in done.stderr


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:{}/"), ("localhost", "http://localhost:{}/")]
)
def test_the_url_has_the_port_that_was_free(host: str, url: str) -> None:
    """And the name that was asked for."""
    with listen(read_address(f"{host}:0", allow_remote=False)) as opened:
        assert url_of(opened, host) == url.format(opened.getsockname()[1])


def test_the_url_of_all_addresses_names_this_machine() -> None:
    """A browser cannot go to 0.0.0.0."""
    with listen(read_address("127.0.0.1:0", allow_remote=False)) as opened:
        port = opened.getsockname()[1]
        assert url_of(opened, "0.0.0.0") == f"http://localhost:{port}/"  # noqa: S104 -- not listened on
        assert url_of(opened, "::1") == f"http://[::1]:{port}/"
