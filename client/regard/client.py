"""The blocking client of a regard server."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
from numpy.typing import NDArray

from regard import decoding, encoding
from regard.align_calls import AlignCalls
from regard.answers import Classification, Embedding, Model, Prediction, TextRole, VectorFormat, VersionState
from regard.attention import Attention, AttentionRequest
from regard.channels import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT_SECONDS, ChannelOptions, connection
from regard.compare_calls import CompareCalls
from regard.generate_calls import GenerateCalls
from regard.hidden_states import HiddenStatesRequest
from regard.inputs import ImageSource
from regard.origin import told
from regard.relevance import RelevanceRequest
from regard.study_calls import StudyCalls
from regard.v1 import regard_pb2 as rpc


class Client(StudyCalls, AlignCalls, CompareCalls, GenerateCalls):
    """A blocking client. It connects at the first call, may be shared by threads, and is closed by `with` or `close`.

    Every method raises a `RegardError` where the call fails: `InvalidArgument` for an argument that cannot be used,
    before anything is sent where the client can tell, and one of the others by what the server or gRPC says.

    Example:
        ```python
        with Client("127.0.0.1:8001") as client:
            answer = client.classify(image="cat.jpg", top_k=3)
        ```

    Args:
        address: "HOST:PORT", or any other target that gRPC takes.
        timeout: Seconds that a call may take, unless the call says otherwise; at most 1e9.
        max_message_bytes: The largest request sent and the largest answer taken; -1 for no limit.
        credentials: From `grpc.ssl_channel_credentials`, for TLS; without them the channel is not encrypted.
        token: What the server knows this client by, where it asks, printable ASCII; without TLS it can be read on the
            way.
        options: Further gRPC channel options, pairs of a name and a value; they win over what the client sets itself.

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

    def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Return every version that is served.

        Args:
            timeout: Seconds, instead of the client's own.

        Returns:
            Sorted by name, the newest version of each first.

        Raises:
            RegardError: The call failed.
        """
        answer = self._call(self._stub.ListModels, rpc.ListModelsRequest(), timeout)
        return tuple(decoding.read_model(model) for model in answer.models)

    def model(self, name: str = "", version: str = "", *, timeout: float | None = None) -> Model:
        """Return one model.

        Args:
            name: May be empty where only one is served.
            version: Empty means the newest.
            timeout: Seconds, instead of the client's own.

        Raises:
            NotFound: No such model or version is served.
            RegardError: The call failed.
        """
        answer = self._call(self._stub.GetModel, encoding.get_model_request(name, version), timeout)
        return decoding.read_model(answer.model)

    def versions(self, *, timeout: float | None = None) -> tuple[VersionState, ...]:
        """Return every version in the server's models folder, served or not, and why not.

        Args:
            timeout: Seconds, instead of the client's own.

        Raises:
            RegardError: The call failed.
        """
        answer = self._call(self._stub.ListModels, rpc.ListModelsRequest(), timeout)
        return tuple(decoding.read_version(version) for version in answer.versions)

    def load_model(self, name: str, *, timeout: float | None = None) -> Model:
        """Let the server load a model as its folder now is.

        Args:
            name: As the models folder names it.
            timeout: Seconds, instead of the client's own.

        Returns:
            The newest version that is then served.

        Raises:
            NotFound: The models folder holds no such model.
            FailedPrecondition: A version cannot be loaded; what was served before goes on.
            PermissionDenied: This client may not manage models, or nobody may on this address.
            RegardError: The call failed.
        """
        answer = self._call(self._stub.LoadModel, encoding.load_request(name), timeout)
        return decoding.read_model(answer.model)

    def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """Let the server stop serving a model.

        Args:
            name: As the models folder names it.
            timeout: Seconds, instead of the client's own.

        Raises:
            NotFound: It is not served.
            PermissionDenied: This client may not manage models, or nobody may on this address.
            RegardError: The call failed.
        """
        self._call(self._stub.UnloadModel, encoding.unload_request(name), timeout)

    def predict(
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
        """Run a model on arrays.

        Args:
            inputs: By input name, of the dtype and shape [B, ...] that `model()` says, of any strides and byte order.
                All share the batch axis.
            model: May be empty where only one is served.
            version: Empty means the newest.
            outputs: Names of the outputs wanted; empty means all.
            attention: Which attention weights to send along; None for none, which costs nothing.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.
            hidden_states: Which hidden states to send along, but not beside attention; None for none.

        Returns:
            The outputs by name, and the attention or the hidden states where they were asked for.

        Raises:
            InvalidArgument: An array has a dtype that cannot travel (complex, text, objects), or the model takes other
                inputs.
            NotFound: No such model or version is served.
            FailedPrecondition: The model has no attention or no hidden states to show.
            RegardError: The call failed.
        """
        request = encoding.predict_request(
            inputs, model, version, outputs, attention, priority, hidden_states=hidden_states
        )
        return decoding.read_prediction(self._call(self._stub.Predict, request, timeout))

    def classify(
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
        """Name what an image, a text or a pair of texts is.

        Args:
            image: A JPEG, PNG or WebP file, as bytes or as a path. Exactly one of image, text and pair.
            text: Exactly one of image, text and pair.
            pair: Two texts as one input, a premise and a hypothesis, say. Exactly one of image, text and pair.
            model: May be empty where only one is served.
            version: Empty means the newest.
            top_k: How many labels, most probable first; 0 means 5. More than there are gives all.
            truncate: Cut a text that has more tokens than the model takes, instead of refusing it.
            attention: Which attention weights to send along; None for none, which costs nothing.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.
            hidden_states: Which hidden states to send along, but not beside attention; None for none.
            candidate_labels: Of two towers, which need some, the labels to choose from, as many as the model's
                max_inputs; of other models none. Each label's index counts in them.
            label_template: A sentence with {} where each of these labels goes; empty means the towers' own.
            relevance: Which label to explain, but not beside attention or hidden states; None for none.

        Returns:
            The labels with their probabilities, and what else was asked for.

        Raises:
            InvalidArgument: Not exactly one of image, text and pair is given, the path cannot be read, the file is no
                image, the text is too long, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not classify, takes no pairs or no candidate labels, has no attention
                or hidden states to show, or cannot explain labels.
            RegardError: The call failed.
        """
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
        return told(decoding.read_classification(self._call(self._stub.Classify, request, timeout)), request, attention)

    def embed(
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
        """Turn an image or a text into a vector.

        Args:
            image: A JPEG, PNG or WebP file, as bytes or as a path. Either this or text.
            text: Either this or image.
            model: May be empty where only one is served.
            version: Empty means the newest.
            truncate: Cut a text that has more tokens than the model takes, instead of refusing it.
            prompt: Of a text: the name of one of the model's prompts, which is put before it; empty means the default.
            attention: Which attention weights to send along; None for none, which costs nothing.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.
            hidden_states: Which hidden states to send along, but not beside attention; None for none.
            dimensions: Only the first so many numbers of the vector, one of the model's matryoshka_dims; 0 means all.
            vector_format: What it travels as: "float32", "float16", "int8" with a scale, or "binary", a bit a number.
            max_terms: Of a model with sparse vectors: only the heaviest so many terms; 0 means all.
            with_terms: Likewise: send the spelling of each term, too.
            role: Of late interaction: whether it is a "query" or a "document", which are read otherwise.

        Returns:
            The vector, float32 [D] unless another format is asked for, and the attention or the hidden states where
            they were asked for.

        Raises:
            InvalidArgument: As by `classify`.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not embed, or has no attention or no hidden states to show.
            RegardError: The call failed.
        """
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
        return told(decoding.read_embedding(self._call(self._stub.Embed, request, timeout)), request, attention)

    def attend(
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
    ) -> Iterator[Attention]:
        """Ask what a model attends to, one layer at a time, so that no answer is larger than a layer.

        Args:
            image: A JPEG, PNG or WebP file, as bytes or as a path. Exactly one of image, text, pair and inputs.
            text: Exactly one of image, text, pair and inputs.
            pair: Two texts as one input. Exactly one of image, text, pair and inputs.
            inputs: Arrays by input name, as for `predict`.
            model: May be empty where only one is served.
            version: Empty means the newest.
            truncate: Cut a text that has more tokens than the model takes, instead of refusing it.
            prompt: Of a text: the name of one of the model's prompts, which is put before it; empty means the default.
            attention: What is wanted; None for all of every layer.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds for all layers, instead of the client's own.

        Yields:
            One layer each, in the order asked for; `Attention.join` puts them together.

        Raises:
            InvalidArgument: Not exactly one of image, text, pair and inputs is given, or as by `classify`; raised when
                the first layer is asked for, as are the others.
            NotFound: No such model or version is served.
            FailedPrecondition: The model takes no pairs, or has no attention to show.
            RegardError: The call failed.
        """
        request = encoding.attend_request(
            image, text, pair, inputs, model, version, truncate, attention, priority, prompt
        )
        for layer in self._layers(request, timeout):
            yield told(layer, request, attention)
