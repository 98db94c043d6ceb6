"""The calls that write a text: token by token as it is made, or all of it at once."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, Unpack

import grpc

from regard.attention import Token
from regard.calls import AsyncCalls, BlockingCalls
from regard.errors import RegardError, from_rpc_error
from regard.generation import Generated, GeneratedToken, GenerateOptions
from regard.generation_messages import generate_request, read_generated, read_generated_token, read_source
from regard.v1 import regard_pb2 as rpc


class _Stream:
    """What has come of an answer; see `TokenStream`."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._start = rpc.GenerationStart()
        self._tokens = list[GeneratedToken]()
        self._generated: Generated | None = None

    @property
    def source(self) -> tuple[Token, ...]:
        """The text that was read, token by token; empty before the first token, and where no attention is told."""
        return read_source(self._start)

    def close(self) -> None:
        """Stop the server's writing; what has come remains."""
        self._call.cancel()

    def _take(self, message: rpc.GenerateResponse) -> GeneratedToken | None:
        """Take a part of the answer, and return the token that it holds."""
        part = message.WhichOneof("part")
        if part == "start":
            self._start = message.start
        elif part == "end":
            self._generated = read_generated(self._start, message.end, self._tokens)
        elif part == "token":
            self._tokens.append(read_generated_token(message.token))
            return self._tokens[-1]
        return None

    def _whole(self) -> Generated:
        if self._generated is None:
            raise RegardError(grpc.StatusCode.INTERNAL, "the stream ended without its last message")
        return self._generated


class TokenStream(_Stream, Iterator[GeneratedToken]):
    """A text as it is written: an iterator over its tokens, which then has the whole.

    Example:
        ```python
        tokens = client.generate("transformer", model="g2p")
        for token in tokens:
            print(token.text, end="", flush=True)
        tokens.finish().timings.first_token_ns
        ```

    With more than one beam there are no tokens before the end. Close it, by `close` or `with`, to leave a text
    unwritten.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> GeneratedToken:
        """Wait for the next token.

        Raises:
            RegardError: The call failed.
        """
        try:
            for message in self._call:
                if (token := self._take(message)) is not None:
                    return token
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        raise StopIteration

    def finish(self) -> Generated:
        """Wait for the end, and return everything that was written.

        Raises:
            RegardError: The call failed.
        """
        if self._generated is None:
            for _ in self:
                pass
        return self._whole()


class AsyncTokenStream(_Stream, AsyncIterator[GeneratedToken]):
    """`TokenStream` for asyncio: `async for token in tokens`, and `await tokens.finish()`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GeneratedToken:
        """As `TokenStream.__next__`."""
        try:
            async for message in self._call:
                if (token := self._take(message)) is not None:
                    return token
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        raise StopAsyncIteration

    async def finish(self) -> Generated:
        """As `TokenStream.finish`."""
        if self._generated is None:
            async for _ in self:
                pass
        return self._whole()


class GenerateCalls(BlockingCalls):
    """What a client asks of a model that writes."""

    def generate(self, text: str = "", **options: Unpack[GenerateOptions]) -> TokenStream:
        """Let a model write a text, and read it token by token, as each is made.

        Args:
            text: What the model reads; left out where it hears `audio`.
            options: See `GenerateOptions`.

        Returns:
            An iterator over the tokens; its `finish()` gives the whole.

        Raises:
            InvalidArgument: An argument cannot be used; from the server, when the first token is asked for, as are
                the others.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not write.
            PermissionDenied: This client may not see attention, which it asked for.
            RegardError: The call failed.
        """
        request = generate_request(text, **options)
        seconds = self._seconds(options.get("timeout"))
        return TokenStream(self._stub.Generate(request, timeout=seconds, metadata=self._to.metadata))

    def generate_text(self, text: str = "", **options: Unpack[GenerateOptions]) -> Generated:
        """Let a model write a text, and read it when it is done: with several beams, several of them.

        Args:
            text: What the model reads; left out where it hears `audio`.
            options: See `GenerateOptions`.

        Raises:
            RegardError: As by `generate`.
        """
        answer = self._call(self._stub.GenerateText, generate_request(text, **options), options.get("timeout"))
        return read_generated(answer.start, answer.end, ())


class AsyncGenerateCalls(AsyncCalls):
    """What a client asks of a model that writes, for asyncio."""

    def generate(self, text: str = "", **options: Unpack[GenerateOptions]) -> AsyncTokenStream:
        """As `Client.generate`; not awaited itself."""
        request = generate_request(text, **options)
        seconds = self._seconds(options.get("timeout"))
        return AsyncTokenStream(self._stub.Generate(request, timeout=seconds, metadata=self._to.metadata))

    async def generate_text(self, text: str = "", **options: Unpack[GenerateOptions]) -> Generated:
        """As `Client.generate_text`."""
        request = generate_request(text, **options)
        answer = await self._call(self._stub.GenerateText, request, options.get("timeout"))
        return read_generated(answer.start, answer.end, ())
