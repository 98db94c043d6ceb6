"""The explorer's endpoints: what the page gets of a real server, and what it gets when something goes wrong."""

import http.client
from typing import Any

import grpc
import numpy as np
import pytest

import regard
from regard import AttentionRequest, Client
from tests.client import fake as canned
from tests.client.fake import FakeServer, free_address
from tests.explorer.running import TEXT, Explorer, end_of_next_call, exploring, sandal

REQUEST: dict[str, Any] = {"model": "minilm", "text": "cats"}


def test_the_models_are_listed_with_what_the_page_needs(explorer: Explorer, real_server: str) -> None:
    """Layers, heads and patches; where the server is; how large a photo may be."""
    listed = explorer.ask("GET", "/api/models").json()
    fashion, tiny = listed["models"]
    assert (fashion["name"], fashion["modality"], fashion["can_show"], len(fashion["layers"])) == (
        "fashion",
        "image",
        True,
        4,
    )
    assert (fashion["patches"]["rows"], fashion["patches"]["cols"], fashion["patches"]["prefix_tokens"]) == (7, 7, 1)
    assert (tiny["name"], tiny["modality"], tiny["max_tokens"]) == ("tiny-text", "text", 64)
    assert listed["server"] == real_server
    assert listed["limits"]["photo_bytes"] > 64 * 2**20


def test_attention_over_a_photo_is_what_the_client_gets(explorer: Explorer, real_server: str) -> None:
    """All heads, queries and keys of the layer; the grid with its box; the labels."""
    head, numbers = explorer.attend(model="fashion", photo=explorer.keep(sandal()), layers=[2]).attention()
    with Client(real_server) as client:
        wanted = AttentionRequest(layers=(2,), dtype="float16")
        expected = client.classify(image=sandal(), model="fashion", attention=wanted)
    assert expected.attention is not None
    layer = expected.attention.layer(2)
    np.testing.assert_array_equal(numbers[0], layer.weights)
    assert numbers[0].shape == (4, 50, 50)
    assert numbers[0].dtype == np.float16
    assert (head["layers"][0]["layer"], head["layers"][0]["kind"]) == (2, "self")
    assert head["labels"][0]["name"] == expected.labels[0].name == "Sandal"
    assert head["patches"]["box"] == {"left": 0, "top": 0, "right": 28, "bottom": 28}
    assert head["tokens"] is None


def test_attention_over_a_text_comes_with_its_tokens(explorer: Explorer, real_server: str) -> None:
    """Spelled as the vocabulary does, special ones marked."""
    head, numbers = explorer.attend(model="tiny-text", text=TEXT, layers=[0]).attention()
    with Client(real_server) as client:
        expected = client.embed(text=TEXT, model="tiny-text", attention=AttentionRequest(layers=(0,)))
    assert expected.attention is not None
    assert expected.attention.tokens is not None
    assert [token["text"] for token in head["tokens"]] == [token.text for token in expected.attention.tokens]
    assert [token["special"] for token in head["tokens"]] == [token.special for token in expected.attention.tokens]
    np.testing.assert_allclose(numbers[0], expected.attention.layer(0).weights, atol=2.5e-4)
    assert not head["truncated"]


def test_a_rollout_and_the_numbers_of_charts_are_asked_of_the_server(explorer: Explorer, real_server: str) -> None:
    """A rollout has no head axis; entropies and distances are whole float32 of every layer."""
    photo = explorer.keep(sandal())
    rollout, numbers = explorer.attend(model="fashion", photo=photo, measure="rollout", layers=[0, 1, 2]).attention()
    assert rollout["layers"][0]["covered_layers"] == [0, 1, 2]
    assert numbers[0].shape == (50, 50)
    for measure, shape in (("entropy", (4, 50)), ("distance", (4,))):
        _, numbers = explorer.attend(model="fashion", photo=photo, measure=measure).attention()
        with Client(real_server) as client:
            wanted = AttentionRequest(measure=measure)  # type: ignore[arg-type]
            expected = client.embed(image=sandal(), model="fashion", attention=wanted).attention
        assert expected is not None
        assert [layer.shape for layer in numbers] == [shape] * 4
        np.testing.assert_array_equal(np.stack(numbers), np.stack([layer.weights for layer in expected.layers]))


def test_a_photo_is_given_back_as_an_image(explorer: Explorer) -> None:
    """Under its SHA-256, with its own type, so that a link can show it."""
    answer = explorer.ask("GET", f"/api/photos/{explorer.keep(sandal())}")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, sandal(), "image/png")


def test_a_photo_that_is_not_kept_is_said_to_be_gone(explorer: Explorer) -> None:
    """Both where it is fetched and where it is asked about; the page then asks for it again."""
    lost = "0" * 64
    for answer in (explorer.ask("GET", f"/api/photos/{lost}"), explorer.attend(model="fashion", photo=lost)):
        assert (answer.status, answer.json()["code"]) == (410, "PHOTO_GONE")


def test_what_is_no_image_is_refused(explorer: Explorer) -> None:
    """Nothing else is ever given back to a browser."""
    answer = explorer.ask("POST", "/api/photos", b"<script>alert(1)</script>")
    assert (answer.status, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert answer.json()["message"] == "photo: '25 bytes'; expected a JPEG, PNG or WebP file"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(fake: FakeServer) -> None:
    """By its length alone: none of these bytes is ever sent."""
    with exploring(fake.address, max_photo_bytes=1000) as explorer:
        connection = http.client.HTTPConnection(explorer.host, explorer.port, timeout=30)
        connection.putrequest("POST", "/api/photos")
        connection.putheader("content-length", "1001")
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert b"more than 1000 bytes" in answer.read()
        connection.close()


def test_a_body_of_unknown_length_is_refused_when_it_has_become_too_large(fake: FakeServer) -> None:
    """Sent in chunks."""
    with exploring(fake.address, max_photo_bytes=1000) as explorer:
        connection = http.client.HTTPConnection(explorer.host, explorer.port, timeout=30)
        connection.request("POST", "/api/photos", iter([b"x" * 600, b"x" * 600]), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "expected JSON"),
        ([1], "expected a JSON object"),
        ({"model": "m"}, "photo, text: []; expected exactly one of them"),
        ({"photo": "a", "text": "b"}, "photo, text: ['photo', 'text']; expected exactly one of them"),
        ({"text": 3}, "text: 3; expected a text"),
        ({"text": "a", "layers": ["0"]}, "layers: ['0']; expected a list of numbers"),
        ({"text": "a", "layers": [True]}, "layers: [True]; expected a list of numbers"),
        ({"text": "a", "measure": "width"}, "attention measure is 'width'"),
        ({"text": "a", "priority": 1}, "priority: 1; expected no such field"),
        ({"text": "a", "layers": [2**31]}, "layers: [2147483648]; expected a list of numbers"),
        (b"[" * 100_000, "expected JSON"),
        (b'{"text": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\ud800": "a"}', "surrogates not allowed"),
    ],
)
def test_a_request_that_is_none_is_refused(before_fake: Explorer, body: Any, message: str) -> None:
    """With the field, its value and what was expected; the server is not bothered."""
    answer = before_fake.ask("POST", "/api/attend", body, content_type="application/json")
    assert answer.status == 400
    assert message in answer.json()["message"]


def test_a_model_that_gives_nothing_else_shows_its_attention(
    before_fake: Explorer, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers come one by one and are put together; that a text was cut is said."""
    bare = [model for model in canned.models() if model.name == "minilm"]
    for model in bare:
        model.can_embed = False
    monkeypatch.setattr(canned, "models", lambda: bare)
    fake.truncated = True
    head, numbers = before_fake.attend(**REQUEST, truncate=True).attention()
    assert ([layer["layer"] for layer in head["layers"]], len(numbers)) == ([0, 1], 2)
    assert (head["labels"], head["truncated"], head["timings"]) == ([], True, None)


def test_a_request_must_say_that_it_is_json(before_fake: Explorer) -> None:
    """What a form of another page could send without asking is refused."""
    answer = before_fake.ask("POST", "/api/attend", b'{"text": "a"}', content_type="text/plain")
    assert answer.status == 415


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.FAILED_PRECONDITION, 409),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.INTERNAL, 502),
    ],
)
def test_what_the_server_says_is_handed_on(
    before_fake: Explorer, fake: FakeServer, code: grpc.StatusCode, status: int
) -> None:
    """Code and message, and which server it was."""
    fake.error = (code, "text: 'x'; expected y")
    answer = before_fake.attend(**REQUEST)
    assert answer.status == status
    assert answer.json() == {
        "code": code.name,
        "message": "text: 'x'; expected y",
        "retry_seconds": None,
        "server": fake.address,
    }


def test_a_busy_server_says_when_to_try_again(before_fake: Explorer, fake: FakeServer) -> None:
    """In seconds, for the page's countdown."""
    fake.error, fake.trailers = (
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full"),
        (("grpc-retry-pushback-ms", "1500"),),
    )
    answer = before_fake.attend(**REQUEST)
    assert (answer.status, answer.json()["code"], answer.json()["retry_seconds"]) == (429, "RESOURCE_EXHAUSTED", 1.5)


def test_without_a_server_the_explorer_still_answers() -> None:
    """With what is the matter, and the address."""
    address = free_address()
    with exploring(address) as explorer:
        assert explorer.ask("GET", "/").status == 200
        answer = explorer.ask("GET", "/api/models")
    assert (answer.status, answer.json()["code"], answer.json()["server"]) == (503, "UNAVAILABLE", address)


def test_a_server_that_is_too_slow_is_given_up(fake: FakeServer) -> None:
    """After the command line's --timeout."""
    fake.held = True
    with exploring(fake.address, timeout_seconds=0.2) as explorer:
        assert explorer.attend(**REQUEST).json()["code"] == "DEADLINE_EXCEEDED"


def test_when_the_page_hangs_up_the_server_is_told(before_fake: Explorer, fake: FakeServer) -> None:
    """The call ends on the server, though it has not answered."""
    ended = end_of_next_call(fake)
    fake.held = True
    connection = http.client.HTTPConnection(before_fake.host, before_fake.port, timeout=30)
    body, headers = b'{"model": "minilm", "text": "cats"}', {"content-type": "application/json"}
    connection.request("POST", "/api/attend", body, headers)
    assert fake.arrived.wait(30)
    connection.close()
    assert ended.wait(10)  # far less than the call's own timeout
    assert not fake.released.is_set()


def test_the_explorer_says_what_the_real_server_refuses(explorer: Explorer) -> None:
    """Its own words, field, value and all."""
    answer = explorer.attend(model="nothing", text="a")
    with (
        pytest.raises(regard.NotFound) as caught,
        Client(str(explorer.ask("GET", "/api/models").json()["server"])) as c,
    ):
        c.model("nothing")
    assert answer.json()["message"] == caught.value.message
