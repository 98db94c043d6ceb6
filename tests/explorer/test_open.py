"""`regard attend --open`: a link to what would be drawn, on a page that runs or on one that is started."""

import hashlib
import http.server
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from PIL import Image

from regard.sources import InputError
from regard.start import run
from tests.client.fake import FakeServer
from tests.explorer.browsing import Browser, expect, visiting
from tests.explorer.running import SANDAL, TEXT, Explorer, sandal
from tests.explorer.test_serve import EXPLORE
from tests.processes import environment

Open = Callable[..., str]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a browser is asked to open; there is none."""
    urls: list[str] = []
    monkeypatch.setattr("webbrowser.open", urls.append)
    return urls


@pytest.fixture
def attend(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], opened: list[str]) -> Open:
    """Run the command against a server and a page; returns the link that it prints."""

    def attend(server: str, page: str, *arguments: str) -> str:
        command = ["regard", "--server", server, "attend", *arguments, "--open", "--page", page]
        monkeypatch.setattr(sys, "argv", command)
        assert run() == 0
        printed = capsys.readouterr().out.strip()
        assert opened[-1] == printed
        return printed

    return attend


def _at(explorer: Explorer) -> str:
    return f"{explorer.host}:{explorer.port}"


def _fields(link: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(link.partition("#")[2]).items()}


def test_a_photo_is_opened_on_the_page_that_runs(
    browser: Browser, explorer: Explorer, real_server: str, attend: Open, tmp_path: Path
) -> None:
    """The page has it, and shows the layer, head and row that were asked for."""
    photo = tmp_path / "circle.png"  # no sample, which every page has
    Image.radial_gradient("L").save(photo)
    link = attend(real_server, _at(explorer), str(photo), "--layer", "2", "--head", "1", "--row", "9")
    assert link.startswith(explorer.url)
    with visiting(browser, explorer, link.partition("#")[2]) as visit:
        visit.title_is("fashion", "layer 2", "head 1")
        visit.looks_is("What the patch in row 1, column 1 attends to")
        assert visit.page.url == link


def test_a_text_is_opened_with_arcs_of_heads(
    browser: Browser, explorer: Explorer, real_server: str, attend: Open
) -> None:
    """The last layer where none is named."""
    arguments = ("--view", "arcs", "--head", "0", "--head", "3", "--drop-special", "--scale", "log")
    link = attend(real_server, _at(explorer), f"{TEXT} & more", *arguments)
    with visiting(browser, explorer, link.partition("#")[2]) as visit:
        visit.title_is("tiny-text", "layer 1", "mean of 4 heads")
        expect(visit.find(".arc-heads [aria-pressed='true']")).to_have_text(["0", "3"])
        assert visit.page.input_value("#text") == f"{TEXT} & more"
        expect(visit.page.locator("#words_only")).to_be_checked()
        expect(visit.page.locator("#curve")).to_have_value("log")


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ((), {"layer": "11"}),
        (("--layer", "-2", "--reduce", "max"), {"layer": "10", "head": "max"}),
        (("--layer", "0", "--layer", "-1"), {"layer": "0", "beside": "11."}),
        (("--head", "4", "--head", "2"), {"layer": "11", "head": "4", "beside": ".2"}),
        (("--measure", "rollout", "--clip", "95"), {"layer": "11", "measure": "rollout", "clip": "95"}),
        (("--view", "entropy"), {"layer": "11", "charts": "true"}),
        (("--compare", "minilm"), {"layer": "11", "beside_model": "minilm", "beside_version": "2"}),
        (
            ("--truncate", "--multiples", "--common-scale"),
            {"layer": "11"} | dict.fromkeys(("truncate", "multiples", "common"), "true"),
        ),
    ],
)
def test_options_are_in_the_link(
    before_fake: Explorer, fake: FakeServer, attend: Open, arguments: tuple[str, ...], fields: dict[str, str]
) -> None:
    """By the page's own names; nothing else is."""
    link = attend(fake.address, _at(before_fake), "cats", "--model", "minilm", *arguments)
    assert _fields(link) == {"model": "minilm", "version": "2", "text": "cats", **fields}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--top-k", "3"), "--top-k: the page has no such thing"),
        (("--width-cm", "10"), "--width-cm: the page has no such thing"),
        (("--measure", "contribution"), "--measure contribution: the page has contribution_rollout"),
        (("--row", "1", "--row", "2"), "--row 1, 2: the page shows one"),
        (("--layer", "99"), "--layer 99: expected from -12 to 11"),
        (("--head", "-1"), "--head -1: expected a number from 0"),
        (("--layer", "0", "--layer", "1", "--layer", "2"), "the page shows two pictures"),
        (("--layer", "0", "--layer", "1", "--head", "2", "--head", "3"), "the page shows two pictures"),
        (("--contour", "50"), "--contour 50: the page draws it around 60 percent"),
        (("-o", "cats.png"), "-o: with --open it is shown on the page alone"),
        (("--json",), "--json: with --open it is shown on the page alone"),
        (("--page", "8080"), "--page 8080: expected HOST:PORT"),
    ],
)
def test_what_the_page_does_not_show_is_refused(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, opened: list[str], arguments: tuple[str, ...], told: str
) -> None:
    """By the option's name, with what was expected; nothing is opened."""
    command = ["regard", "--server", fake.address, "attend", "cats", "--model", "minilm", "--open", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(InputError) as refused:
        run()
    assert told in str(refused.value)
    assert opened == []


def test_many_inputs_are_not_opened(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn as one sheet, or written."""
    monkeypatch.setattr(sys, "argv", ["regard", "--server", fake.address, "attend", str(SANDAL), str(SANDAL), "--open"])
    with pytest.raises(InputError, match="--open: many inputs are drawn as one sheet"):
        run()


def test_a_page_of_another_server_is_named(
    before_fake: Explorer, real_server: str, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """It could not show the model."""
    command = ["regard", "--server", real_server, "attend", TEXT, "--open", "--page", _at(before_fake)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(InputError, match="which does not serve tiny-text 1; expected a page that asks"):
        run()
    assert opened == []


class _Other(http.server.BaseHTTPRequestHandler):
    """Some other program."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<p>hello")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_another_program_at_that_address_is_told_from_a_page(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    """Nothing is sent to it."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        page = f"127.0.0.1:{other.server_port}"
        command = ["regard", "--server", fake.address, "attend", "cats", "--model", "minilm", "--open", "--page", page]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(InputError, match="what answers there is no page of regard"):
            run()
        thread.join(30)
    assert opened == []


def test_where_no_page_runs_one_is_started_that_has_the_photo(fake: FakeServer) -> None:
    """It prints the link, and ends at Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        page = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        *EXPLORE,
        "--server",
        fake.address,
        "attend",
        str(SANDAL),
        "--model",
        "fashion",
        "--open",
        "--page",
        page,
    ]
    with subprocess.Popen(
        command, env=environment() | {"BROWSER": "true"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            link = process.stdout.readline().strip()
            name = hashlib.sha256(sandal()).hexdigest()
            assert link.startswith(f"http://{page}/#")
            assert _fields(link)["photo"] == name
            with urllib.request.urlopen(f"http://{page}/api/photos/{name}", timeout=30) as photo:
                assert photo.read() == sandal()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
