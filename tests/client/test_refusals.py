"""What the client refuses before it sends anything: every wrong argument ends in an error of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regard
from regard import AsyncClient, AttentionRequest, Client
from regard.views import AttentionResult
from tests.client.conftest import Run
from tests.client.fake import FakeServer, free_address

ARRAY = np.zeros(2, np.float32)
HALF = "\ud800"  # half of a surrogate pair: a str that UTF-8 cannot write

# method, arguments, what the message says
CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("embed", {"text": HALF}, r"text: '\\ud800'; expected text that UTF-8 can write"),
    ("embed", {"text": ["a"]}, r"text: \['a'\] \(list\); expected a str"),
    ("embed", {"text": ["a"]}, "embed_many and classify_many take several, as texts"),
    ("embed_many", {}, "images, texts: give exactly one of them; got none"),
    ("embed_many", {"texts": ["a"], "images": [b"x"]}, "images, texts: give exactly one of them; got images and texts"),
    ("embed_many", {"texts": "a"}, "texts: 'a'; expected a list of str"),
    ("embed_many", {"texts": ["a", 3]}, r"texts\[1\]: 3; expected a str"),
    ("embed_many", {"texts": 3}, "texts: 3; expected a list of str"),
    ("classify_many", {"texts": ["a", HALF]}, r"texts\[1\]: '.*'; expected text that UTF-8 can write"),
    ("classify_many", {"images": b"x"}, r"images: b'x' \(bytes\); expected a list of files"),
    ("classify_many", {"images": 3}, "images: 3; expected a list of files"),
    ("classify_many", {"images": [b"x", 3]}, r"images\[1\]: 3; expected the bytes of a file, or its path"),
    ("classify_many", {"images": ["no/such.jpg"]}, r"images\[0\]: 'no/such.jpg': No such file"),
    ("classify_many", {"texts": ["a"], "top_k": -1}, "top_k: -1; expected a whole number"),
    ("classify", {"text": 3}, "text: 3; expected a str"),
    ("classify", {"text": b"\xff"}, r"text: b'\\xff' \(bytes\); expected a str"),
    ("embed", {"text": ["a" * 1000] * 1000}, r"text: \['a{20,60}.*\.\.\.\] \(list\); expected a str"),
    ("embed", {"image": 3}, "image: 3; expected the bytes of a file, or its path"),
    ("embed", {"image": np.zeros((2, 2))}, r"image: an array of float64 \[2, 2\]; expected the bytes"),
    ("classify", {"image": bytearray(b"x")}, "image: .*bytearray.*; expected the bytes"),
    ("embed", {"image": "no/such.jpg"}, "image: 'no/such.jpg': No such file or directory; expected a file's path"),
    ("embed", {"image": Path(__file__).parent}, "image: .*: Is a directory; expected a file's path"),
    ("embed", {"image": "a\0b"}, r"image: 'a\\x00b': embedded null byte; expected a file's path"),
    ("embed", {"image": HALF}, r"image: '\\ud800': .*; expected a file's path"),
    ("embed", {}, "image, text: give exactly one of them; got none"),
    ("embed", {"image": b"x", "text": "x"}, "image, text: give exactly one of them; got image and text"),
    ("embed", {"text": "a", "model": 3}, "model: 3; expected a str"),
    ("embed", {"text": "a", "model": HALF}, r"model: '\\ud800'; expected text"),
    ("embed", {"text": "a", "version": 1}, "version: 1; expected a str"),
    ("model", {"name": 3}, "name: 3; expected a str"),
    ("model", {"version": 3}, "version: 3; expected a str"),
    ("load_model", {"name": None}, "name: None; expected a str"),
    ("unload_model", {"name": HALF}, r"name: '\\ud800'; expected text"),
    ("classify", {"text": "a", "top_k": -1}, "top_k: -1; expected a whole number from 0 to 2147483647"),
    ("classify", {"text": "a", "top_k": 2**31}, "top_k: 2147483648; expected a whole number"),
    ("classify", {"text": "a", "top_k": 2.5}, "top_k: 2.5; expected a whole number"),
    ("classify", {"text": "a", "top_k": "5"}, "top_k: '5'; expected a whole number"),
    ("embed", {"text": "a", "priority": -1}, "priority: -1; expected a whole number from 0 to 4294967295"),
    ("embed", {"text": "a", "truncate": "yes"}, "truncate: 'yes'; expected True or False"),
    (
        "embed",
        {"text": "a", "attention": {"layers": [1]}},
        "attention: .* .dict.; expected an AttentionRequest",
    ),
    ("embed", {"text": "a", "attention": True}, "attention: True; expected an AttentionRequest"),
    ("embed", {"text": "a", "timeout": float("nan")}, "timeout: nan; expected a number"),
    ("embed", {"text": "a", "timeout": "3"}, "timeout: '3'; expected a number"),
    ("models", {"timeout": float("inf")}, r"timeout: inf; expected 0 to 1e\+09 seconds"),
    ("models", {"timeout": -1}, "timeout: -1; expected 0 to 1e.09 seconds"),
    ("embed", {"text": "a", "dimensions": True}, "dimensions: True; expected a whole number"),
    ("models", {"timeout": 1e10}, "timeout: 10000000000.0; expected 0 to"),
    ("versions", {"timeout": 1j}, "timeout: 1j .complex.; expected a number"),
    ("predict", {"inputs": [1, 2]}, r"inputs: \[1, 2\] \(list\); expected a dict of arrays by input name"),
    ("predict", {"inputs": None}, "inputs: None; expected a dict"),
    ("predict", {"inputs": {3: ARRAY}}, "inputs: 3; expected a str"),
    ("predict", {"inputs": {HALF: ARRAY}}, r"inputs: '\\ud800'; expected text"),
    ("predict", {"inputs": {"x": [[1], [2, 3]]}}, "inputs: 'x' is .*; expected an array"),
    ("predict", {"inputs": {"x": np.array([None])}}, "inputs: 'x' is object; expected one of float32"),
    ("predict", {"inputs": {"x": "abc"}}, "inputs: 'x' is <U3; expected one of float32"),
    ("predict", {"inputs": {"x": ARRAY}, "outputs": "logits"}, "outputs: 'logits'; expected a list of str"),
    ("predict", {"inputs": {"x": ARRAY}, "outputs": 3}, "outputs: 3; expected a list of str"),
    ("predict", {"inputs": {"x": ARRAY}, "outputs": [1]}, "outputs: 1; expected a str"),
    ("attend", {"text": ["a"]}, r"text: \['a'\] \(list\); expected a str"),
    ("attend", {"inputs": [1]}, r"inputs: \[1\] \(list\); expected a dict"),
    (
        "attend",
        {"text": "a", "inputs": {"x": ARRAY}},
        "image, text, pair, inputs: give exactly one .*; got text and inputs",
    ),
    ("attend", {"pair": "ab"}, "pair: 'ab'; expected two texts, as a tuple"),
    ("classify", {"pair": ("a",)}, r"pair: \('a',\) \(tuple\); expected two texts, as a tuple"),
    ("classify", {"pair": ("a", 3)}, r"pair\[1\]: 3; expected a str"),
    ("classify", {"pair": ("a", "b"), "text": "a"}, "image, text, pair: give exactly one of them; got text and pair"),
    ("classify_many", {"pairs": [("a", "b"), "cd"]}, r"pairs\[1\]: 'cd'; expected two texts, as a tuple"),
    ("classify_many", {"pairs": 3}, "pairs: 3; expected a list of pairs of texts"),
    ("rank", {"query": 3, "documents": ["a"]}, "query: 3; expected a str"),
    ("rank", {"query": "a", "documents": "b"}, "documents: 'b'; expected a list of str"),
    ("rank", {"query": "a", "documents": ["b", 3]}, r"documents\[1\]: 3; expected a str"),
    ("rank", {"query": "a", "documents": ["b"], "top_k": -1}, "top_k: -1; expected a whole number"),
    ("rank", {"query": "a", "documents": ["b"], "raw_scores": "no"}, "raw_scores: 'no'; expected True or False"),
    ("attend", {"text": "a", "timeout": float("nan")}, "timeout: nan; expected a number"),
]
IDS = [f"{method}-{'-'.join(given) or 'nothing'}-{number}" for number, (method, given, _) in enumerate(CALLS)]

# what is given to AttentionRequest, what the message says
REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"layers": 3}, "attention layers: 3; expected a list of int"),
    ({"layers": "01"}, "attention layers: '0'; expected a whole number"),
    ({"heads": (1.5,)}, "attention heads: 1.5; expected a whole number"),
    ({"rows": (2**40,)}, "attention rows: 1099511627776; expected a whole number from -2147483648 to 2147483647"),
    ({"keys": (None,)}, "attention keys: None; expected a whole number"),
    ({"cls_only": "yes"}, "attention cls_only: 'yes'; expected True or False"),
    ({"top_k": -1}, "attention top_k: -1; expected a whole number from 0"),
    ({"residual_share": "half"}, "attention residual_share: 'half'; expected a number"),
    ({"residual_share": float("nan")}, "attention residual_share: nan; expected a number"),
    ({"measure": ["weights"]}, r"attention measure is \['weights'\] \(list\); expected 'weights'"),
    ({"measure": np.arange(2)}, r"attention measure is an array of int64 \[2\]; expected 'weights'"),
    ({"rows_of_text": "third"}, "attention rows_of_text is 'third'; expected None, 'first' or 'second'"),
    ({"dtype": "int8"}, "attention dtype is 'int8'; expected 'float32', 'float16' or 'uint8'"),
]

# what is given to a client, what the message says
CLIENTS: list[tuple[dict[str, Any], str]] = [
    ({"address": None}, "address: None; expected a str"),
    ({"address": ""}, "address: ''; expected HOST:PORT"),
    ({"address": HALF}, r"address: '\\ud800'; expected text"),
    ({"timeout": "3"}, "timeout: '3'; expected a number"),
    ({"max_message_bytes": 2**40}, "max_message_bytes: 1099511627776; expected a whole number"),
    ({"max_message_bytes": 1e6}, "max_message_bytes: 1000000.0; expected a whole number"),
    ({"credentials": "secret.pem"}, "credentials: 'secret.pem'; expected grpc.ChannelCredentials, or None"),
    ({"options": 3}, "options: 3; expected pairs of a name and a value"),
    ({"options": ["grpc.lb"]}, "options: .*; expected pairs of a name and a value"),
    ({"token": 3}, "token: .not shown.; expected a str of printable ASCII characters"),
    ({"token": "two\nlines"}, "token: .not shown.; expected a str of printable ASCII"),
    ({"token": "Schlüssel"}, "token: .not shown.; expected a str of printable ASCII"),
]


@pytest.mark.parametrize(("method", "given", "message"), CALLS, ids=IDS)
def test_an_argument_that_cannot_be_sent_is_refused(
    client: Client, server: FakeServer, method: str, given: dict[str, Any], message: str
) -> None:
    """The message names the field, its value and what was expected; nothing is sent."""
    with pytest.raises(regard.InvalidArgument, match=message):
        list(getattr(client, method)(**given))
    assert server.requests == []


@pytest.mark.parametrize(("method", "given", "message"), CALLS, ids=IDS)
async def test_the_asyncio_client_refuses_the_same(
    aio_client: AsyncClient, server: FakeServer, method: str, given: dict[str, Any], message: str
) -> None:
    """In the same words."""
    with pytest.raises(regard.InvalidArgument, match=message):
        if method == "attend":
            _ = [part async for part in aio_client.attend(**given)]
        else:
            await getattr(aio_client, method)(**given)
    assert server.requests == []


@pytest.mark.parametrize(("given", "message"), REQUESTS)
def test_an_attention_request_is_checked_when_it_is_made(given: dict[str, Any], message: str) -> None:
    """Not when it is sent."""
    with pytest.raises(regard.InvalidArgument, match=message):
        AttentionRequest(**given)


@pytest.mark.parametrize(("given", "message"), CLIENTS)
async def test_a_client_is_checked_when_it_is_made(given: dict[str, Any], message: str) -> None:
    """Either client; a token's value is not repeated."""
    for kind in (Client, AsyncClient):
        with pytest.raises(regard.InvalidArgument, match=message) as caught:
            kind(**{"address": "127.0.0.1:1", **given})
        assert "lines" not in str(caught.value)
        assert "Schl" not in str(caught.value)


def test_numbers_and_flags_of_numpy_are_numbers_and_flags(client: Client, server: FakeServer) -> None:
    """As before."""
    fields: dict[str, Any] = {"layers": np.arange(2), "cls_only": np.True_, "residual_share": np.float32(0.5)}
    given: dict[str, Any] = {"top_k": np.int64(2), "truncate": np.True_, "timeout": np.float32(30)}
    client.classify(text="a", attention=AttentionRequest(**fields), **given)
    request = server.requests[0]
    assert (request.top_k, request.truncate, list(request.attention.layers)) == (2, True, [0, 1])
    assert (request.attention.cls_only, request.attention.residual_share) == (True, 0.5)


def test_a_refusal_is_what_python_raises_for_such_arguments_too(client: Client) -> None:
    """So programs that waited for these go on working."""
    with pytest.raises(ValueError, match="top_k"):
        client.classify(text="a", top_k=-1)
    with pytest.raises(TypeError, match="complex128"):
        client.predict({"x": np.zeros(2, np.complex128)})
    with pytest.raises(OSError, match="No such file"):
        client.embed(image="no/such.jpg")


async def test_a_closed_client_says_so(server: FakeServer) -> None:
    """Whichever call is made."""
    client, aio_client = Client(server.address), AsyncClient(server.address)
    client.close()
    await aio_client.close()
    with pytest.raises(regard.RegardError, match="CANCELLED: the client is closed"):
        client.models()
    with pytest.raises(regard.RegardError, match="CANCELLED: the client is closed"):
        next(client.attend(text="a"))
    with pytest.raises(regard.RegardError, match="CANCELLED: the client is closed"):
        await aio_client.models()
    with pytest.raises(regard.RegardError, match="CANCELLED: the client is closed"):
        await anext(aio_client.attend(text="a"))


def test_an_answer_without_attention_is_an_error_of_its_own(client: Client) -> None:
    """Not an index out of range."""
    with pytest.raises(regard.InvalidArgument, match=r"parts: \(\); expected at least one"):
        regard.Attention.join([])
    with pytest.raises(regard.RegardError, match="INTERNAL: the server sent no attention"):
        AttentionResult.join(client.model("photos"), [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--timeout", "1e10", "models"), "INVALID_ARGUMENT: timeout: 10000000000.0; expected 0 to 1e+09 seconds"),
        (("--server", "", "models"), "INVALID_ARGUMENT: address: ''; expected HOST:PORT"),
        (("classify", "a", "--model", "\udcff"), r"INVALID_ARGUMENT: model: '\udcff'; expected text that UTF-8 can"),
        (("load", "\udcff"), r"INVALID_ARGUMENT: name: '\udcff'; expected text that UTF-8 can"),
        (("classify", "a", "--model", "photos", "--top-k", "9999999999"), "INVALID_ARGUMENT: top_k: 9999999999; expec"),
        (("attend", "a", "--model", "minilm", "--layer", "9999999999"), "attention layers: 9999999999; expected"),
        (("classify", "\udcff"), "the text is not valid UTF-8"),
        (
            ("explore", "--no-open", "--allow-remote", "--listen", "\udcff:80"),
            r"--listen: '\udcff' is no name of a machine",
        ),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_the_command_line_says_what_is_wrong_in_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    """With exit code 1, and without a traceback."""
    done = run(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert message in done.err


@pytest.mark.parametrize(
    ("closing", "arguments", "message"),
    [("<&-", "classify - --model photos", "regard: -: stdin is closed"), (">&-", "models", "regard: UNAVAILABLE")],
)
def test_a_closed_stream_is_no_traceback(closing: str, arguments: str, message: str) -> None:
    """As where a service starts the command."""
    command = f"exec {sys.executable} -m regard --server {free_address()} {arguments} {closing}"
    done = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(message)


@pytest.mark.parametrize("flag", ["--ca", "--token-file"])
def test_a_file_that_cannot_be_read_is_said_by_its_flag(run: Run, tmp_path: Path, flag: str) -> None:
    """A folder, say."""
    done = run(flag, tmp_path, "models")
    refusal = f"regard: {flag} {tmp_path}: Is a directory; expected a file that can be read\n"
    assert (done.code, done.err) == (1, refusal)


def test_a_token_file_that_is_no_text_is_refused(run: Run, tmp_path: Path) -> None:
    """Without a word of what it holds."""
    (tmp_path / "token").write_bytes(b"\xff\xfe\x01")
    done = run("--token-file", tmp_path / "token", "models")
    assert done.code == 1
    assert done.err == "regard: the token holds what is no character; expected one line\n"
