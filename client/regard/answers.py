"""What the calls return, apart from attention: descriptions of models, labels, vectors, outputs, timings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from regard.attention import Attention, AttentionKind, AttentionWindow, PatchGrid, Token
from regard.errors import RegardError
from regard.hidden_states import HiddenStates
from regard.relevance import Relevance, RelevanceMethod

TextRole = Literal["document", "query"]
VectorFormat = Literal["float32", "float16", "int8", "binary"]
Modality = Literal["text", "image"]
Takes = Modality | Literal["text or image", "audio"]
Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of predict.

    Attributes:
        name: Its key in `inputs` or `outputs`.
        dtype: numpy's name of the element type, e.g. "float32".
        shape: One number per axis: the size where it is fixed, -1 where it is symbolic.
        axes: One name per axis ("batch", "seq_len") where it is symbolic, else "".
        optional: Whether an input may be left out, which means zeros: which of two texts each token is of.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True)
class AttentionLayer:
    """One layer whose attention a model can show.

    Attributes:
        layer: Its number, from 0.
        kind: "self", "causal", "cross" or "unspecified", as `LayerAttention` explains.
        num_heads: How many heads it has.
        has_value_norms: Whether its weights can be multiplied by the lengths of the value vectors.
        has_contributions: Whether the measures "contribution" and "contribution_rollout" are possible.
        window: Where it attends in windows, else None. It then has no class token and, but where one window is the
            whole grid, no rollout and no distance.
        mixes_heads: Whether a linear map over the heads stands behind its softmax (talking heads): weights may be
            negative and rows sum to any number. It then has no rollout, entropy or distance, no renormalize and no
            uint8.
        class_attention: Whether its one query is the class token, which other layers have not; its keys are that, then
            the patches.
    """

    layer: int
    kind: AttentionKind
    num_heads: int
    has_value_norms: bool = False
    has_contributions: bool = False
    window: AttentionWindow | None = None
    mixes_heads: bool = False
    class_attention: bool = False


@dataclass(frozen=True)
class HiddenStateLayer:
    """One layer whose hidden states a model can show.

    Attributes:
        layer: 0 for what enters the first layer, n for what leaves the n-th.
        dim: Numbers of the vector of a position.
    """

    layer: int
    dim: int


@dataclass(frozen=True)
class VersionState:
    """A version in the server's models folder.

    Attributes:
        model: Its model's name.
        version: An integer, as text.
        state: READY, LOADING, UNLOADING or UNAVAILABLE.
        reason: Why it is not served, or why its reload failed; else empty.
    """

    model: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class Towers:
    """Two towers whose vectors are of one space, and what makes scores: activation(logit_scale * cosine + logit_bias).

    Attributes:
        text: What texts are read by; its name and version are those of both.
        image: What images are read by.
        logit_scale: What cosines are multiplied with.
        logit_bias: What is added then.
        activation: "softmax" over the labels of an image, or "sigmoid" of each.
        label_template: The sentence that a label is put into, at its {}, where a call gives no other.
        can_align: Whether align is possible.
    """

    text: "Model"
    image: "Model"
    logit_scale: float
    logit_bias: float
    activation: str
    label_template: str
    can_align: bool


@dataclass(frozen=True)
class Generation:
    """How an encoder-decoder writes.

    Attributes:
        num_layers: Of its decoder, each with attention to what was written and to the text that was read.
        num_heads: Of each, of both kinds of attention.
        max_tokens: The most of one result.
        starts: Names of what it may begin with.
        default_start: That which is taken where a call names none.
        num_beams: How many beginnings are kept unless a call says otherwise.
        length_penalty: Likewise, what its results are ranked by.
        vocab_size: Tokens of its vocabulary.
        alignment_heads: Layer and head of those whose attention to a sound says when a word is spoken, see
            `word_times`; empty where nobody has said which.
        can_explain: Whether generate can say why: its argument relevance.
    """

    num_layers: int
    num_heads: int
    max_tokens: int
    starts: tuple[str, ...]
    default_start: str
    num_beams: int
    length_penalty: float
    vocab_size: int
    alignment_heads: tuple[tuple[int, int], ...] = ()
    can_explain: bool = False


@dataclass(frozen=True)
class Model:
    """What a served model takes, gives and can show.

    Attributes:
        name: As requests name it.
        version: An integer, as text.
        family: "bert", "vit", "dinov2".
        description: In words.
        inputs: Of predict.
        outputs: Of predict.
        modality: What classify and embed take: "text", "image" or, of two towers, "text or image"; what generate
            reads or hears: "text" or "audio"; None where only predict is possible.
        can_classify: Whether classify is possible.
        labels: Class names in the order of the logits.
        can_embed: Whether embed is possible.
        embedding_dim: Width D of the vector; 0 where there is none.
        embedding_normalized: Whether the vector has Euclidean length 1.
        attention_layers: Empty where no attention was exported.
        patches: How positions lie on an image; None for texts.
        max_tokens: The most tokens a text may have, special tokens included; 0 for images.
        max_batch_size: Most rows of one predict.
        max_inputs: Most texts or images of one embed_many or classify_many; 0 from a server that has neither.
        device: "CPU" or "CUDA:0".
        precision: What it computes in: "float32", "float16", "bfloat16" or "int8".
        prompts: What embed may put before a text, by name; some are empty.
        default_prompt: The name of that which is put there where a call names none; "" for nothing.
        similarity: How vectors are meant to be compared: "cosine", "dot", "euclidean" or "manhattan"; "" where the
            model's own files do not say.
        takes_pairs: Whether two texts may be one input of classify and attend.
        can_rank: Whether rank is possible.
        can_explain: Whether classify can say why: its argument relevance.
        relevance_methods: By which methods it can.
        can_explain_similarity: Whether compare can.
        can_explain_layers: Whether classify can say why by layer: RelevanceRequest.by_layer.
        activation: What makes scores of logits: "softmax", "sigmoid" or "identity"; "" where the model's own files do
            not say. Classify takes the softmax in any case.
        hidden_state_layers: Empty where no hidden states were exported.
        matryoshka_dims: Sizes that embed may cut vectors to, as the model was trained; empty where nothing says so.
        embedding_sparse: Whether the vector is a weight for each token of the vocabulary, most of them 0.
        token_vector_dim: Numbers of each vector where embed gives one for each token (late interaction), else 0.
        query_tokens: Then the most tokens of a query.
        document_tokens: Then the most tokens of a document.
        towers: Of a model that is two towers; what each can show is there. None for others.
        generation: Of an encoder-decoder, which writes texts; None for others.
        max_audio_seconds: Of one that hears: how long a sound may be, else 0.
    """

    name: str
    version: str
    family: str
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    modality: Takes | None
    can_classify: bool
    labels: tuple[str, ...]
    can_embed: bool
    embedding_dim: int
    embedding_normalized: bool
    attention_layers: tuple[AttentionLayer, ...]
    patches: PatchGrid | None
    max_tokens: int
    max_batch_size: int
    max_inputs: int
    device: str
    precision: str
    prompts: dict[str, str] = field(default_factory=dict, hash=False)
    default_prompt: str = ""
    similarity: str = ""
    takes_pairs: bool = False
    can_rank: bool = False
    can_explain: bool = False
    relevance_methods: tuple[RelevanceMethod, ...] = ()
    can_explain_similarity: bool = False
    can_explain_layers: bool = False
    activation: str = ""
    hidden_state_layers: tuple[HiddenStateLayer, ...] = ()
    matryoshka_dims: tuple[int, ...] = ()
    embedding_sparse: bool = False
    token_vector_dim: int = 0
    query_tokens: int = 0
    document_tokens: int = 0
    towers: Towers | None = None
    generation: Generation | None = None
    max_audio_seconds: float = 0.0

    def of(self, modality: Modality) -> "Model":
        """Return what takes a text or an image: of two towers one of them, else the model itself."""
        if self.towers is None:
            return self
        return self.towers.text if modality == "text" else self.towers.image


@dataclass(frozen=True)
class Timings:
    """Where a request's time went on the server, in nanoseconds.

    Attributes:
        decode_ns: Checking and preprocessing: image decoding and resizing, or tokenisation.
        queue_ns: Waiting for the engine.
        compute_ns: The run of the batch that this request was in.
        encode_ns: Choosing, reducing and writing the answer.
        batch_size: Rows of that batch, this request's own included.
    """

    decode_ns: int
    queue_ns: int
    compute_ns: int
    encode_ns: int
    batch_size: int


@dataclass(frozen=True)
class Label:
    """A class that an input may be of.

    Attributes:
        index: Its position in the logits, from 0.
        name: As the model's labels name it, or candidate_labels.
        probability: Softmax over all classes, in [0, 1]; of candidate_labels what the model's activation makes of them.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Classification:
    """The answer to classify.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        labels: Most probable first.
        truncated: The text had more tokens than the model takes and was cut.
        attention: None unless asked for.
        hidden_states: Likewise.
        timings: Of this request.
        relevance: As attention; of several labels that of the first.
        relevances: Of each label that was asked for, in their order.
    """

    model: str
    version: str
    labels: tuple[Label, ...]
    truncated: bool
    attention: Attention | None
    timings: Timings
    hidden_states: HiddenStates | None = None
    relevance: Relevance | None = None
    relevances: tuple[Relevance, ...] = ()

    def __repr__(self) -> str:
        labels = ", ".join(f"{label.name} {label.probability:.4g}" for label in self.labels)
        return f"Classification({self.model} {self.version}: {labels}{_beside(self)})"


@dataclass(frozen=True, eq=False)
class SparseVector:
    """The tokens of a vocabulary that weigh something in a text.

    Attributes:
        indices: int32 [T], ids of tokens, ascending. Read-only, as the next.
        values: float32 [T], the weight of each, above 0.
        terms: How the vocabulary spells each; empty unless asked for.
    """

    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """The answer to embed.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        vector: [D], D the model's embedding_dim or the dimensions asked for, as it was asked for: float32, float16 or
            int8; of "binary" uint8 [D / 8], see numpy.packbits. Of a sparse vector all that came, other numbers 0.
            Read-only; copy it to change it.
        truncated: The text had more tokens than the model takes and was cut.
        attention: None unless asked for.
        hidden_states: Likewise.
        timings: Of this request.
        scale: Of int8, what 1 stands for; else 1.
        sparse: Of a model with embedding_sparse: what of the vector is not 0.
        tokens: Of a model with token_vector_dim, where vector is [T, token_vector_dim]: what each vector is of.
    """

    model: str
    version: str
    vector: NDArray[Any]
    truncated: bool
    attention: Attention | None
    timings: Timings
    hidden_states: HiddenStates | None = None
    scale: float = 1.0
    sparse: SparseVector | None = None
    tokens: tuple[Token, ...] | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.vector.shape))
        return f"Embedding({self.model} {self.version}: {self.vector.dtype} [{shape}]{_beside(self)})"

    def to_floats(self) -> NDArray[np.float32]:
        """Return the vector as float32 [D], near to what the model gave; of "binary", 1 for each bit set, else -1."""
        if self.vector.dtype == np.uint8:
            return 2 * np.unpackbits(self.vector).astype(np.float32) - 1
        return self.vector.astype(np.float32) * np.float32(self.scale)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer to predict.

    Attributes:
        model: Which model answered.
        version: Which version of it.
        outputs: By name, shaped as the model's description says. Read-only arrays; copy one to change it.
        attention: None unless asked for; its weights begin with a "batch" axis.
        hidden_states: Likewise.
        timings: Of this request.
    """

    model: str
    version: str
    outputs: dict[str, NDArray[Any]]
    attention: Attention | None
    timings: Timings
    hidden_states: HiddenStates | None = None


@dataclass(frozen=True, eq=False)
class Answers(Sequence[Answer], Generic[Answer]):
    """The answers to several inputs of one call, in their order; one that has an error instead raises it when read.

    Example:
        ```python
        answers = client.embed_many(texts=["A man is eating food.", ""], model="minilm")
        answers[0].vector  # float32 [D]
        answers.errors  # {1: InvalidArgument: texts[1]: empty; expected a text with something in it}
        ```

    Attributes:
        model: Which model answered.
        version: Which version of it.
        each: The answer to each input, or its error.
        timings: Of the call; what is said of queue, run and batch is that of the longest run.
    """

    model: str
    version: str
    each: tuple[Answer | RegardError, ...]
    timings: Timings

    @property
    def errors(self) -> dict[int, RegardError]:
        """The errors, by the index of their input."""
        return {number: one for number, one in enumerate(self.each) if isinstance(one, RegardError)}

    def checked(self) -> "Answers[Answer]":
        """Return this where every input has an answer.

        Raises:
            RegardError: The error of the first that has none.
        """
        for one in self.each:
            if isinstance(one, RegardError):
                raise one
        return self

    def __len__(self) -> int:
        return len(self.each)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | Sequence[Answer]:
        """Return the answer to an input.

        Raises:
            RegardError: It has an error instead.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        one = self.each[index]
        if isinstance(one, RegardError):
            raise one
        return one


def _beside(answer: Classification | Embedding) -> str:
    """Name what else came."""
    beside = {"cut": answer.truncated, "attention": answer.attention, "hidden states": answer.hidden_states}
    return "".join(f"; {name}" for name, value in beside.items() if value)
