"""Parts this repository's own encoder-decoders into what an artifact has: what reads, and one step of what writes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from artifact.audio_contract import AudioContract
from artifact.contract import BATCH_AXIS, SEQUENCE_AXIS
from artifact.generation import CROSS_KEY, CROSS_VALUE, TOKENS, GenerationContract, names_of_layers
from export.letters import make_letters, make_spelling
from export.next_token import NextToken, OwnNextToken
from export.step import Form, LayerCache, LayerStep, Step
from export.traits import InputSpec, Traits
from model.attention import Attend, KeysValues, explained_attention, fused_attention
from model.checkpoint import CheckpointError, load_encoder_decoder, read_json
from model.encoder_decoder import EncoderDecoder

OWN_ENCODER_DECODER = "regard-encoder-decoder"
TARGET_TOKENIZER_FILE = "target_tokenizer.json"
_FURTHER_START = re.compile(r"<(\w+)>")

# Takes the encoder's inputs, and int64 [B, T] target ids; returns the logits, float [B, T, V], and each layer's weights
# of self attention, float [B, H, T, T], and of cross attention, float [B, H, T, S].
Explain = Callable[..., tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]]


@dataclass(frozen=True, eq=False)
class Writing:
    """How an encoder-decoder writes, as it is exported.

    Attributes:
        step: One step of the decoder.
        explain: Runs it on whole sequences, without caches.
        next_token: Tells a token's logit likewise, to explain it.
        generation: For the contract.
        max_positions: The most tokens that the decoder reads, its start included.
        tokenizer: A file of the tokenizers library for what is read, its content; None where no text is.
        target_tokenizer: Likewise for what is written.
        audio: How sound is read, where that is; None where texts are.
    """

    step: Step
    explain: Explain
    next_token: NextToken
    generation: GenerationContract
    max_positions: int
    tokenizer: str | None
    target_tokenizer: str
    audio: AudioContract | None = None


MASK = "attention_mask"


def name_source(layers: Sequence[KeysValues]) -> dict[str, Tensor]:
    """Name each decoder layer's keys and values of the source, as the encoder's graph gives them."""
    names = names_of_layers((CROSS_KEY, CROSS_VALUE), len(layers))
    return dict(zip(names, (tensor for layer in layers for tensor in layer), strict=True))


class Reader(nn.Module):
    """The half that reads, as the plain graph has it: token ids to each decoder layer's keys and values of them."""

    input_names = (TOKENS, MASK)

    def __init__(self, network: EncoderDecoder) -> None:
        """Take the encoder, and what projects its output once for all steps."""
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Read int64 [B, S] with a mask of 1 and 0."""
        return self._read(input_ids, attention_mask, fused_attention)[0]

    def explain(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return each layer's weights, too."""
        return self._read(input_ids, attention_mask, explained_attention)[:2]

    def show_states(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the hidden states, too."""
        outputs, _, states = self._read(input_ids, attention_mask, fused_attention)
        return outputs, states

    def _read(
        self, input_ids: Tensor, attention_mask: Tensor, attend: Attend
    ) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        x = self.network.embed_source(input_ids)
        hidden, attentions, states = self.network.encoder(x, attention_mask.bool(), attend)
        return name_source(self.network.decoder.read_source(hidden)), attentions, states


class OwnStep(nn.Module):
    """One step of a decoder of model/."""

    def __init__(self, network: EncoderDecoder) -> None:
        """Take the decoder, its embeddings and its output layer."""
        super().__init__()
        self.network = network

    def forward(
        self, tokens: Tensor, lengths: Tensor, source_lengths: Tensor, layers: Sequence[LayerCache], form: Form
    ) -> tuple[Tensor, list[LayerStep]]:
        """See Step."""
        network, positions = self.network, lengths[:, None]
        x, given = network.embed_target(tokens, positions), list[LayerStep]()
        for layer, cache in zip(network.decoder.layers, layers, strict=True):
            own = (cache.own, lengths + 1, positions)
            x, self_query, cross_query, written = layer(x, cache.source, source_lengths, *own, form.attend, form.write)
            given.append(LayerStep(written, self_query, cross_query))
        return network.logits(network.decoder.final_norm(x))[:, 0], given


def load_own(folder: Path) -> tuple[Reader, Traits, Writing]:
    """Read a checkpoint folder that save_encoder_decoder wrote.

    Raises:
        CheckpointError: It cannot be read, or its vocabulary does not say how text is read and written.
    """
    network = load_encoder_decoder(folder)
    config, vocabulary = network.config, _read_vocabulary(folder, network)
    decoder, starts = config.decoder, _name_starts(network, vocabulary)
    generation = GenerationContract(
        num_layers=decoder.num_layers,
        num_heads=decoder.num_heads,
        head_dim=decoder.embed_dim // decoder.num_heads,
        scale=(decoder.embed_dim // decoder.num_heads) ** -0.5,
        vocab_size=config.vocab_size,
        starts=starts,
        default_start=next(iter(starts)),
        end_tokens=(config.end_token,),
        pad_token=config.pad_token,
        max_tokens=decoder.max_positions - 1,
        tokenizer_file=TARGET_TOKENIZER_FILE,
    )
    axes = (BATCH_AXIS, SEQUENCE_AXIS)
    ids = InputSpec(TOKENS, axes, "int64", bound=config.vocab_size)
    traits = Traits((ids, InputSpec(MASK, axes, "int64", bound=2, mask=True)), config.encoder.max_positions)
    special = [config.pad_token, config.end_token, *(token for start in starts.values() for token in start)]

    def explain(source_ids: Tensor, mask: Tensor, target_ids: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        logits, _, own, cross = network.explain(source_ids, mask, target_ids)
        return logits, own, cross

    try:
        letters = make_letters(vocabulary, config.end_token)
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    spelling = make_spelling(vocabulary, special)
    writing = Writing(
        OwnStep(network), explain, OwnNextToken(network), generation, decoder.max_positions, letters, spelling
    )
    return Reader(network), traits, writing


def _read_vocabulary(folder: Path, network: EncoderDecoder) -> list[str]:
    file = folder / "config.json"
    vocabulary, wanted = read_json(file).get("vocabulary"), network.config.vocab_size
    if network.config.source_vocab_size is not None:
        found = network.config.source_vocab_size
        raise CheckpointError(f"{file}: source_vocab_size: {found}; expected one vocabulary for both sides")
    if not isinstance(vocabulary, list) or not all(isinstance(token, str) for token in vocabulary):
        raise CheckpointError(f"{file}: vocabulary: {type(vocabulary).__name__}; expected a list of {wanted} texts")
    if not len(set(vocabulary)) == len(vocabulary) == wanted:
        raise CheckpointError(f"{file}: vocabulary: {len(set(vocabulary))} tokens; expected vocab_size, {wanted}")
    return vocabulary


def _name_starts(network: EncoderDecoder, vocabulary: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """What the decoder may begin with: "plain", and each other token in angle brackets, without these."""
    config = network.config
    taken = (config.start_token, config.end_token, config.pad_token)
    named = ((_FURTHER_START.fullmatch(text), token) for token, text in enumerate(vocabulary) if token not in taken)
    return {"plain": (config.start_token,), **{found[1]: (token,) for found, token in named if found}}
