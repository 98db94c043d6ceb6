"""Blocking calls of several images, texts or pairs of texts at once."""

from collections.abc import Sequence

from regard import decoding, encoding
from regard.answers import Answers, Classification, Embedding, TextRole, VectorFormat
from regard.attention import AttentionRequest
from regard.calls import BlockingCalls
from regard.hidden_states import HiddenStatesRequest
from regard.inputs import ImageSource
from regard.scores import Ranking


class ManyCalls(BlockingCalls):
    """What a client asks of several inputs."""

    def classify_many(
        self,
        *,
        images: Sequence[ImageSource] | None = None,
        texts: Sequence[str] | None = None,
        pairs: Sequence[tuple[str, str]] | None = None,
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
    ) -> Answers[Classification]:
        """Name what each of several images, texts or pairs of texts is, in one call.

        Args:
            images: JPEG, PNG or WebP files, each as bytes or as a path. Exactly one of images, texts and pairs.
            texts: Exactly one of images, texts and pairs; as many as the model's max_inputs.
            pairs: Each two texts as one input, likewise.
            model: May be empty where only one is served.
            version: Empty means the newest.
            top_k: How many labels of each, most probable first; 0 means 5.
            truncate: Cut texts that have more tokens than the model takes, instead of refusing them.
            attention: Which attention weights to send along with each; None for none, which costs nothing.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.
            hidden_states: Which hidden states to send along with each, but not beside attention; None for none.
            candidate_labels: Of two towers, which need some, the labels to choose from, as many as the model's
                max_inputs; of other models none. Each label's index counts in them.
            label_template: A sentence with {} where each of these labels goes; empty means the towers' own.

        Returns:
            The labels of each, in the order of the inputs. One that the server refuses has an error there, which is
            raised when it is read; the others are answered.

        Raises:
            InvalidArgument: Not exactly one of images, texts and pairs is given, there are too many or none, a path
                cannot be read, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not classify, takes no pairs, or has no attention or no hidden states to
                show.
            RegardError: The call failed.
        """
        request = encoding.classify_many_request(
            images,
            texts,
            pairs,
            model,
            version,
            top_k,
            truncate,
            attention,
            priority,
            hidden_states=hidden_states,
            candidate_labels=candidate_labels,
            label_template=label_template,
        )
        return decoding.read_classifications(self._call(self._stub.Classify, request, timeout))

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

    def embed_many(
        self,
        *,
        images: Sequence[ImageSource] | None = None,
        texts: Sequence[str] | None = None,
        model: str = "",
        version: str = "",
        truncate: bool = False,
        attention: AttentionRequest | None = None,
        priority: int = 0,
        timeout: float | None = None,
        prompt: str = "",
        hidden_states: HiddenStatesRequest | None = None,
        dimensions: int = 0,
        vector_format: VectorFormat = "float32",
        max_terms: int = 0,
        with_terms: bool = False,
        role: TextRole = "document",
    ) -> Answers[Embedding]:
        """Turn each of several images or texts into a vector, in one call.

        Args:
            images: JPEG, PNG or WebP files, each as bytes or as a path. Either these or texts.
            texts: Either these or images; as many as the model's max_inputs.
            model: May be empty where only one is served.
            version: Empty means the newest.
            truncate: Cut texts that have more tokens than the model takes, instead of refusing them.
            attention: Which attention weights to send along with each; None for none, which costs nothing.
            priority: 1 is served first, then 2, then 3; 0 means 2.
            timeout: Seconds, instead of the client's own.
            prompt: Name of what is put before each text, one of the model's prompts; empty means its default.
            hidden_states: Which hidden states to send along with each, but not beside attention; None for none.
            dimensions: Only the first so many numbers of the vector, one of the model's matryoshka_dims; 0 means all.
            vector_format: What it travels as: "float32", "float16", "int8" with a scale, or "binary", a bit a number.
            max_terms: Of a model with sparse vectors: only the heaviest so many terms; 0 means all.
            with_terms: Likewise: send the spelling of each term, too.
            role: Of late interaction: whether it is a "query" or a "document", which are read otherwise.

        Returns:
            The vector of each, in the order of the inputs. One that the server refuses has an error there, which is
            raised when it is read; the others are answered.

        Raises:
            InvalidArgument: Not exactly one of images and texts is given, there are too many or none, a path cannot be
                read, or another argument has no such value.
            NotFound: No such model or version is served.
            FailedPrecondition: The model does not embed, or has no attention or no hidden states to show.
            RegardError: The call failed.
        """
        request = encoding.embed_many_request(
            images,
            texts,
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
        return decoding.read_embeddings(self._call(self._stub.Embed, request, timeout))
