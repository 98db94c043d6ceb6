"""What calls of many inputs, and studies, take besides these."""

from collections.abc import Iterable, Sequence
from typing import TypedDict

from regard.answers import TextRole, VectorFormat
from regard.attention import AttentionRequest, Rectangle, Span, Statistic
from regard.hidden_states import HiddenStatesRequest
from regard.relevance import RelevanceRequest


class ManyOptions(TypedDict, total=False):
    """What each of them takes.

    Attributes:
        model: May be empty where only one is served.
        version: Empty means the newest.
        truncate: Cut texts that have more tokens than the model takes, instead of refusing them.
        attention: Which attention weights to send along with each; None for none, which costs nothing.
        priority: 1 is served first, then 2, then 3; 0 means 2.
    """

    model: str
    version: str
    truncate: bool
    attention: AttentionRequest | None
    priority: int


class ClassifyOptions(ManyOptions, total=False):
    """What `Client.classify_many` takes besides the inputs.

    Attributes:
        top_k: How many labels of each, most probable first; 0 means 5.
        hidden_states: Which hidden states to send along with each, but not beside attention; None for none.
        candidate_labels: Of two towers, which need some, the labels to choose from, as many as the model's max_inputs;
            of other models none. Each label's index counts in them.
        label_template: A sentence with {} where each of these labels goes; empty means the towers' own.
        relevance: Which label to explain for each, but not beside attention or hidden states; None for none.
    """

    top_k: int
    hidden_states: HiddenStatesRequest | None
    candidate_labels: Sequence[str]
    label_template: str
    relevance: RelevanceRequest | None


class EmbedOptions(ManyOptions, total=False):
    """What `Client.embed_many` takes besides the inputs.

    Attributes:
        prompt: Name of what is put before each text, one of the model's prompts; empty means its default.
        hidden_states: Which hidden states to send along with each, but not beside attention; None for none.
        dimensions: Only the first so many numbers of the vector, one of the model's matryoshka_dims; 0 means all.
        vector_format: What it travels as: "float32", "float16", "int8" with a scale, or "binary", a bit a number.
        max_terms: Of a model with sparse vectors: only the heaviest so many terms; 0 means all.
        with_terms: Likewise: send the spelling of each term, too.
        role: Of late interaction: whether it is a "query" or a "document", which are read otherwise.
    """

    prompt: str
    hidden_states: HiddenStatesRequest | None
    dimensions: int
    vector_format: VectorFormat
    max_terms: int
    with_terms: bool
    role: TextRole


class AttendOptions(ManyOptions, total=False):
    """What `Client.attend_many` takes besides the inputs; an attention of None is all of every layer.

    Attributes:
        prompt: Name of what is put before each text, one of the model's prompts; empty means its default.
    """

    prompt: str


class StudyArguments(TypedDict, total=False):
    """What `Client.study` takes besides the folder and the inputs.

    Attributes:
        model: May be empty where only one is served.
        version: Empty means the newest.
        statistics: Which, see `AttentionRequest`; none for all that the model and its inputs have.
        layers: Which; none for all that have these.
        value_weighted: Count weights times the lengths of value vectors.
        contributions: Count the contributions of all heads together, one number a layer.
        drop_special: Leave special tokens of texts and prefix tokens of images out.
        cls_only: Only the row of the class token.
        spans: Of "region" in texts: (start, end) in code points, the same of all.
        boxes: Of "region" in images: (left, top, right, bottom) in pixels, the same of all.
        truncate: Cut texts that have more tokens than the model takes; else they have errors.
        examples: How many inputs are kept that excite a head most, of each head and statistic; 8 unless said.
        resume: Go on with what the folder holds, which must be of the same inputs and options.
        retry_errors: Ask again for the inputs there that have errors, then go on likewise.
    """

    model: str
    version: str
    statistics: Iterable[Statistic]
    layers: Iterable[int]
    value_weighted: bool
    contributions: bool
    drop_special: bool
    cls_only: bool
    spans: Iterable[Span]
    boxes: Iterable[Rectangle]
    truncate: bool
    examples: int
    resume: bool
    retry_errors: bool
