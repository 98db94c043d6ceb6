"""How an encoder-decoder writes, as its contract says: the decoder's graph, and the tokens it begins and ends with."""

from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Names of the decoder graph's inputs and outputs; those of layers end in a dot and the layer's number.
TOKENS, LENGTHS, SOURCE_LENGTHS, LOGITS = "input_ids", "lengths", "source_lengths", "logits"
SELF_KEY, SELF_VALUE, NEXT_KEY, NEXT_VALUE = "self_key", "self_value", "next_key", "next_value"
CROSS_KEY, CROSS_VALUE = "cross_key", "cross_value"  # outputs of the encoder's graph, too
SELF_QUERY, CROSS_QUERY = "self_query", "cross_query"
SELF_BIAS = "self_bias"  # of the first layers, see GenerationContract.self_biases
TARGET_AXIS = "target_len"  # of what was written, in the token relevance graph
MAX_LENGTH_PENALTY = 16.0  # a power of lengths, of which larger ones overflow
# When beam search ends; the library's words: see GenerationContract.early_stopping.
EarlyStopping = bool | Literal["never"]
_MAX_SHOWN = 10  # of a list that is refused
_MAX_TOKENS, _MAX_LISTED, _MAX_LAYERS, _MAX_WIDTH, _MAX_POSITIONS = 2**20, 4096, 1024, 2**20, 2**20


class _TokenRelevance(NamedTuple):
    """Names of what the token relevance graph takes besides the encoder's inputs, and of what it gives.

    Each row is one token that was written: what the positions of the source, and of all that stood before the token,
    did for its logit, by Libra (see export/relevance). Both and the rest make it up.

    Attributes:
        target_ids: Int64 [batch, target_len]: what was written, with what it begins with; padded at the right.
        target_lengths: Int64 [batch]: how many of these are before the token, 1 at least.
        token: Int64 [batch]: the token.
        source: Float32 [batch, seq_len], or source_positions in place of seq_len.
        target: Float32 [batch, target_len]; 0 where nothing was written yet.
        rest: Float32 [batch]: what belongs to no position.
        score: Float32 [batch]: the logit.
    """

    target_ids: str = "target_ids"
    target_lengths: str = "target_lengths"
    token: str = "token"  # noqa: S105 -- no secret
    source: str = "relevance.source"
    target: str = "relevance.target"
    rest: str = "relevance.rest"
    score: str = "relevance.score"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it takes besides the encoder's."""
        return (self.target_ids, self.target_lengths, self.token)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that it gives."""
        return (self.source, self.target, self.rest, self.score)


TOKEN_RELEVANCE = _TokenRelevance()


class GenerationContract(BaseModel):
    """How an encoder-decoder writes, a token at a time.

    The encoder's graph gives each decoder layer's keys and values of the source, "cross_key.0" and so on, float32
    [batch, num_heads, seq_len, head_dim], or source_positions in place of seq_len. The decoder's graph takes one token
    of each row:

    - "input_ids", int64 [batch, 1]; "lengths", int64 [batch], how many tokens of the row are cached; "source_lengths",
      int64 [batch];
    - of each layer "self_key.N" and "self_value.N", the caches, float32 [batch, num_heads, cache, head_dim], and
      "cross_key.N" and "cross_value.N", float32 [batch, num_heads, source, head_dim]; what lies at a row's length or
      beyond is not read.

    It gives "logits", float32 [batch, vocab_size]; the caches with the token written at its row's length, "next_key.N"
    and "next_value.N", which may be the memory of those taken; and what attention is computed from: "self_query.N" and
    "cross_query.N", float32 [batch, num_heads, 1, head_dim]. The weights are softmax(scale q k) over the cached keys,
    that of this token included, or over the source's. Where positions are told by a bias of self attention, it gives
    "self_bias.N", float32 [batch, num_heads, cache], too, and these weights are softmax(scale q k + self_bias).

    Attributes:
        num_layers: Of the decoder.
        num_heads: Of each of its layers, for both kinds of attention.
        head_dim: Numbers of a key.
        scale: What q k is multiplied by.
        self_biases: How many biases of self attention a step has: 0 for none, 1 for one that all layers share,
            num_layers for one of each.
        vocab_size: Tokens that may be written.
        starts: What it may begin with, by name: the tokens that the decoder reads first.
        chosen_starts: Further names, each of some starts of one length: of these the likeliest is taken, token by
            token, as a network that hears tells languages apart.
        default_start: The name of that which is taken where none is asked for.
        forced_start_tokens: How many of the last tokens of each start count where beams are ranked by their lengths.
        end_tokens: After any of these it has ended.
        forced_end_token: Is the last token of a text that is as long as may be; None where any may be.
        pad_token: What stands behind the end of a row.
        max_tokens: The most that may be written, what it begins with not counted.
        tokenizer_file: A file of the tokenizers library that turns tokens into text.
        suppressed_tokens: Are never written, but for an end that is forced.
        first_suppressed_tokens: Are not written first.
        num_beams: How many beginnings are kept unless a request says otherwise; 1 for greedy.
        length_penalty: Results are ranked by log-probability / length ^ length_penalty; a request may say otherwise.
        early_stopping: When beam search ends: as soon as num_beams have ended (True), or when what goes on would not be
            among the results if it ended now (False), or at the best of all lengths ("never").
        alignment_heads: Layer and head of those whose cross attention says when a word is spoken, of a network that
            hears; none where nobody has said which.
        source_positions: How many keys every source has, of a network that reads inputs of one size; None where a
            source has as many as it has tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_layers: int = Field(gt=0, le=_MAX_LAYERS)
    num_heads: int = Field(gt=0, le=_MAX_WIDTH)
    head_dim: int = Field(gt=0, le=_MAX_WIDTH)
    scale: float = Field(gt=0, allow_inf_nan=False)
    self_biases: int = Field(default=0, ge=0)
    vocab_size: int = Field(gt=0)
    starts: dict[str, tuple[int, ...]]
    chosen_starts: dict[str, tuple[str, ...]] = {}
    default_start: str
    forced_start_tokens: int = Field(default=0, ge=0)
    end_tokens: tuple[int, ...]
    forced_end_token: int | None = None
    pad_token: int = Field(ge=0)
    max_tokens: int = Field(gt=0, le=_MAX_TOKENS)
    tokenizer_file: str
    suppressed_tokens: tuple[int, ...] = ()
    first_suppressed_tokens: tuple[int, ...] = ()
    num_beams: int = Field(default=1, gt=0)
    length_penalty: float = Field(default=1.0, ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)
    early_stopping: EarlyStopping = False
    alignment_heads: tuple[tuple[int, int], ...] = ()
    source_positions: int | None = Field(default=None, gt=0, le=_MAX_POSITIONS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= len(self.starts) <= _MAX_LISTED or not all(self.starts.values()):
            raise ValueError(f"starts: {len(self.starts)}; expected 1 to {_MAX_LISTED}, of one token or more each")
        self._check_chosen_starts()
        if self.default_start not in self.start_names:
            raise ValueError(f"default_start: {self.default_start!r}; expected one of starts or of chosen_starts")
        if self.forced_start_tokens >= min(map(len, self.starts.values())):
            raise ValueError(f"forced_start_tokens: {self.forced_start_tokens}; expected fewer than each start has")
        if self.self_biases not in (0, 1, self.num_layers):
            raise ValueError(f"self_biases: {self.self_biases}; expected 0, 1 or num_layers, {self.num_layers}")
        for layer, head in self.alignment_heads:
            if not (0 <= layer < self.num_layers and 0 <= head < self.num_heads):
                layers = f"a layer below {self.num_layers} and a head below {self.num_heads}"
                raise ValueError(f"alignment_heads: [{layer}, {head}]; expected {layers}")
        if not self.end_tokens:
            raise ValueError("end_tokens: empty; expected one or more")
        listed = {
            "starts": [token for tokens in self.starts.values() for token in tokens],
            "end_tokens": self.end_tokens,
            "forced_end_token": () if self.forced_end_token is None else (self.forced_end_token,),
            "pad_token": (self.pad_token,),
            "suppressed_tokens": self.suppressed_tokens,
            "first_suppressed_tokens": self.first_suppressed_tokens,
        }
        for name, tokens in listed.items():
            if outside := [token for token in tokens if not 0 <= token < self.vocab_size]:
                raise ValueError(f"{name}: {outside[0]}; expected a token below vocab_size, {self.vocab_size}")
        return self

    @field_validator("early_stopping", mode="before")
    @classmethod
    def _check_early_stopping(cls, value: object) -> object:
        if not isinstance(value, bool) and value != "never":
            raise ValueError(f"{value!r}; expected true, false or 'never'")
        return value

    def _check_chosen_starts(self) -> None:
        """Raise ValueError where it cannot be chosen: nothing is known before the first token is read."""
        if len(self.chosen_starts) > _MAX_LISTED:
            raise ValueError(f"chosen_starts: {len(self.chosen_starts)}; expected at most {_MAX_LISTED}")
        for name, of in self.chosen_starts.items():
            shapes = {(len(tokens), tokens[0]) for one in of if (tokens := self.starts.get(one))}
            is_new, are_known = name and name not in self.starts, set(of) <= set(self.starts)
            if not is_new or not are_known or len(shapes) != 1 or len(set(of)) < len(of):
                expected = (
                    "another name than any of starts, and some of these, once each, of one length and first token"
                )
                raise ValueError(f"chosen_starts: {name!r}: {list(of)[:_MAX_SHOWN]}; expected {expected}")

    @property
    def start_names(self) -> list[str]:
        """The names of all that it may begin with."""
        return [*self.starts, *self.chosen_starts]

    def names_of_start(self, name: str = "") -> tuple[str, ...]:
        """The name of a start, or of all of which it is chosen; without a name, of the default."""
        name = name or self.default_start
        return self.chosen_starts.get(name, (name,))

    def beginnings(self, name: str = "") -> tuple[tuple[int, ...], ...]:
        """The tokens of each of names_of_start."""
        return tuple(self.starts[one] for one in self.names_of_start(name))

    @property
    def max_positions(self) -> int:
        """The most tokens that the decoder reads: what it begins with, and all that it writes but the last."""
        return self.max_tokens + max(map(len, self.starts.values())) - 1

    @property
    def source_axes(self) -> tuple[int | str, ...]:
        """The axes of the keys and values of the source."""
        return ("batch", self.num_heads, self.source_positions or "seq_len", self.head_dim)

    @property
    def token_relevance_axes(self) -> dict[str, tuple[int | str | None, ...]]:
        """The axes of what the token relevance graph gives, by name."""
        names = TOKEN_RELEVANCE
        positions = {names.source: self.source_positions or "seq_len", names.target: TARGET_AXIS}
        return {name: ("batch", positions[name]) if name in positions else ("batch",) for name in names.outputs}

    @property
    def source_names(self) -> list[str]:
        """The names of the keys and values of the source."""
        return names_of_layers((CROSS_KEY, CROSS_VALUE), self.num_layers)

    @property
    def step_inputs(self) -> list[str]:
        """The names of what the decoder's graph takes, in its order."""
        kinds = (SELF_KEY, SELF_VALUE, CROSS_KEY, CROSS_VALUE)
        return [TOKENS, LENGTHS, SOURCE_LENGTHS, *names_of_layers(kinds, self.num_layers)]

    @property
    def step_outputs(self) -> list[str]:
        """The names of what it gives."""
        kinds = (NEXT_KEY, NEXT_VALUE, SELF_QUERY, CROSS_QUERY)
        return [LOGITS, *names_of_layers(kinds, self.num_layers), *self.bias_names]

    @property
    def bias_names(self) -> list[str]:
        """The names of the biases of self attention among them."""
        return names_of_layers((SELF_BIAS,), self.self_biases)

    def bias_name(self, kind: str, layer: int) -> str | None:
        """The name of the bias of a layer's "self" or "cross" attention; None where it has none."""
        return self.bias_names[min(layer, self.self_biases - 1)] if self.self_biases and kind == "self" else None

    def row_bytes(self, tokens: int, source_tokens: int) -> int:
        """Bytes of the caches of one row, float32."""
        return 2 * self.num_layers * self.num_heads * self.head_dim * (tokens + source_tokens) * 4


def names_of_layers(kinds: tuple[str, ...], num_layers: int) -> list[str]:
    """Name what each layer takes or gives: of all kinds of the first layer, then of the next."""
    return [f"{kind}.{layer}" for layer in range(num_layers) for kind in kinds]
