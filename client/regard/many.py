"""Blocking calls of several images, texts or pairs of texts: one of a sequence, or as many as an iterator needs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack, overload

from regard import decoding, encoding
from regard.answers import Answers, Classification, Embedding
from regard.attention import Attention, AttentionRequest
from regard.bulk import Kind, iterate, most_inputs, read_kind
from regard.bulk_calls import Running, answer_each
from regard.calls import BlockingCalls
from regard.errors import RegardError
from regard.hidden_states import HiddenStatesRequest
from regard.inputs import ImageSource
from regard.options import AttendOptions, ClassifyOptions, EmbedOptions
from regard.origin import told, told_each
from regard.scores import Ranking


class ManyCalls(BlockingCalls):
    """What a client asks of several inputs."""

    @overload
    def classify_many(
        self,
        *,
        images: Iterator[ImageSource],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Iterator[Classification | RegardError]: ...
    @overload
    def classify_many(
        self,
        *,
        texts: Iterator[str],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Iterator[Classification | RegardError]: ...
    @overload
    def classify_many(
        self,
        *,
        pairs: Iterator[tuple[str, str]],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Iterator[Classification | RegardError]: ...
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
    ) -> Answers[Classification]: ...
    def classify_many(
        self,
        *,
        images: Iterable[Any] | None = None,
        texts: Iterable[Any] | None = None,
        pairs: Iterable[Any] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[ClassifyOptions],
    ) -> Any:
        """Name what each of several images, texts or pairs of texts is.

        A sequence goes out in one call, and its answers are a sequence; of an iterator they are an iterator.
        An iterator may be endless: its inputs go out in calls of as many as suit the server, four at a time, and no
        more than eight calls are read ahead of what is taken. Where the server is full, all wait for as long as it
        says; where nobody answers, a call is tried six times within 16 seconds. A call that runs out of time is cut in
        two; where none has come back for four times as long, that is raised: the server hangs. Close the iterator that
        comes back, or read it to its end: until then its calls run.

        Example:
            ```python
            with open("reviews.txt") as lines:
                for found in client.classify_many(texts=map(str.strip, lines), model="film-reviews"):
                    print(found if isinstance(found, RegardError) else found.labels[0].name)
            ```

        Args:
            images: JPEG, PNG or WebP files, each as bytes or as a path. Exactly one of images, texts and pairs. A
                sequence has no more than the model's max_inputs, as of the others.
            texts: Exactly one of images, texts and pairs.
            pairs: Each two texts as one input, likewise.
            timeout: Seconds of each call, instead of the client's own.
            raise_errors: Raise the error of the first input that has one.
            **options: See `ClassifyOptions`.

        Returns:
            The labels of each, in the order of the inputs. One that cannot be answered has its `RegardError` there: of
            a sequence it is raised when it is read, of an iterator it is what comes. The others are answered.

        Raises:
            InvalidArgument: Not exactly one of images, texts and pairs is given, a sequence has too many or none, or a
                path that cannot be read, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not classify, takes no pairs, or has no attention or no hidden states to
                show.
            RegardError: The call failed; of an iterator, every further one would too.
        """
        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        build, read = encoding.classify_many_request, decoding.read_classifications
        return self._many(kind, inputs, build, self._stub.Classify, read, timeout, raise_errors, options)

    def rank(
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
        """Sort documents by how well each answers a query; pairs are read together, token vectors compared.

        Args:
            query: What is looked for.
            documents: As many as the model's max_inputs.
            model: May be empty where only one is served.
            version: Empty means the newest.
            top_k: How many documents to return, best first; 0 means all.
            raw_scores: Return the logits, not what the model's activation makes of them.
            truncate: Cut a query and document that have more tokens than the model takes, the longer of them first.
            attention: Which attention weights to send along with each; None for none, which costs nothing.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.
            hidden_states: Which hidden states to send along with each, but not beside attention; None for none.
            token_matches: Of late interaction: send which token of a document each token of the query found.

        Returns:
            The documents by their index, best first, and the errors of those that the server refuses.

        Raises:
            InvalidArgument: There are too many documents or none, the query is empty, or another argument has no such
                value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model scores no pairs, or has no attention or no hidden states to show.
            RegardError: The call failed.
        """
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
        return decoding.read_ranking(self._call(self._stub.Rank, request, timeout))

    @overload
    def embed_many(
        self,
        *,
        images: Iterator[ImageSource],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Iterator[Embedding | RegardError]: ...
    @overload
    def embed_many(
        self,
        *,
        texts: Iterator[str],
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Iterator[Embedding | RegardError]: ...
    @overload
    def embed_many(
        self,
        *,
        images: Sequence[ImageSource] | None = None,
        texts: Sequence[str] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Answers[Embedding]: ...
    def embed_many(
        self,
        *,
        images: Iterable[Any] | None = None,
        texts: Iterable[Any] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[EmbedOptions],
    ) -> Any:
        """Turn each of several images or texts into a vector.

        A sequence goes out in one call, and its answers are a sequence; of an iterator they are an iterator, as of
        `classify_many`.

        Example:
            ```python
            for found in client.embed_many(texts=iter(texts), model="minilm", raise_errors=True):
                found.vector  # float32 [D]
            ```

        Args:
            images: JPEG, PNG or WebP files, each as bytes or as a path. Either these or texts. A sequence has no more
                than the model's max_inputs, as of texts.
            texts: Either these or images.
            timeout: Seconds of each call, instead of the client's own.
            raise_errors: Raise the error of the first input that has one.
            **options: See `EmbedOptions`.

        Returns:
            The vector of each, in the order of the inputs, or its error, as by `classify_many`.

        Raises:
            InvalidArgument: Not exactly one of images and texts is given, a sequence has too many or none, or a path
                that cannot be read, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not embed, or has no attention or no hidden states to show.
            RegardError: The call failed; of an iterator, every further one would too.
        """
        kind, inputs = read_kind(images=images, texts=texts)
        build, read = encoding.embed_many_request, decoding.read_embeddings
        return self._many(kind, inputs, build, self._stub.Embed, read, timeout, raise_errors, options)

    def attend_many(
        self,
        *,
        images: Iterable[ImageSource] | None = None,
        texts: Iterable[str] | None = None,
        pairs: Iterable[tuple[str, str]] | None = None,
        timeout: float | None = None,
        raise_errors: bool = False,
        **options: Unpack[AttendOptions],
    ) -> Iterator[Attention | RegardError]:
        """Ask what a model attends to in each of many images, texts or pairs of texts, four calls at a time.

        Args:
            images: As for `classify_many`; any iterable, which may be endless.
            texts: Likewise.
            pairs: Likewise.
            timeout: Seconds of each call, instead of the client's own.
            raise_errors: Raise the error of the first input that has one.
            **options: See `AttendOptions`.

        Returns:
            An iterator of the attention of each input, all layers asked for, or its error, in the order of the inputs.

        Raises:
            InvalidArgument: Not exactly one of images, texts and pairs is given, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model takes no pairs, or has no attention to show.
            RegardError: Every further call would fail too.
        """
        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        encoding.attend_request(text="", **options)  # refuses what it can before anything is read

        def ask(values: Sequence[Any], running: Running) -> list[Attention]:
            request = encoding.attend_request(**{kind.removesuffix("s"): values[0]}, **options)
            found = Attention.join(list(self._layers(request, timeout, running)))
            return [told(found, request, options.get("attention"))]

        return answer_each(
            kind,
            iterate(kind, inputs),
            lambda: 1,
            ask,
            seconds=self._to.seconds(timeout),
            single=True,
            raise_errors=raise_errors,
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
        if not isinstance(inputs, Iterator):
            request = build(**{kind: inputs}, **options)
            answers = read(self._call(method, request, timeout))
            told_each(answers.each, request, options.get("attention"))
            return answers.checked() if raise_errors else answers
        build(**{kind: []}, **options)  # refuses what it can before anything is read

        def most() -> int:
            request = encoding.get_model_request(options.get("model", ""), options.get("version", ""))
            return most_inputs(decoding.read_model(self._call(self._stub.GetModel, request, timeout).model), kind)

        def ask(values: Sequence[Any], running: Running) -> Sequence[Any]:
            request = build(**{kind: values}, **options)
            found = read(self._call_held(method, request, timeout, running)).each
            told_each(found, request, options.get("attention"))
            return found

        return answer_each(
            kind, inputs, most, ask, seconds=self._to.seconds(timeout), single=False, raise_errors=raise_errors
        )
