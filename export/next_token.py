"""What relevance of written tokens is made from: the logit of one token behind a text so far, by whole sequences."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn

from artifact.contract import BATCH_AXIS
from artifact.generation import TARGET_AXIS, TOKEN_RELEVANCE, GenerationContract
from export.graph import to_onnx
from export.relevance.tokens import LOGIT, SOURCE, TARGET
from export.traits import InputSpec, Traits
from model.attention import explained_attention
from model.encoder_decoder import EncoderDecoder


class NextToken(nn.Module, ABC):
    """A network that reads a source and a text so far, and tells the logit of one token behind it."""

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Take the encoder's inputs, int64 [B, T] target ids, int64 [B] lengths of these, and int64 [B] tokens.

        Returns:
            The logit, float [B], and what enters the first layer of the encoder and of the decoder, float [B, S, D] and
            [B, T, D].
        """
        *source, target_ids, lengths, token = inputs
        embedded_source, embedded_target, hidden = self.decode(source, target_ids)
        last = torch.arange(target_ids.shape[1]) == lengths[:, None] - 1  # [B, T]
        state = (last.to(hidden.dtype)[:, None] @ hidden).squeeze(1)  # [B, D]
        weight, bias = self.output()
        logit = (state * weight[token]).sum(-1)
        if bias is not None:
            logit = logit + bias[token]
        return {LOGIT: logit, SOURCE: embedded_source, TARGET: embedded_target}

    @abstractmethod
    def decode(self, source: Sequence[Tensor], target_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what enters both first layers, and what the output layer takes, float [B, T, D]."""

    @abstractmethod
    def output(self) -> tuple[Tensor, Tensor | None]:
        """Return the output layer's weights, float [V, D], and its bias, float [V]."""


class OwnNextToken(NextToken):
    """Of a network of model/."""

    def __init__(self, network: EncoderDecoder) -> None:
        """Take it in evaluation mode."""
        super().__init__()
        self.network = network

    def decode(self, source: Sequence[Tensor], target_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See NextToken."""
        network, (source_ids, mask) = self.network, source
        read, written = network.embed_source(source_ids), network.embed_target(target_ids, None)
        hidden, _, _ = network.encoder(read, mask.bool(), explained_attention)
        keys_values = network.decoder.read_source(hidden)
        return read, written, network.decoder(written, keys_values, mask.bool(), None, explained_attention).hidden

    def output(self) -> tuple[Tensor, Tensor | None]:
        """See NextToken."""
        network = self.network
        return (network.tokens if network.output is None else network.output).weight, network.output_bias


class LibraryNextToken(NextToken):
    """Of a network of the transformers library with eager attention."""

    def __init__(self, network: Any, input_names: Sequence[str], output_scale: float) -> None:
        """Take it in evaluation mode, the names of the encoder's inputs, and what the decoder's output is scaled by."""
        super().__init__()
        self.network, self.input_names, self.output_scale = network, tuple(input_names), output_scale

    def decode(self, source: Sequence[Tensor], target_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See NextToken."""
        network, given = self.network, dict(zip(self.input_names, source, strict=True))
        read = network.get_encoder()(**given, return_dict=True, output_hidden_states=True)
        masks = {"encoder_attention_mask": given["attention_mask"]} if "attention_mask" in given else {}
        written = network.get_decoder()(
            input_ids=target_ids,
            encoder_hidden_states=read.last_hidden_state,
            **masks,
            use_cache=False,
            return_dict=True,
            output_hidden_states=True,
        )
        hidden = written.last_hidden_state * self.output_scale
        return read.hidden_states[0], written.hidden_states[0], hidden

    def output(self) -> tuple[Tensor, Tensor | None]:
        """See NextToken."""
        layer, further = self.network.get_output_embeddings(), getattr(self.network, "final_logits_bias", None)
        return layer.weight, layer.bias if further is None else further[0]


def traits_of_tokens(traits: Traits, generation: GenerationContract, max_positions: int) -> Traits:
    """Describe what NextToken takes: the inputs of the encoder, and those of the token relevance graph."""
    axes, names = (BATCH_AXIS, TARGET_AXIS), TOKEN_RELEVANCE
    return replace(
        traits,
        inputs=(
            *traits.inputs,
            InputSpec(names.target_ids, axes, "int64", bound=generation.vocab_size),
            InputSpec(names.target_lengths, (BATCH_AXIS,), "int64", bound=max_positions + 1),
            InputSpec(names.token, (BATCH_AXIS,), "int64", bound=generation.vocab_size),
        ),
        other_axes={**(traits.other_axes or {}), TARGET_AXIS: max_positions},
    )


def trace_next_token(network: NextToken, traits: Traits) -> ModelProto:
    """Trace it, with any number of rows, source positions and target positions.

    Args:
        network: In evaluation mode.
        traits: See traits_of_tokens.

    Raises:
        TraceError: Torch cannot export it.
    """
    return to_onnx(network.eval(), traits)
