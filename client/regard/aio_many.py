"""Calls for asyncio of several images, texts or pairs of texts: one of a sequence, or as many as an iterator needs."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack, overload

from regard import decoding, encoding
from regard.answers import Answers, Classification, Embedding
from regard.attention import Attention
from regard.bulk import Kind, iterate, most_inputs, read_kind
from regard.bulk_calls import answer_each_async
from regard.calls import AsyncCalls
from regard.errors import RegardError
from regard.inputs import ImageSource
from regard.options import AttendOptions, ClassifyOptions, EmbedOptions
from regard.origin import told, told_each


class AsyncManyCalls(AsyncCalls):
    """What a client for asyncio asks of several inputs."""

    @overload
    def classify_many(
        self,
        *,
        images: Iterator[ImageSource] | AsyncIterator[ImageSource],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncIterator[Classification | RegardError]: ...
    @overload
    def classify_many(
        self,
        *,
        texts: Iterator[str] | AsyncIterator[str],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncIterator[Classification | RegardError]: ...
    @overload
    def classify_many(
        self,
        *,
        pairs: Iterator[tuple[str, str]] | AsyncIterator[tuple[str, str]],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncIterator[Classification | RegardError]: ...
    @overload
    def classify_many(
        self,
        *,
        images: Sequence[ImageSource] | None = None,
        texts: Sequence[str] | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Coroutine[Any, Any, Answers[Classification]]: ...
    def classify_many(
        self,
        *,
        images: AsyncIterator[Any] | Iterable[Any] | None = None,
        texts: AsyncIterator[Any] | Iterable[Any] | None = None,
        pairs: AsyncIterator[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Any:
        """As `Client.classify_many`; what comes of an iterator, asynchronous or not, is read by `async for`."""
        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        build, read = encoding.classify_many_request, decoding.read_classifications
        return self._many(kind, inputs, build, self._stub.Classify, read, timeout, raise_errors, options)

    @overload
    def embed_many(
        self,
        *,
        images: Iterator[ImageSource] | AsyncIterator[ImageSource],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> AsyncIterator[Embedding | RegardError]: ...
    @overload
    def embed_many(
        self,
        *,
        texts: Iterator[str] | AsyncIterator[str],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> AsyncIterator[Embedding | RegardError]: ...
    @overload
    def embed_many(
        self,
        *,
        images: Sequence[ImageSource] | None = None,
        texts: Sequence[str] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Coroutine[Any, Any, Answers[Embedding]]: ...
    def embed_many(
        self,
        *,
        images: AsyncIterator[Any] | Iterable[Any] | None = None,
        texts: AsyncIterator[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Any:
        """As `Client.embed_many`; what comes of an iterator, asynchronous or not, is read by `async for`."""
        kind, inputs = read_kind(images=images, texts=texts)
        build, read = encoding.embed_many_request, decoding.read_embeddings
        return self._many(kind, inputs, build, self._stub.Embed, read, timeout, raise_errors, options)

    def attend_many(
        self,
        *,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource] | None = None,
        texts: Iterable[str] | AsyncIterable[str] | None = None,
        pairs: Iterable[tuple[str, str]] | AsyncIterable[tuple[str, str]] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[AttendOptions],
    ) -> AsyncIterator[Attention | RegardError]:
        """As `Client.attend_many`, to be read by `async for`; what is given may be asynchronous too."""
        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        encoding.attend_request(text="", **options)  # refuses what it can before anything is read

        async def most() -> int:
            return 1

        async def ask(values: Sequence[Any]) -> list[Attention]:
            request = encoding.attend_request(**{kind.removesuffix("s"): values[0]}, **options)
            found = Attention.join([layer async for layer in self._layers(request, timeout)])
            return [told(found, request, options.get("attention"))]

        each = inputs if isinstance(inputs, AsyncIterable) else iterate(kind, inputs)
        return answer_each_async(
            kind, each, most, ask, seconds=self._to.seconds(timeout), single=True, raise_errors=raise_errors
        )

    def _many(
        self,
        kind: Kind,
        inputs: Any,
        build: Callable[..., Any],
        method: Callable[..., Any],
        read: Callable[[Any], Answers[Any]],
        timeout: float | None,
        raise_errors: bool,
        options: Mapping[str, Any],
    ) -> Any:
        async def once() -> Answers[Any]:
            request = build(**{kind: inputs}, **options)
            answers = read(await self._call(method, request, timeout))
            told_each(answers.each, request, options.get("attention"))
            return answers.checked() if raise_errors else answers

        if not isinstance(inputs, Iterator | AsyncIterator):
            return once()
        build(**{kind: []}, **options)  # refuses what it can before anything is read

        async def most() -> int:
            request = encoding.get_model_request(options.get("model", ""), options.get("version", ""))
            answer = await self._call(self._stub.GetModel, request, timeout)
            return most_inputs(decoding.read_model(answer.model), kind)

        async def ask(values: Sequence[Any]) -> Sequence[Any]:
            request = build(**{kind: values}, **options)
            found = read(await self._call(method, request, timeout)).each
            told_each(found, request, options.get("attention"))
            return found

        return answer_each_async(
            kind, inputs, most, ask, seconds=self._to.seconds(timeout), single=False, raise_errors=raise_errors
        )
