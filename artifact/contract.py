"""The contract of an artifact, contract.json: everything known of a network besides its graphs."""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from artifact.audio_contract import AudioContract
from artifact.dtypes import Array, DType
from artifact.errors import ContractError, explain
from artifact.generation import TARGET_AXIS, TOKEN_RELEVANCE, GenerationContract
from artifact.grids import check_grid
from artifact.verification import Accuracy, Check

CONTRACT_FILE = "contract.json"
NUMBER_BYTES = 4  # of one attention weight, or one number of a hidden state, float32
PLAIN_GRAPH, TAPPED_GRAPH, WEIGHTS_FILE = "model.onnx", "attention.onnx", "weights.bin"
CONTRIBUTIONS_GRAPH = "contributions.onnx"  # the plain graph with what each position adds to each other
HIDDEN_GRAPH = "hidden.onnx"  # the plain graph with what enters and leaves each layer
RELEVANCE_GRAPH = "relevance.onnx"  # the plain graph with what each position did for a score
SIMILARITY_GRAPH = "similarity.onnx"  # the same for a similarity: the vector's numbers times those of another
PARTS_GRAPH = "parts.onnx"  # the plain graph with what one position of each row adds to the vector
# What each position did for a token that an encoder-decoder wrote.
TOKEN_RELEVANCE_GRAPH = "relevance.token.onnx"  # noqa: S105 -- no secret
LOWERED_GRAPH = "attention.lowered.onnx"  # the tapped graph with eager attention
DECODER_GRAPH = "decoder.onnx"  # one step of the decoder, for one token of each row
LOWERED_DECODER_GRAPH = "decoder.lowered.onnx"  # the same of operators that every provider has
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
# What names of files on Windows may not have: learn.microsoft.com/windows/win32/fileio/naming-a-file.
_NOT_IN_FILE_NAMES = frozenset('<>:"/\\|?*') | frozenset(map(chr, range(32)))
_WINDOWS_DEVICES = {"CON", "PRN", "AUX", "NUL", *(port + digit for port in ("COM", "LPT") for digit in "123456789¹²³")}
BATCH_AXIS, SEQUENCE_AXIS = "batch", "seq_len"
MAX_CELLS = 4096  # of a layer's grid, or a window, along one edge
_IMAGE_AXES = 4  # batch, channels, height, width
_MAX_PROMPTS, _MAX_PROMPT_NAME, _MAX_PROMPT = 64, 64, 4096
BARE_ONNX = "onnx"  # the family of an ONNX file that came without a contract

Read = TypeVar("Read", bound=BaseModel)
Precision = Literal["float32", "float16", "bfloat16", "int8"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Activation = Literal["softmax", "sigmoid", "identity"]
RelevanceMethod = Literal["libra", "gradient", "integrated-gradients", "genatt", "legrad"]
RelevanceGraph = Literal["libra", "gradient", "genatt", "legrad", "layers"]  # of gradient for both of the score's own

RELEVANCE_GRAPHS: Mapping[RelevanceGraph, str] = {
    "libra": RELEVANCE_GRAPH,
    "gradient": "relevance.gradient.onnx",
    "genatt": "relevance.genatt.onnx",
    "legrad": "relevance.legrad.onnx",
    "layers": "relevance.layers.onnx",  # Libra, at every depth
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorContract(_Part):
    """One input or output of the graphs.

    Attributes:
        axes: One entry an axis: its size where fixed, its name where symbolic.
        minimum: Smallest value allowed in an input; None for no bound. Out of range would harm the whole batch.
        maximum: Largest value allowed in an input; None for no bound.
        pad_value: What fills the sequence axis up to the longest row of a batch.
        mask: Whether this input says which positions are real; each row then needs at least one 1.
        token_types: Whether it says of which of two texts a token is, 0 or 1; zeros where a caller leaves it out.
        finite: Whether an input may hold neither NaN nor infinity, nor be empty.
    """

    name: str
    dtype: DType
    axes: tuple[int | str, ...]
    minimum: float | None = None
    maximum: float | None = None
    pad_value: int = 0
    mask: bool = False
    token_types: bool = False
    finite: bool = True


def check_prompts(prompts: Mapping[str, str]) -> None:
    """Refuse more than GetModel should send of them.

    Raises:
        ValueError: They are too many, or one or its name is too long.
    """
    longest_name, longest = (max(map(len, texts), default=0) for texts in (prompts.keys(), prompts.values()))
    if len(prompts) > _MAX_PROMPTS or longest_name > _MAX_PROMPT_NAME or longest > _MAX_PROMPT:
        found = f"{len(prompts)} prompts, names up to {longest_name} characters, texts up to {longest}"
        raise ValueError(f"{found}; expected at most {_MAX_PROMPTS}, {_MAX_PROMPT_NAME} and {_MAX_PROMPT}")


class TextContract(_Part):
    """How text becomes inputs.

    Attributes:
        tokenizer_file: A file of the tokenizers library beside the contract.
        max_tokens: The most tokens a text may have, special tokens included.
        prompts: What a caller may have put before a text, by name.
        default_prompt: The name of that which is put there unless another is asked for; empty for none.
        pairs: Whether two texts may be one input, joined as the tokenizer does.
        pad_token: What every text is filled up with to max_tokens, for a network without a mask that reads it all;
            None where texts keep their own length.
    """

    tokenizer_file: str
    max_tokens: int = Field(gt=0)
    prompts: dict[str, str] = {}
    default_prompt: str = ""
    pairs: bool = False
    pad_token: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check_prompts(self) -> Self:
        check_prompts(self.prompts)
        if self.default_prompt and self.default_prompt not in self.prompts:
            raise ValueError(f"default_prompt: {self.default_prompt!r}; expected one of prompts")
        return self


class ImageContract(_Part):
    """How an image becomes inputs: EXIF orientation, mode, resize, centre crop, scale to [0, 1], normalise.

    Attributes:
        mode: Pillow's mode the image is converted to: "RGB" or "L" (grey).
        resize_shorter_edge: Pixels; the longer edge follows. None: both edges are resized, see resize_edges.
        resize_edges: Pixels that both edges are resized to, whatever the image's shape; None: to crop_size.
        crop_size: Edge in pixels of the square that is cut from the centre.
        resample: Pillow's filter.
        mean: Subtracted per channel, after scaling.
        std: Divided by per channel.
        pad: Whether nothing is cut off: the longer edge is resized to crop_size, and what is missing of the square,
            below or on the right, is filled with zeros after normalising (SAM).
    """

    mode: Literal["RGB", "L"] = "RGB"
    resize_shorter_edge: int | None = None
    resize_edges: int | None = None
    crop_size: int = Field(gt=0)
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: bool = False

    @model_validator(mode="after")
    def _check_edges(self) -> Self:
        for name in ("resize_shorter_edge", "resize_edges") if self.pad else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: {getattr(self, name)}; expected none beside pad")
        if self.resize_shorter_edge is not None and self.resize_edges is not None:
            raise ValueError(f"resize_edges: {self.resize_edges}; expected none beside resize_shorter_edge")
        for name in ("resize_shorter_edge", "resize_edges"):
            edge = getattr(self, name)
            if edge is not None and edge < self.crop_size:
                raise ValueError(f"{name}: {edge}; expected at least {self.crop_size}")
        return self


class EmbeddingContract(_Part):
    """Which output Embed gives; float32 [batch, dim].

    Attributes:
        similarity: How its vectors are meant to be compared; None where nothing says so.
        matryoshka_dims: Sizes below dim that it was trained to be cut to, ascending; empty where nothing says so.
        sparse: Whether each number is the weight of a token of the vocabulary, most of them 0.
    """

    output: str
    dim: int
    normalized: bool
    similarity: Similarity | None = None
    matryoshka_dims: tuple[int, ...] = ()
    sparse: bool = False

    @model_validator(mode="after")
    def _check_dims(self) -> Self:
        if outside := [dim for dim in self.matryoshka_dims if not 1 <= dim < self.dim]:
            raise ValueError(f"matryoshka_dims: {outside[0]}; expected from 1 to below dim, {self.dim}")
        if any(one >= other for one, other in pairwise(self.matryoshka_dims)):
            raise ValueError("matryoshka_dims: not ascending; expected each size once, the smallest first")
        if self.sparse and self.matryoshka_dims:
            raise ValueError(f"matryoshka_dims: {self.matryoshka_dims[0]}; expected none of sparse vectors")
        return self


class LateContract(_Part):
    """Late interaction: a vector for each token, float32 [batch, seq_len, dim] (Khattab and Zaharia 2020, "ColBERT").

    Attributes:
        output: Its name in the plain graph; vectors have Euclidean length 1.
        dim: Numbers of each vector.
        query_prefix: The token that is put behind the first one of a query; None for none.
        document_prefix: Likewise of a document.
        query_tokens: The most tokens of a query, all included; shorter ones are filled up where there is a filler.
        document_tokens: The most tokens of a document.
        filler: The token that queries are filled up with; None where they are not.
        attends_filler: Whether others attend to fillers; these attend to others in any case.
        skipped: Tokens of documents that have no vector in the answer: punctuation.
    """

    output: str
    dim: int = Field(gt=0)
    query_prefix: int | None = Field(default=None, ge=0)
    document_prefix: int | None = Field(default=None, ge=0)
    query_tokens: int = Field(gt=3)
    document_tokens: int = Field(gt=3)
    filler: int | None = Field(default=None, ge=0)
    attends_filler: bool = False
    skipped: tuple[int, ...] = ()


class WindowContract(_Part):
    """A layer that attends in windows: its positions are a grid, each attends to those of its window alone.

    The grid is filled up to whole windows below and on the right, rolled up and to the left by the shift, as torch.roll
    does, and cut into windows (Liu et al. 2021, "Swin Transformer", section 3.2). Queries are the grid's cells row by
    row; keys are the positions of the query's window, row by row, those that are padding included.

    Attributes:
        rows: Cells of the layer's grid below each other.
        cols: Cells beside each other.
        height: Cells of a window below each other.
        width: Cells beside each other.
        shift_rows: How far the grid is rolled up, in cells.
        shift_cols: How far to the left.
        cell_size: Edge of a cell in pixels of the network's input.
    """

    rows: int = Field(gt=0, le=MAX_CELLS)
    cols: int = Field(gt=0, le=MAX_CELLS)
    height: int = Field(gt=0, le=MAX_CELLS)
    width: int = Field(gt=0, le=MAX_CELLS)
    shift_rows: int = Field(default=0, ge=0)
    shift_cols: int = Field(default=0, ge=0)
    cell_size: int = Field(gt=0, le=MAX_CELLS)

    @model_validator(mode="after")
    def _check_shifts(self) -> Self:
        for name, shift, edge in (
            ("shift_rows", self.shift_rows, self.height),
            ("shift_cols", self.shift_cols, self.width),
        ):
            if shift >= edge:
                raise ValueError(f"{name}: {shift}; expected less than a window's edge, {edge}")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its one window is the grid, cell for cell: then keys are what queries are."""
        return (self.height, self.width) == (self.rows, self.cols) and not (self.shift_rows or self.shift_cols)

    @property
    def queries(self) -> int:
        """Cells of the grid."""
        return self.rows * self.cols

    @property
    def keys(self) -> int:
        """Positions of a window."""
        return self.height * self.width


class AttentionContract(_Part):
    """One attention output of the tapped graph, float32 [batch, heads, query, key].

    Attributes:
        output: Its name in the tapped graph.
        layer: Counted from 0, in the order of the graph.
        kind: "self", "causal" (self-attention in which no position attends to a later one) or "cross".
        num_heads: Query heads.
        query_axis: A size where fixed, else the axis of an input, or derived from one; None where only a run tells.
        key_axis: Likewise.
        value_norms: A further output of the tapped graph, float32 [batch, heads, key]: the length of each position's
            value vector after its head's part of the output projection (Kobayashi et al. 2020, "Attention is Not Only
            a Weight", section 3); None where the graph does not show that projection.
        contribution: An output of the contributions graph, float32 [batch, query, key]: the length of what a key's
            position adds to a query's, the residual connection included (Modarressi et al. 2022, "GlobEnc", equation 5,
            N_Res); None where the graph does not show projection and residual.
        window: Where it attends in windows; its axes then are those of one. None elsewhere.
        mixes_heads: Whether a linear map over the heads stands behind the softmax (Shazeer et al. 2020, "Talking-Heads
            Attention"): weights, which are what multiplies the values, may be negative and rows sum to any number.
        class_attention: Whether its one query is the class token, and its keys are that and then the patches, of an
            image whose other layers are over patches alone (Touvron et al. 2021, "Going deeper with Image
            Transformers").
    """

    output: str
    layer: int
    kind: Literal["self", "causal", "cross"]
    num_heads: int
    query_axis: int | str | None = SEQUENCE_AXIS
    key_axis: int | str | None = SEQUENCE_AXIS
    value_norms: str | None = None
    contribution: str | None = None
    window: WindowContract | None = None
    mixes_heads: bool = False
    class_attention: bool = False

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window is None:
            return self
        axes, expected = (self.query_axis, self.key_axis), (self.window.queries, self.window.keys)
        if axes != expected:
            raise ValueError(f"window: of {expected[0]} queries and {expected[1]} keys; the axes are {list(axes)}")
        if self.kind != "self":
            raise ValueError(f"window: given with kind {self.kind!r}; expected 'self'")
        if self.value_norms or self.contribution:
            raise ValueError("window: given with value_norms or contribution, which are of no window")
        return self

    @model_validator(mode="after")
    def _check_class_attention(self) -> Self:
        if self.class_attention and (self.kind, self.query_axis) != ("cross", 1):
            raise ValueError(f"class_attention: of {self.query_axis} queries, kind {self.kind!r}; expected 1, 'cross'")
        return self

    def shape(self, sizes: Mapping[str, int], positions: int) -> tuple[int, int]:
        """Query and key positions, given the sizes of symbolic axes; one that is not among them has the positions."""
        return size_of_axis(self.query_axis, sizes, positions), size_of_axis(self.key_axis, sizes, positions)

    def row_bytes(self, sizes: Mapping[str, int], positions: int) -> int:
        """Size of the weights of one row, float32; arguments are those of shape."""
        return self.num_heads * math.prod(self.shape(sizes, positions)) * NUMBER_BYTES


class HiddenStateContract(_Part):
    """One output of the hidden graph, float32 [batch, position, dim]: what enters the first layer, or leaves a layer.

    Attributes:
        output: Its name in the hidden graph.
        layer: 0 for what enters the first layer, n for what leaves the n-th, as the transformers library counts its
            output_hidden_states.
        position_axis: A size where fixed, else the axis of an input, or derived from one.
        dim: Numbers of each vector.
    """

    output: str
    layer: int
    position_axis: int | str = SEQUENCE_AXIS
    dim: int = Field(gt=0)

    def positions(self, sizes: Mapping[str, int], positions: int) -> int:
        """How many positions it has; arguments are those of AttentionContract.shape."""
        return size_of_axis(self.position_axis, sizes, positions)

    def row_bytes(self, sizes: Mapping[str, int], positions: int) -> int:
        """Size of one row, float32; arguments are those of positions."""
        return self.positions(sizes, positions) * self.dim * NUMBER_BYTES


class RelevanceContract(_Part):
    """What a relevance graph gives: how much each position did for a score (see export/relevance).

    A score is a sum of the numbers of an ordinary output. By Libra what positions did, and the rest, make it up.

    Attributes:
        graph: By which method, which is its file, too (RELEVANCE_GRAPHS).
        output: Whose numbers the score is of, float32 [batch, column].
        weights: An input, float32 [batch, column]: what of each is in the score. A row of zeros, and a request without
            it, asks for the largest number alone.
        positions: An output, float32 [batch, position].
        position_axis: As of HiddenStateContract.
        rest: An output, float32 [batch]: what belongs to no position. None where both do not make up the score.
        score: An output, float32 [batch].
        scale: An input, float32 [batch]: what multiplies what enters the first layer; 1 without it. None for none.
        by_layer: An output of "layers", float32 [batch, num_layers + 1, position]: what each position did by what
            enters the first layer, and what leaves each. None for others.
        added: Likewise, float32 [batch, num_layers + 1]: what is added behind, which makes up the score with that.
        num_layers: Of "layers", how many there are; else 0.
    """

    graph: RelevanceGraph = "libra"
    output: str
    weights: str
    positions: str
    position_axis: int | str = SEQUENCE_AXIS
    rest: str | None = None
    score: str
    scale: str | None = None
    by_layer: str | None = None
    added: str | None = None
    num_layers: int = Field(default=0, ge=0)

    def num_positions(self, sizes: Mapping[str, int], positions: int) -> int:
        """How many positions it has; arguments are those of AttentionContract.shape."""
        return size_of_axis(self.position_axis, sizes, positions)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The further outputs of its graph."""
        return (self.positions, *filter(None, (self.rest, self.score, self.by_layer, self.added)))

    @property
    def file(self) -> str:
        """Of its graph."""
        return RELEVANCE_GRAPHS[self.graph]

    @property
    def methods(self) -> tuple[RelevanceMethod, ...]:
        """What its graph can do; that of layers does none that another has not."""
        match self.graph:
            case "gradient":
                return ("gradient", "integrated-gradients")
            case "layers":
                return ()
            case method:
                return (method,)


class SimilarityContract(_Part):
    """What similarity and parts graph give of a vector, by Libra (see export/relevance).

    Attributes:
        relevance: Of the similarity graph; the weights are another input's vector.
        chosen: An input of the parts graph, int64 [batch]: a position of each row, counted from 0. One below 0, and a
            request without it, asks for what belongs to no position.
        part: Its output, float32 [batch, dim]: what that adds to the vector. All parts of an input sum to it.
    """

    relevance: RelevanceContract
    chosen: str
    part: str


class DerivedAxis(_Part):
    """How many positions a network makes of those of an input: (n + offset) // unit, as convolutions do.

    Attributes:
        of: The input's axis, of n positions.
        least: What is made of the shortest inputs, which the graph fills up.
    """

    of: str
    unit: int = Field(gt=0)
    offset: int
    least: int = 0

    @property
    def name(self) -> str:
        """The rule, which is the axis's name in the graphs."""
        moved = f"{self.of} {'+' if self.offset > 0 else '-'} {abs(self.offset)}" if self.offset else self.of
        if self.unit == 1:
            return moved
        return f"({moved}) // {self.unit}" if self.offset else f"{moved} // {self.unit}"

    def size(self, positions: int) -> int:
        """Positions that are made of so many."""
        return max((positions + self.offset) // self.unit, self.least)


class PatchContract(_Part):
    """How positions lie on the image: prefix_tokens, then rows * cols patches of patch_size pixels, row by row."""

    prefix_tokens: int = Field(ge=0)
    rows: int = Field(gt=0, le=MAX_CELLS)
    cols: int = Field(gt=0, le=MAX_CELLS)
    patch_size: int = Field(gt=0)

    @property
    def positions(self) -> int:
        """How many there are, of both."""
        return self.prefix_tokens + self.rows * self.cols


class Origin(_Part):
    """Where a checkpoint was downloaded from.

    Attributes:
        repository: Its id on the Hugging Face hub, owner/name.
        revision: The commit, 40 hexadecimal digits.
    """

    repository: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")


class Contract(_Part):
    """Everything the server knows of a model besides its graphs.

    Attributes:
        labels: Class names in the order of the output "logits"; empty where there is no classifier.
        activation: What makes scores of the output "logits", as those who trained the network say; None where there is
            none, or nothing says so. Classify takes the softmax in any case.
        hidden_states: In the order of the layers; empty where they cannot be had.
        audio: How sound becomes the input, of an encoder-decoder that writes what is said. None for others.
        generation: How it writes, of an encoder-decoder; the plain graph is then its encoder. None for others.
        projected: Of a tower, a further output of the hidden graph: the last hidden state of each position, projected
            as the embedding is, into the space of both towers, but not normalised; its layer is the last.
        relevance: Of the graph by Libra; None where there is none.
        other_relevance: Of those by other methods.
        similarity: Of the embedding; None where its similarities cannot be explained.
        limits: Most positions of symbolic axes, by name.
        derived_axes: Axes of outputs whose size follows from an input's.
        precision: What the graphs compute in; their inputs and outputs are the same for all.
        files: sha256 in hexadecimal of every other file of the artifact, by name.
        origin: Of the network; None where it was not downloaded by its id.
        made_with: Versions of the libraries that made it.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(gt=0)
    family: str
    description: str = ""
    inputs: tuple[TensorContract, ...]
    outputs: tuple[TensorContract, ...]
    text: TextContract | None = None
    image: ImageContract | None = None
    audio: AudioContract | None = None
    labels: tuple[str, ...] = ()
    activation: Activation | None = None
    embedding: EmbeddingContract | None = None
    late: LateContract | None = None
    generation: GenerationContract | None = None
    attention: tuple[AttentionContract, ...] = ()
    hidden_states: tuple[HiddenStateContract, ...] = ()
    projected: HiddenStateContract | None = None
    relevance: RelevanceContract | None = None
    other_relevance: tuple[RelevanceContract, ...] = ()
    similarity: SimilarityContract | None = None
    patches: PatchContract | None = None
    precision: Precision = "float32"
    limits: dict[str, int] = {}
    derived_axes: tuple[DerivedAxis, ...] = ()
    files: dict[str, str]
    origin: Origin | None = None
    made_with: dict[str, str] = {}
    verification: tuple[Check, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()

    @property
    def writes_of_text(self) -> bool:
        """Whether it reads texts and writes others."""
        return self.generation is not None and self.text is not None

    @property
    def batched(self) -> bool:
        """Whether rows of different requests may share a run: the first axis of everything is the batch."""
        for spec in (*self.inputs, *self.outputs):  # noqa: SIM110 -- each request asks, and a generator is four calls
            if spec.axes[:1] != (BATCH_AXIS,):
                return False
        return True

    @property
    def positions(self) -> int:
        """Positions of a row: those of an image or of sound, or the most of a text; 1 where nobody knows."""
        if self.patches:
            return self.patches.positions
        if self.text:
            return self.text.max_tokens
        return (self.generation and self.generation.source_positions) or 1

    def axis_sizes(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """Sizes that the symbolic axes have with some inputs, by name; some may be left out."""
        sizes = dict[str, int]()
        for spec in self.inputs:
            if spec.name in inputs:
                for axis, size in zip(spec.axes, inputs[spec.name].shape, strict=True):
                    if isinstance(axis, str):
                        sizes[axis] = size
        for derived in self.derived_axes:
            if derived.of in sizes:
                sizes[derived.name] = derived.size(sizes[derived.of])
        return sizes

    @property
    def ranks(self) -> bool:
        """Whether it scores a pair of texts with one number, its only logit."""
        scores = next((spec.axes[1:] for spec in self.outputs if spec.name == "logits"), ())
        return self.text is not None and self.text.pairs and scores == (1,)

    @property
    def explained(self) -> tuple[RelevanceContract, ...]:
        """All relevance graphs, Libra's first."""
        return (*([self.relevance] if self.relevance else []), *self.other_relevance)

    @property
    def explaining_files(self) -> list[str]:
        """Of the relevance graphs, and of those of similarities and of written tokens."""
        of_tokens = [TOKEN_RELEVANCE_GRAPH] if self.explains_tokens else []
        of_pairs = [SIMILARITY_GRAPH, PARTS_GRAPH] if self.similarity else []
        return [*(one.file for one in self.explained), *of_pairs, *of_tokens]

    @property
    def explains_tokens(self) -> bool:
        """Whether it can say what each position did for a token that it writes."""
        return self.generation is not None and TOKEN_RELEVANCE_GRAPH in self.files

    @property
    def of_tokens(self) -> "Contract":
        """The same of the graph that explains written tokens: its inputs are these, and it has no ordinary outputs.

        Raises:
            ValueError: There is no such graph.
        """
        if self.generation is None or not self.explains_tokens:
            raise ValueError(f"{self.name} explains no tokens")
        of_token, names = (0, self.generation.vocab_size - 1), TOKEN_RELEVANCE
        ranges = {
            names.target_ids: of_token,
            names.target_lengths: (1, self.generation.max_positions),
            names.token: of_token,
        }
        axes = {names.target_ids: (BATCH_AXIS, TARGET_AXIS)}
        further = tuple(
            TensorContract(name=name, dtype="int64", axes=axes.get(name, (BATCH_AXIS,)), minimum=low, maximum=high)
            for name, (low, high) in ranges.items()
        )
        limits = {**self.limits, TARGET_AXIS: self.generation.max_positions}
        return self.model_copy(update={"inputs": (*self.inputs, *further), "outputs": (), "limits": limits})

    @property
    def label_methods(self) -> dict[RelevanceMethod, RelevanceContract]:
        """By which methods it can say what each position did for a label's logit, and the graph of each."""
        return {method: one for one in self._of_labels for method in one.methods}

    @property
    def label_layers(self) -> RelevanceContract | None:
        """The graph that says it by layer, by Libra; None where there is none."""
        return next((one for one in self._of_labels if one.graph == "layers"), None)

    @property
    def _of_labels(self) -> list[RelevanceContract]:
        return [one for one in self.explained if one.output == "logits"] if self.labels else []

    @property
    def explains_labels(self) -> bool:
        """Whether it can say what each position did for a label's logit, by any method."""
        return bool(self.label_methods)

    @property
    def tapped_outputs(self) -> list[str]:
        """The further outputs of the tapped graph."""
        names = [(layer.output, layer.value_norms) for layer in self.attention]
        return [name for pair in names for name in pair if name]

    @property
    def contributions(self) -> list[str]:
        """The further outputs of the contributions graph."""
        return [layer.contribution for layer in self.attention if layer.contribution]

    @property
    def hidden_outputs(self) -> tuple[HiddenStateContract, ...]:
        """The further outputs of the hidden graph."""
        return (*self.hidden_states, *([self.projected] if self.projected else []))

    @property
    def further_axes(self) -> dict[str, tuple[int | str | None, ...]]:
        """The axes of the further outputs of all graphs but the plain one, by name."""
        axes = dict[str, tuple[int | str | None, ...]]()
        for layer in self.attention:
            axes[layer.output] = (BATCH_AXIS, layer.num_heads, layer.query_axis, layer.key_axis)
            if layer.value_norms:
                axes[layer.value_norms] = (BATCH_AXIS, layer.num_heads, layer.key_axis)
            if layer.contribution:
                axes[layer.contribution] = (BATCH_AXIS, layer.query_axis, layer.key_axis)
        for why in (*self.explained, *([self.similarity.relevance] if self.similarity else [])):
            axes |= dict.fromkeys(why.outputs, (BATCH_AXIS,)) | {why.positions: (BATCH_AXIS, why.position_axis)}
            if why.by_layer and why.added:
                depths = why.num_layers + 1
                axes |= {why.by_layer: (BATCH_AXIS, depths, why.position_axis), why.added: (BATCH_AXIS, depths)}
        if self.similarity and self.embedding:
            axes[self.similarity.part] = (BATCH_AXIS, self.embedding.dim)
        if self.generation and self.explains_tokens:
            axes |= self.generation.token_relevance_axes
        return axes | {state.output: (BATCH_AXIS, state.position_axis, state.dim) for state in self.hidden_outputs}

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        outputs = {spec.name for spec in self.outputs}
        if outside := [name for name in self.files if not _is_file_name(name)]:
            raise ValueError(f"files: {outside[0]!r}: expected names of files in the artifact's own folder")
        if self.labels and "logits" not in outputs:
            raise ValueError("labels: given without an output named logits")
        if self.embedding and self.embedding.output not in outputs:
            raise ValueError(f"embedding.output: {self.embedding.output!r} is no output")
        self._check_relevance(outputs)
        if self.similarity and (self.embedding is None or self.embedding.output != self.similarity.relevance.output):
            found = self.similarity.relevance.output
            raise ValueError(f"similarity.relevance.output: {found!r}; expected that of embedding")
        if self.late:
            self._check_late(self.late)
        if self.generation:
            self._check_generation(self.generation)
        if self.projected and not self.hidden_states:
            raise ValueError("projected: given without hidden_states")
        if self.audio:
            self._check_audio(self.audio)
        if self.image and not self.patches:
            raise ValueError("patches: missing; expected the grid of the images")
        if self.text and self.text.tokenizer_file not in self.files:
            raise ValueError(f"text.tokenizer_file: {self.text.tokenizer_file!r} is none of files")
        self._check_grids()
        self._check_class_attention()
        return self

    def _check_relevance(self, outputs: set[str]) -> None:
        if self.relevance and self.relevance.graph != "libra":
            raise ValueError(f"relevance.graph: {self.relevance.graph!r}; expected 'libra', others in other_relevance")
        seen = {"libra"}
        for one in self.other_relevance:
            if one.graph in seen:
                raise ValueError(f"other_relevance: {one.graph!r}; expected each once, and 'libra' in relevance")
            seen.add(one.graph)
            if one.graph == "gradient" and one.scale is None:
                raise ValueError("other_relevance: 'gradient' without scale")
            given = {"rest": one.rest, "by_layer": one.by_layer, "added": one.added, "num_layers": one.num_layers}
            if one.graph == "layers" and (missing := [name for name, value in given.items() if not value]):
                raise ValueError(f"other_relevance: 'layers' without {missing[0]}")
        for one in self.explained:
            if one.output not in outputs:
                raise ValueError(f"relevance.output: {one.output!r} is no output")
        if self.relevance and self.relevance.rest is None:
            raise ValueError("relevance.rest: missing; expected that of Libra, which is complete")

    def _check_generation(self, generation: GenerationContract) -> None:
        axes, given = generation.source_axes, {spec.name: spec.axes for spec in self.outputs}
        for name in generation.source_names:
            if (found := given.get(name, ())) != axes:
                raise ValueError(f"generation: output {name!r} is {list(found)}; expected {list(axes)}")
        if generation.tokenizer_file not in self.files:
            raise ValueError(f"generation.tokenizer_file: {generation.tokenizer_file!r} is none of files")
        if DECODER_GRAPH not in self.files:
            raise ValueError(f"generation: given without {DECODER_GRAPH} among files")

    def _check_audio(self, audio: AudioContract) -> None:
        expected, found = (BATCH_AXIS, audio.num_mel_bins, audio.num_frames), [spec.axes for spec in self.inputs]
        if found != [expected]:
            shown = ", ".join(str(list(axes)) for axes in found)
            raise ValueError(f"audio: the inputs are {shown}; expected one of {list(expected)}")
        if self.generation is None or self.generation.source_positions is None:
            raise ValueError("audio: given without generation.source_positions")

    def _check_grids(self) -> None:
        """Compare the grids of patches and of windows with the edges of the images."""
        pixels = next((spec for spec in self.inputs if len(spec.axes) == _IMAGE_AXES), None)
        crop = (self.image.crop_size, self.image.crop_size) if self.image else None
        given = (pixels.axes[-2], pixels.axes[-1]) if pixels else (None, None)
        edges = (given[0], given[1]) if isinstance(given[0], int) and isinstance(given[1], int) else crop
        if edges is None:
            return
        if crop and pixels and edges != crop:
            found = " x ".join(map(str, edges))
            raise ValueError(f"image.crop_size: {crop[0]}; expected the edges of {pixels.name}, {found}")
        if grid := self.patches:
            check_grid("patches", (grid.rows, grid.cols), grid.patch_size, edges)
        for one in self.attention:
            if window := one.window:
                field = f"attention.{one.layer}.window"
                check_grid(field, (window.rows, window.cols), window.cell_size, edges, overhangs=True)

    def _check_class_attention(self) -> None:
        """Compare the keys of class attention with the patches, which have no class token among them."""
        for one in self.attention:
            if one.class_attention and (self.patches is None or one.key_axis != self.patches.positions + 1):
                expected = f"{self.patches.positions + 1} keys" if self.patches else "none without patches"
                raise ValueError(f"attention.{one.layer}.class_attention: {one.key_axis} keys; expected {expected}")
            if one.class_attention and self.patches and self.patches.prefix_tokens:
                raise ValueError(f"attention.{one.layer}.class_attention: given with patches.prefix_tokens")

    def _check_late(self, late: LateContract) -> None:
        axes = {spec.name: spec.axes for spec in self.outputs}.get(late.output)
        if axes != (BATCH_AXIS, SEQUENCE_AXIS, late.dim):
            raise ValueError(f"late.output: {late.output!r} is {axes}; expected [batch, seq_len, {late.dim}]")
        longest = max(late.query_tokens, late.document_tokens)
        if self.text is None or self.text.pairs or longest != self.text.max_tokens:
            raise ValueError("late: expected single texts of at most as many tokens as queries or documents")


def size_of_axis(axis: int | str | None, sizes: Mapping[str, int], positions: int) -> int:
    """The size of an axis of positions; a symbolic one that is not among the sizes has the positions."""
    return axis if isinstance(axis, int) else sizes.get(axis or "", positions)


def _is_file_name(name: str) -> bool:
    """Whether it names a file in the folder that it is put after, on POSIX and on Windows, and nothing else."""
    is_device = name.partition(".")[0].rstrip().upper() in _WINDOWS_DEVICES
    return not is_device and not name.endswith((".", " ")) and bool(name) and not set(name) & _NOT_IN_FILE_NAMES


def read_contract(path: Path) -> Contract:
    """Read and check a contract.

    Raises:
        ContractError: The file is absent, not JSON, or a field is wrong.
    """
    return read_as(Contract, path)


def read_as(kind: type[Read], path: Path) -> Read:
    """Read and check a file of a kind of contract; raises as read_contract."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_as(kind, content, str(path))


def parse_as(kind: type[Read], content: bytes, place: str) -> Read:
    """Check the content of a file of a kind of contract, which messages call by its place; raises as read_contract."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ContractError(f"{place}: {explain(error)}") from error
