"""A study with the client for asyncio finds what the blocking one finds, and may be cancelled."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from regard import AsyncClient, InvalidArgument, PermissionDenied
from regard.sources import InputError
from regard.study import Study, running
from regard.study.folder import PART_INPUTS, Folder
from tests.client.fake import FakeServer
from tests.client.study.test_study import MINILM, TEXTS, numbers_of


async def given(texts: list[str]) -> AsyncIterator[str]:
    """The same, asynchronously."""
    for text in texts:
        yield text


def check_whole(path: Path) -> None:
    """See that all is there, in order and once."""
    found = Study.open(path)
    assert list(found.folder.names()) == TEXTS
    np.testing.assert_array_equal(np.concatenate(list(found.folder.parts())), numbers_of(TEXTS))
    assert (path / "report.html").exists()


@pytest.mark.parametrize("is_async", [False, True])
async def test_it_finds_what_the_blocking_one_finds(aio_client: AsyncClient, tmp_path: Path, is_async: bool) -> None:
    """Whatever the inputs come from; by parts, with errors in their places."""
    path = tmp_path / "study"
    found = await aio_client.study(path, texts=given(TEXTS) if is_async else TEXTS, **MINILM)
    check_whole(path)
    np.testing.assert_allclose(found.moments.mean, numbers_of(TEXTS).mean(axis=0, dtype=np.float64), rtol=1e-6)
    bad = await aio_client.study(tmp_path / "bad", texts=given(["aa", "bad"]), **MINILM)
    assert list(bad.folder.inputs(0)[1]) == [1]


async def test_errors_are_asked_for_again_likewise(aio_client: AsyncClient, server: FakeServer, tmp_path: Path) -> None:
    """They alone, of full parts too."""
    path = tmp_path / "study"
    await aio_client.study(path, texts=TEXTS, **MINILM)
    folder = Folder.open(path)
    for number in (0, 2):
        values = numbers_of(TEXTS[number * PART_INPUTS :][:PART_INPUTS])
        values[7] = np.nan
        folder.replace(number, {7: "was busy"}, values)
    server.requests = []
    await aio_client.study(path, texts=given(TEXTS), **MINILM, retry_errors=True)
    again = [text for request in server.requests if hasattr(request, "texts") for text in request.texts.items]
    assert sorted(again) == sorted([TEXTS[7], TEXTS[2 * PART_INPUTS + 7]])
    assert Study.open(path).folder.num_errors == 0
    check_whole(path)


async def test_pairs_go_out_likewise(aio_client: AsyncClient, server: FakeServer, tmp_path: Path) -> None:
    """By Attend, of a model that does not classify."""
    server.judge = lambda request, _: (
        (grpc.StatusCode.PERMISSION_DENIED, "seen", ()) if request.DESCRIPTOR.name == "AttendRequest" else None
    )
    with pytest.raises(PermissionDenied, match="seen"):
        await aio_client.study(tmp_path / "study", pairs=[("a", "b")], **MINILM)
    assert not (tmp_path / "study" / "study.json").exists()


async def test_it_goes_on_where_it_was_cancelled(aio_client: AsyncClient, server: FakeServer, tmp_path: Path) -> None:
    """What was answered is written; the folder is free, and the rest alone is asked for."""
    path, halted = tmp_path / "study", asyncio.Event()

    async def halting() -> AsyncIterator[str]:
        for text in TEXTS[:400]:
            yield text
        halted.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(aio_client.study(path, texts=halting(), **MINILM))
    await halted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    there = Study.open(path).num_inputs
    assert 0 < there <= 400
    assert not (path / "report.html").exists()
    server.requests = []
    await aio_client.study(path, texts=given(TEXTS), **MINILM, resume=True)
    again = [text for request in server.requests if hasattr(request, "texts") for text in request.texts.items]
    assert sorted(again) == sorted(TEXTS[there:])
    check_whole(path)


async def test_the_loop_goes_on_while_a_part_is_written(
    aio_client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread writes; cancelling waits for it, so that nothing is written twice at a time."""
    write, writing, go_on = running._Part.write, asyncio.Event(), threading.Event()
    loop, calls = asyncio.get_running_loop(), list[str]()

    def held(part: Any) -> None:
        calls.append("begun")
        loop.call_soon_threadsafe(writing.set)
        go_on.wait(60)
        write(part)
        calls.append("done")

    monkeypatch.setattr(running._Part, "write", held)
    task = asyncio.create_task(aio_client.study(tmp_path / "study", texts=TEXTS, **MINILM))
    await writing.wait()
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (calls, task.done()) == (["begun"], False)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == ["begun", "done"] * 2
    assert Study.open(tmp_path / "study").num_inputs == PART_INPUTS


async def test_what_cannot_be_used_is_refused_likewise(aio_client: AsyncClient, tmp_path: Path) -> None:
    """Before a folder is made, or without harm to what is there."""
    path = tmp_path / "study"
    with pytest.raises(InvalidArgument, match="examples: -1; expected"):
        await aio_client.study(path, texts=["a"], **MINILM, examples=-1)
    with pytest.raises(InvalidArgument, match="texts: 'a'; expected an iterable of them"):
        await aio_client.study(path, texts="a", **MINILM)
    assert not (path / "study.json").exists()
    await aio_client.study(path, texts=["a", "b"], **MINILM)
    with pytest.raises(InputError, match="input 1: 'b'; got 'x': resuming wants the same inputs"):
        await aio_client.study(path, texts=given(["a", "x"]), **MINILM, resume=True)
    assert Study.open(path).num_inputs == 2
