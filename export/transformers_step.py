"""One step of a decoder of the transformers library: its own code, with other attention and another cache.

The library asks a cache to take keys and values, and a registered function for attention. Both are ours here, and do
what a Form says.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import EncoderDecoderCache

from export.step import Form, LayerCache, LayerStep
from export.transformers_parts import Parts
from model.attention import KeysValues

_ATTENTION = "regard_step"


@dataclass(eq=False)
class _Now:
    """What the step that is being taken reads and gives."""

    form: Form
    lengths: Tensor
    source_lengths: Tensor
    layers: Sequence[LayerCache]
    biases: Sequence[Tensor] = ()  # of self attention, float [B, H, 1, L]: one for all layers, or one for each
    written: dict[int, KeysValues] = field(default_factory=dict)
    self_queries: dict[int, Tensor] = field(default_factory=dict)
    cross_queries: dict[int, Tensor] = field(default_factory=dict)


class _OwnCache:
    """Takes keys and values of this step's token."""

    is_compileable = False

    def __init__(self, now: _Now) -> None:
        self.now = now

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are told by _Positions."""
        return 0

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write; return all."""
        write, cached, positions = self.now.form.write, self.now.layers[layer_idx].own, self.now.lengths[:, None]
        written = KeysValues(write(cached.key, key, positions), write(cached.value, value, positions))
        self.now.written[layer_idx] = written
        return written


@dataclass(eq=False)
class _SourceLayer:
    keys: Tensor
    values: Tensor


@dataclass(eq=False)
class _SourceCache:
    """Has the source's keys and values."""

    layers: list[_SourceLayer]


class _StepCache(EncoderDecoderCache):
    """What the library asks for both."""

    is_sliding = is_linear = is_dummy = ()  # of layers that are not as usual, there are none

    def __init__(self, now: _Now) -> None:
        self.self_attention_cache: Any = _OwnCache(now)
        self.cross_attention_cache: Any = _SourceCache([_SourceLayer(*layer.source) for layer in now.layers])
        self.is_updated = dict.fromkeys(range(len(now.layers)), True)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """See _OwnCache."""
        return 0


class _Positions(nn.Module):
    """A decoder's encoding of positions, of each row where its token is."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self.now: _Now | None = None

    def forward(self, given: Any, *_: Any, **__: Any) -> Tensor:
        """Return float [B, 1, D]."""
        encoded: Tensor = self.own(given, position_ids=self.now.lengths if self.now else None)
        return encoded.reshape(-1, 1, encoded.shape[-1])


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float,
    regard_now: _Now,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as the form says, to the source or to what is cached."""
    del mask
    layer, now = module.layer_idx, regard_now
    crosses = key is now.layers[layer].source.key
    (now.cross_queries if crosses else now.self_queries)[layer] = query
    lengths = now.source_lengths if crosses else now.lengths + 1
    if not now.biases:  # scaled by 1 / sqrt(d)
        return now.form.attend(query, key, value, lengths)[0].transpose(1, 2), None
    bias = None if crosses else now.biases[min(layer, len(now.biases) - 1)]
    return now.form.attend(query, key, value, lengths, scale=scaling, bias=bias)[0].transpose(1, 2), None


AttentionInterface.register(_ATTENTION, _attend)


class LibraryStep(nn.Module):
    """A step of a network with a head for words: positions are added, as BART does it, or are a bias, as in T5."""

    masks: ClassVar[tuple[str, ...]] = ("attention_mask", "encoder_attention_mask")  # that the decoder takes

    def __init__(self, network: Any, parts: Parts) -> None:
        """Take a network in evaluation mode, of which the weights are shared and nothing is changed."""
        super().__init__()
        self.biases, self.output_scale = nn.ModuleList(parts.biases), parts.output_scale
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self.network: Any = copy.deepcopy(network, shared)
        self.network.set_attn_implementation(_ATTENTION)
        decoder = self.network.get_decoder()
        if not parts.biases:
            decoder.embed_positions = _Positions(decoder.embed_positions)

    def forward(
        self, tokens: Tensor, lengths: Tensor, source_lengths: Tensor, layers: Sequence[LayerCache], form: Form
    ) -> tuple[Tensor, list[LayerStep]]:
        """See Step."""
        biases = [bias(lengths, layers[0].own.key.shape[2]) for bias in self.biases]
        now, decoder = _Now(form, lengths, source_lengths, layers, biases), self.network.get_decoder()
        if not biases:
            decoder.embed_positions.now = now
        unused = torch.zeros(1, 1, 1, 1)  # masks in four dimensions are taken as they are
        answer = decoder(
            input_ids=tokens,
            encoder_hidden_states=unused[0],
            **dict.fromkeys(self.masks, unused),
            past_key_values=_StepCache(now),
            use_cache=True,
            regard_now=now,  # goes down to _attend
        )
        if not biases:
            decoder.embed_positions.now = None
        own = dict(enumerate(bias[:, :, 0] for bias in biases))
        given = [
            LayerStep(now.written[layer], now.self_queries[layer], now.cross_queries[layer], own.get(layer))
            for layer in range(len(layers))
        ]
        hidden = answer.last_hidden_state
        scaled = hidden if self.output_scale == 1 else hidden * self.output_scale
        return tell_logits(self.network, scaled)[:, 0], given


def tell_logits(network: Any, hidden: Tensor) -> Tensor:
    """How likely each token is to follow, float [B, T, D] to [B, T, V]."""
    logits: Tensor = network.get_output_embeddings()(hidden)
    bias = getattr(network, "final_logits_bias", None)
    return logits if bias is None else logits + bias
