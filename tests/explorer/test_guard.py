"""What other pages cannot do, and the headers that browsers hold to."""

import pytest

from regard.explorer.app import STATIC
from tests.client.fake import FakeServer
from tests.explorer.running import Explorer, exploring


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/models", "/api/photos/none", "/nothing"])
def test_every_answer_carries_the_policy(before_fake: Explorer, path: str) -> None:
    """Pages, scripts, data and refusals alike: scripts and styles of its own only, never in a frame."""
    answer = before_fake.ask("GET", path)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_needs_nothing_that_the_policy_forbids() -> None:
    """No script or style inside the page, no attribute that is one, nothing from elsewhere."""
    page = (STATIC / "index.html").read_text()
    for forbidden in ("<style", " style=", "onclick", "onload", "javascript:", "http://", "https://"):
        assert forbidden not in page
    assert page.count("<script") == page.count('<script type="module" src="static/')


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "192.168.7.7", "explore.lan"])
def test_the_page_answers_under_its_own_names(fake: FakeServer, host: str) -> None:
    """Any address, localhost, and what --host-name gives."""
    with exploring(fake.address, host_names=frozenset({"Explore.lan"})) as explorer:
        assert explorer.ask("GET", "/", host=host.format(port=explorer.port)).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "[x"]
)
def test_another_name_for_this_address_is_refused(before_fake: Explorer, fake: FakeServer, host: str) -> None:
    """So that a page that points its own name here cannot ask (DNS rebinding)."""
    answer = before_fake.ask("GET", "/api/models", host=host)
    assert (answer.status, answer.json()["code"]) == (403, "PERMISSION_DENIED")
    assert fake.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://[::1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ],
)
def test_what_another_page_sends_is_refused(before_fake: Explorer, fake: FakeServer, headers: dict[str, str]) -> None:
    """Other ports of this machine are other pages too."""
    answer = before_fake.ask("POST", "/api/attend", {"text": "a"}, **headers)
    assert (answer.status, answer.json()["code"]) == (403, "PERMISSION_DENIED")
    assert fake.requests == []


def test_the_page_itself_and_links_to_it_are_answered(before_fake: Explorer) -> None:
    """From its own origin; a link in another page may lead here."""
    own = before_fake.url.rstrip("/")
    asked = before_fake.ask(
        "POST", "/api/attend", {"text": "a", "model": "minilm"}, origin=own, sec_fetch_site="same-origin"
    )
    assert asked.status == 200
    assert before_fake.ask("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200
