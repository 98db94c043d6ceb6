"""Iterators of inputs: in order, bounded, and as the server says it can."""

import itertools
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import regard
from regard import AsyncClient, Attention, AttentionRequest, Client, RegardError, bulk_calls, pace
from regard.bulk import Bulk, Cutter
from tests.client.fake import FakeServer, Refusal, photo_bytes

FULL: Refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", (("grpc-retry-pushback-ms", "1"),))
TOO_LARGE: Refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than 4 bytes", ())
GONE: Refusal = (grpc.StatusCode.UNAVAILABLE, "gone", ())
WRONG: Refusal = (grpc.StatusCode.INVALID_ARGUMENT, "attention.layers: 99; expected 0 to 11", ())

Collect = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def collect(request: pytest.FixtureRequest, server: FakeServer) -> Collect:
    """Ask a method of either client, and return all that comes."""

    async def ask_async(method: str, given: dict[str, Any]) -> list[Any]:
        async with AsyncClient(server.address) as client:
            return [one async for one in getattr(client, method)(**given)]

    async def collect(method: str, **given: Any) -> list[Any]:
        if request.param == "asyncio":
            return await ask_async(method, given)
        with Client(server.address) as client:
            return list(getattr(client, method)(**given))

    return collect


def failing(*refusals: Refusal | None) -> Callable[[Any, grpc.ServicerContext], Refusal | None]:
    """Refuse one call after the other, and then none; calls that describe a model are no such calls."""
    left = deque(refusals)

    def judge(request: Any, _: grpc.ServicerContext) -> Refusal | None:
        return left.popleft() if left and hasattr(request, "texts") else None

    return judge


async def test_answers_come_in_the_order_of_the_inputs(collect: Collect, server: FakeServer) -> None:
    """However many calls they take, none of which is larger than the model's max_inputs."""
    letters = [chr(97 + number % 26) for number in range(100)]
    answers = await collect("embed_many", texts=iter(letters), model="minilm", truncate=True)
    assert [int(one.vector.argmax()) for one in answers] == [ord(letter) % 4 for letter in letters]
    described, *asked = server.requests
    assert described.model == "minilm"
    assert max(len(request.texts.items) for request in asked) == 3
    assert all(request.truncate and request.model == "minilm" for request in asked)


async def test_an_error_is_the_result_of_its_input(collect: Collect, server: FakeServer) -> None:
    """Of the server or of the client, which names its place among all inputs."""
    texts: list[Any] = ["a", "b", "c", "d", "bad", 5, "e"]
    answers = await collect("embed_many", texts=iter(texts), model="minilm")
    assert [str(one) for one in answers if isinstance(one, RegardError)] == [
        "INVALID_ARGUMENT: texts[4]: bad; expected a good one",
        "INVALID_ARGUMENT: texts[5]: 5; expected a str",
    ]
    assert [index for index, one in enumerate(answers) if isinstance(one, RegardError)] == [4, 5]
    with pytest.raises(regard.InvalidArgument, match=r"texts\[4\]: bad"):
        await collect("embed_many", texts=iter(texts), model="minilm", raise_errors=True)


async def test_photos_and_pairs_are_classified(collect: Collect, server: FakeServer, tmp_path: Path) -> None:
    """Paths are read; one that cannot be is that photo's error."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(photo_bytes())
    answers = await collect("classify_many", images=iter([photo, tmp_path / "none.png", photo_bytes()]), model="photos")
    assert [isinstance(one, RegardError) for one in answers] == [False, True, False]
    assert "none.png': No such file" in str(answers[1])
    assert len(await collect("classify_many", pairs=iter([("a", "b")] * 5), model="minilm")) == 5


async def test_attention_of_each_input_comes_whole(collect: Collect) -> None:
    """All layers asked for; any iterable will do."""
    wanted = AttentionRequest(layers=(0, 2))
    answers = await collect("attend_many", images=[photo_bytes(), b"", photo_bytes()], model="photos", attention=wanted)
    assert len(answers) == 3
    assert all(isinstance(one, Attention) and [layer.layer for layer in one.layers] == [0, 2] for one in answers)
    assert len(await collect("attend_many", texts=("cats", "cats"))) == 2


async def test_what_one_input_has_wrong_is_its_own_error_where_a_call_has_one(
    collect: Collect, server: FakeServer
) -> None:
    """The first too."""
    server.judge = lambda request, _: WRONG if getattr(request, "text", "") == "bad" else None
    answers = await collect("attend_many", texts=["bad", "cats", "bad"])
    assert [isinstance(one, regard.InvalidArgument) for one in answers] == [True, False, True]


async def test_a_full_server_is_waited_for(collect: Collect, server: FakeServer) -> None:
    """As often as it says so; a call that was refused twice is cut in two, in case it is too large for the queue."""
    server.judge = failing(FULL, FULL, FULL, FULL, FULL, FULL)
    answers = await collect("embed_many", texts=iter("abcdefgh"), model="minilm")
    assert [int(one.vector.argmax()) for one in answers] == [ord(letter) % 4 for letter in "abcdefgh"]


async def test_calls_that_are_too_large_are_cut_and_later_ones_are_smaller(
    collect: Collect, server: FakeServer
) -> None:
    """Without a hint when to come back, it is no use to come back."""
    server.judge = lambda request, _: TOO_LARGE if hasattr(request, "texts") and len(request.texts.items) > 1 else None
    answers = await collect("embed_many", texts=iter("abcd" * 20), model="minilm")
    assert [int(one.vector.argmax()) for one in answers] == [ord(letter) % 4 for letter in "abcd" * 20]
    assert {len(request.texts.items) for request in server.requests[-20:]} == {1}


async def test_nobody_there_is_tried_again_and_then_raised(
    collect: Collect, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few times, since every other input would have the same error."""
    monkeypatch.setattr(pace, "UNAVAILABLE_WAITS_SECONDS", (0.0, 0.0))
    server.judge = failing(GONE, GONE)
    assert len(await collect("embed_many", texts=iter("a"), model="minilm")) == 1
    server.judge = failing(GONE, GONE, GONE)
    with pytest.raises(regard.Unavailable):
        await collect("embed_many", texts=iter("a"), model="minilm")


async def test_what_is_wrong_with_every_input_is_raised(collect: Collect, server: FakeServer) -> None:
    """No such model; or an option that the first inputs are refused for, one and all."""
    with pytest.raises(regard.NotFound):
        await collect("embed_many", texts=iter("ab"), model="none")
    server.judge = lambda request, _: WRONG if hasattr(request, "texts") else None
    with pytest.raises(regard.InvalidArgument, match="expected 0 to 11"):
        await collect("embed_many", texts=iter("ab"), model="minilm")
    with pytest.raises(regard.InvalidArgument, match="priority: -1"):
        await collect("embed_many", texts=iter("ab"), priority=-1)
    with pytest.raises(regard.InvalidArgument, match="images, texts: give exactly one of them; got none"):
        await collect("embed_many")


async def test_one_input_that_breaks_the_server_is_found(collect: Collect, server: FakeServer) -> None:
    """The others of its call are answered."""
    broken: Refusal = (grpc.StatusCode.INTERNAL, "oh", ())
    server.judge = lambda request, _: broken if "x" in getattr(getattr(request, "texts", None), "items", ()) else None
    answers = await collect("embed_many", texts=iter("abcxe"), model="minilm")
    assert [str(one) if isinstance(one, RegardError) else "" for one in answers] == ["", "", "", "INTERNAL: oh", ""]


def test_no_more_is_read_than_is_needed(client: Client) -> None:
    """Of an iterator without end."""
    count = itertools.count()
    inputs = (chr(97 + number % 26) for number in count)
    answers = client.embed_many(texts=inputs, model="minilm")
    for number, one in zip(range(500), answers, strict=False):
        assert not isinstance(one, RegardError)
        assert one.vector.argmax() == (97 + number % 26) % 4
    answers.close()  # type: ignore[attr-defined]  # it is a generator
    most_ahead = 3 * (bulk_calls._AHEAD + 1)
    assert next(count) <= 501 + most_ahead


async def test_nothing_is_left_of_an_iterator_that_is_closed(aio_client: AsyncClient) -> None:
    """No generator that its loop would have to close later."""
    seen = list[Any]()
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(before.firstiter, seen.append)
    try:
        answers = aio_client.embed_many(texts=itertools.repeat("a"), model="minilm")
        await anext(answers)
        await answers.aclose()  # type: ignore[attr-defined]  # it is a generator
        del answers
    finally:
        sys.set_asyncgen_hooks(*before)
    assert seen == []


async def test_no_more_is_read_than_is_needed_by_asyncio(aio_client: AsyncClient) -> None:
    """Of an asynchronous iterator without end."""
    read = 0

    async def inputs() -> AsyncIterator[str]:
        nonlocal read
        while True:
            yield "a"
            read += 1

    answers = aio_client.embed_many(texts=inputs(), model="minilm")
    taken = 0
    async for one in answers:
        assert not isinstance(one, RegardError)
        taken += 1
        if taken == 500:
            break
    await answers.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert read <= 501 + 3 * (bulk_calls._AHEAD + 1)


def test_who_stops_reading_cancels_what_runs(client: Client, server: FakeServer) -> None:
    """And is not held up by it."""
    asked, ended = threading.Event(), threading.Event()

    def judge(request: Any, context: grpc.ServicerContext) -> None:
        if hasattr(request, "texts") and "a" not in request.texts.items:
            context.add_callback(ended.set)
            asked.set()
            server.released.wait(60)

    server.judge = judge

    def inputs() -> Iterator[str]:
        yield from "aaabbb"

    answers = client.embed_many(texts=inputs(), model="minilm")
    next(answers)
    assert asked.wait(20)
    answers.close()  # type: ignore[attr-defined]  # it is a generator
    assert ended.wait(20)  # while its answer is still being made


def test_calls_have_more_inputs_while_they_are_short() -> None:
    """And fewer once they are long, so that none runs into its deadline."""
    found = pace.Pace(256)
    sizes = []
    for seconds in (0.1, 0.1, 0.1, 0.1, 2.0, 9.0, 2.0):
        sizes.append(found.inputs)
        found.answered(found.inputs, seconds)
    assert (sizes, found.inputs) == ([8, 16, 32, 64, 64, 64, 32], 32)
    for _ in range(3):
        found.answered(found.inputs, 9.0)
    assert found.inputs == 8
    found.too_large(32)
    found.answered(8, 0.1)
    found.answered(16, 0.1)
    assert found.inputs == 16
    found.busy(16)
    assert found.inputs == 8


def test_calls_are_bounded_in_bytes() -> None:
    """A photo that is larger has a call of its own."""
    cutter = Cutter("images", pace.Pace(64))
    half = bytes(pace.MOST_BYTES // 2)
    parts = [part for image in (half, half, half, half * 3, half) for part in cutter.add(image)] + list(cutter.rest())
    assert [[one.index for one in part] for part in parts] == [[0, 1], [2], [3], [4]]


def test_all_calls_wait_while_a_server_is_full() -> None:
    """For as long as it says; then the refused one is made again."""
    now = 100.0
    bulk = Bulk(pace.Pace(1), gate=pace.Gate(lambda: now))
    first, second = (bulk.answer_part(next(iter(Cutter("texts", bulk.pace).add("a")))) for _ in range(2))
    assert next(first) == [bulk_one("a")]
    assert first.throw(regard.ResourceExhausted(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", 3.0)) == pytest.approx(3)
    assert next(second) == pytest.approx(3)
    now = 103.0
    assert first.send(()) == second.send(()) == [bulk_one("a")]
    with pytest.raises(StopIteration) as end:
        first.send([np.ones(1)])
    assert end.value.value == [np.ones(1)]


def bulk_one(text: str) -> Any:
    """Return the first input of a part."""
    return next(iter(Cutter("texts", pace.Pace(1)).add(text)))[0]


async def test_a_sequence_raises_the_first_error_where_that_is_asked_for(
    client: Client, aio_client: AsyncClient
) -> None:
    """It is one call, as before."""
    with pytest.raises(regard.InvalidArgument):
        client.embed_many(texts=["a", "bad"], raise_errors=True)
    with pytest.raises(regard.InvalidArgument):
        await aio_client.embed_many(texts=["a", "bad"], raise_errors=True)


async def test_a_server_that_hangs_is_given_up(
    collect: Collect, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no call comes back; inputs that take long beside others that are answered have errors of their own."""
    late: Refusal = (grpc.StatusCode.DEADLINE_EXCEEDED, "late", ())
    server.judge = lambda request, _: late if "x" in getattr(getattr(request, "texts", None), "items", ()) else None
    answers = await collect("embed_many", texts=iter("abcxe"), model="minilm")
    assert [isinstance(one, regard.DeadlineExceeded) for one in answers] == [False, False, False, True, False]
    monkeypatch.setattr(pace, "SILENT_CALLS", 0)
    with pytest.raises(regard.DeadlineExceeded, match="no call was answered for 0 s, several times its timeout"):
        await collect("embed_many", texts=iter("x"), model="minilm")
    with pytest.raises(regard.DeadlineExceeded, match="the server hangs"):
        await collect("embed_many", texts=iter("x"), model="minilm", raise_errors=True)


def test_silence_lasts_from_the_first_call_that_is_not_answered() -> None:
    """Four times as long as a call may take; without a limit of a call for ever."""
    now = 0.0
    silence, endless = pace.Silence(30, lambda: now), pace.Silence(None, lambda: now)
    assert not silence.is_over
    for one in (silence, endless):
        one.asked()
    for now, over in ((119.0, False), (120.0, True)):  # noqa: B007
        silence.asked()
        assert (silence.is_over, endless.is_over) == (over, False)
    silence.answered()
    assert not silence.is_over
    now = 1000.0
    silence.asked()
    assert not silence.is_over
