# ruff: noqa: ASYNC109
# ASYNC109 wants asyncio.timeout instead of a timeout parameter; gRPC sends this one to the server as the deadline.
"""The asyncio client of a regard server, for programs in which many requests run at once."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from numpy.typing import NDArray

from regard import decoding, encoding
from regard.alignment import Alignment
from regard.answers import Classification, Embedding, Model, Prediction, TextRole, VectorFormat, VersionState
from regard.attention import Attention, AttentionRequest
from regard.channels import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT_SECONDS, ChannelOptions, connection
from regard.comparison import Comparison
from regard.generate_calls import AsyncGenerateCalls
from regard.hidden_states import HiddenStatesRequest
from regard.inputs import ImageSource, TextOrImage
from regard.origin import told
from regard.relevance import RelevanceRequest
from regard.scores import Ranking
from regard.study_calls import AsyncStudyCalls
from regard.v1 import regard_pb2 as rpc


class AsyncClient(AsyncStudyCalls, AsyncGenerateCalls):
    """`Client` for asyncio: arguments, answers and errors are the same, and each call is awaited.

    Make it inside a running event loop and use it in that loop only; close it by `async with` or `close`.

    Example:
        ```python
        async with AsyncClient("127.0.0.1:8001") as client:
            answers = await asyncio.gather(*(client.embed(text=text) for text in texts))
        ```

    Args:
        address: As for `Client`.
        timeout: As for `Client`, in seconds.
        max_message_bytes: As for `Client`.
        credentials: As for `Client`.
        token: As for `Client`.
        options: As for `Client`.

    Raises:
        InvalidArgument: One of these has another type or value.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
        options: ChannelOptions = (),
    ) -> None:
        super().__init__(connection(address, timeout, max_message_bytes, credentials, token, options))

    async def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """As `Client.models`."""
        answer = await self._call(self._stub.ListModels, rpc.ListModelsRequest(), timeout)
        return tuple(decoding.read_model(model) for model in answer.models)

    async def model(self, name: str = "", version: str = "", *, timeout: float | None = None) -> Model:
        """As `Client.model`."""
        answer = await self._call(self._stub.GetModel, encoding.get_model_request(name, version), timeout)
        return decoding.read_model(answer.model)

    async def versions(self, *, timeout: float | None = None) -> tuple[VersionState, ...]:
        """As `Client.versions`."""
        answer = await self._call(self._stub.ListModels, rpc.ListModelsRequest(), timeout)
        return tuple(decoding.read_version(version) for version in answer.versions)

    async def load_model(self, name: str, *, timeout: float | None = None) -> Model:
        """As `Client.load_model`."""
        answer = await self._call(self._stub.LoadModel, encoding.load_request(name), timeout)
        return decoding.read_model(answer.model)

    async def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """As `Client.unload_model`."""
        await self._call(self._stub.UnloadModel, encoding.unload_request(name), timeout)

    async def predict(
        self,
        inputs: Mapping[str, NDArray[Any]],
        *,
        model: str = "",
        version: str = "",
        outputs: Sequence[str] = (),
        attention: AttentionRequest | None = None,
        priority: int = 0,
        timeout: float | None = None,
        hidden_states: HiddenStatesRequest | None = None,
    ) -> Prediction:
        """As `Client.predict`."""
        request = encoding.predict_request(
            inputs, model, version, outputs, attention, priority, hidden_states=hidden_states
        )
        return decoding.read_prediction(await self._call(self._stub.Predict, request, timeout))

    async def classify(
        self,
        *,
        image: ImageSource | None = None,
        text: str | None = None,
        pair: tuple[str, str] | None = None,
        model: str = "",
        version: str = "",
        top_k: int = 5,
        truncate: bool = False,
        attention: AttentionRequest | None = None,
        priority: int = 0,
        timeout: float | None = None,
        hidden_states: HiddenStatesRequest | None = None,
        candidate_labels: Sequence[str] = (),
        label_template: str = "",
        relevance: RelevanceRequest | None = None,
    ) -> Classification:
        """As `Client.classify`."""
        request = encoding.classify_request(
            image,
            text,
            pair,
            model,
            version,
            top_k,
            truncate,
            attention,
            priority,
            hidden_states=hidden_states,
            candidate_labels=candidate_labels,
            label_template=label_template,
            relevance=relevance,
        )
        return told(
            decoding.read_classification(await self._call(self._stub.Classify, request, timeout)), request, attention
        )

    async def embed(
        self,
        *,
        image: ImageSource | None = None,
        text: str | None = None,
        model: str = "",
        version: str = "",
        truncate: bool = False,
        prompt: str = "",
        attention: AttentionRequest | None = None,
        priority: int = 0,
        timeout: float | None = None,
        hidden_states: HiddenStatesRequest | None = None,
        dimensions: int = 0,
        vector_format: VectorFormat = "float32",
        max_terms: int = 0,
        with_terms: bool = False,
        role: TextRole = "document",
    ) -> Embedding:
        """As `Client.embed`."""
        request = encoding.embed_request(
            image,
            text,
            model,
            version,
            truncate,
            attention,
            priority,
            prompt,
            hidden_states=hidden_states,
            dimensions=dimensions,
            vector_format=vector_format,
            max_terms=max_terms,
            with_terms=with_terms,
            role=role,
        )
        answer = await self._call(self._stub.Embed, request, timeout)
        return told(decoding.read_embedding(answer), request, attention)

    async def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        version: str = "",
        top_k: int = 0,
        raw_scores: bool = False,
        truncate: bool = False,
        attention: AttentionRequest | None = None,
        priority: int = 0,
        timeout: float | None = None,
        hidden_states: HiddenStatesRequest | None = None,
        token_matches: bool = False,
    ) -> Ranking:
        """As `Client.rank`."""
        request = encoding.rank_request(
            query,
            documents,
            model,
            version,
            top_k,
            raw_scores,
            truncate,
            attention,
            priority,
            hidden_states=hidden_states,
            token_matches=token_matches,
        )
        return decoding.read_ranking(await self._call(self._stub.Rank, request, timeout))

    async def align(
        self,
        *,
        image: ImageSource,
        text: str,
        model: str = "",
        version: str = "",
        truncate: bool = False,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Alignment:
        """As `Client.align`."""
        request = encoding.align_request(image, text, model, version, truncate, priority)
        return decoding.read_alignment(await self._call(self._stub.Align, request, timeout))

    async def compare(
        self,
        first: TextOrImage,
        second: TextOrImage,
        *,
        why: bool = False,
        pairs: bool = False,
        drop_special: bool = False,
        model: str = "",
        version: str = "",
        prompts: tuple[str, str] = ("", ""),
        truncate: bool = False,
        priority: int = 0,
        timeout: float | None = None,
    ) -> Comparison:
        """As `Client.compare`."""
        wanted = encoding.similarity_relevance(why=why, pairs=pairs, drop_special=drop_special)
        request = encoding.compare_request(first, second, wanted, model, version, prompts, truncate, priority)
        return decoding.read_comparison(await self._call(self._stub.Compare, request, timeout), request)

    async def attend(
        self,
        *,
        image: ImageSource | None = None,
        text: str | None = None,
        pair: tuple[str, str] | None = None,
        inputs: Mapping[str, NDArray[Any]] | None = None,
        model: str = "",
        version: str = "",
        truncate: bool = False,
        prompt: str = "",
        attention: AttentionRequest | None = None,
        priority: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[Attention]:
        """As `Client.attend`."""
        request = encoding.attend_request(
            image, text, pair, inputs, model, version, truncate, attention, priority, prompt
        )
        async for layer in self._layers(request, timeout):
            yield told(layer, request, attention)
