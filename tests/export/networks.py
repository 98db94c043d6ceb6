"""Small networks with attention as it was written before there was a fused one, and torch's older exporter for them."""

import io
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)
WIDTH, HEADS, VOCABULARY, POSITIONS = 16, 4, 256, 40


class Eager(nn.Module):
    """One attention of 4 heads."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.projection, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.causal = causal

    def explain(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the output [B, N, D] and the weights [B, H, N, N]; the mask [B, N] is 1 at what is real."""
        batch, length = x.shape[0], x.shape[1]
        query, key, value = self.projection(x).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / 2
        if self.causal:
            places = torch.arange(length)
            scores = scores.masked_fill(places[None] > places[:, None], -1e9)
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None] == 0, torch.finfo(torch.float32).min)
        weights = nn.functional.dropout(scores.softmax(-1), 0.1, self.training)
        return self.out((weights @ value).transpose(1, 2).reshape(batch, length, WIDTH)), weights

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the output."""
        return self.explain(x, mask)[0]


class Texts(nn.Module):
    """Two layers on words, positions and segments, as BERT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.first, self.second = Eager(), Eager()

    def explain(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last state [B, N, D] and the weights of each layer."""
        positions = self.position_embeddings(torch.arange(input_ids.shape[1]))
        state = self.word_embeddings(input_ids) + positions + self.token_type_embeddings(token_type_ids)
        weights = list[Tensor]()
        for layer in (self.first, self.second):
            more, seen = layer.explain(state, attention_mask)
            state, weights = state + more, [*weights, seen]
        return state, weights

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last state and the mean over real tokens [B, D]."""
        state, _ = self.explain(input_ids, attention_mask, token_type_ids)
        real = attention_mask[:, :, None].to(state.dtype)
        return state, (state * real).sum(1) / real.sum(1)


class Images(nn.Module):
    """Two layers on 16 patches of 8 pixels and a class token; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, WIDTH, 8, 8), nn.Linear(WIDTH, 3)
        self.cls, self.positions = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 17, WIDTH))
        self.first, self.second = Eager(), Eager()

    def explain(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits [B, 3] and the weights of each layer."""
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        state = torch.cat([self.cls.expand(patches.shape[0], -1, -1), patches], 1) + self.positions
        weights = list[Tensor]()
        for layer in (self.first, self.second):
            more, seen = layer.explain(state)
            state, weights = state + more, [*weights, seen]
        return self.head(state[:, 0]), weights

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits."""
        return self.explain(pixel_values)[0]


def spread(network: _Network) -> _Network:
    """Give a network weights from a seed that are large enough for attention far from uniform."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.4)
    return network.eval()


def write_onnx(
    network: nn.Module, feed: Mapping[str, Tensor], axes: Mapping[str, Any], opset: int = 14, outputs: Any = None
) -> ModelProto:
    """Export as older versions of torch did.

    Args:
        network: Takes the feed in its order.
        feed: By name.
        axes: Names of symbolic axes by place, by input or output.
        opset: Of ONNX's operators.
        outputs: Names of the outputs.
    """
    file: Any = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            tuple(feed.values()),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=list(feed),
            output_names=outputs,
            dynamic_axes=dict(axes),
        )
    return onnx.load_model_from_string(file.getvalue())


def write_texts(network: nn.Module, opset: int = 14) -> ModelProto:
    """Export the network on texts as the transformers library's exporters do."""
    ones = torch.ones(2, 6, dtype=torch.int64)
    names = ("input_ids", "attention_mask", "token_type_ids")
    axes: dict[str, Any] = {name: {0: "batch_size", 1: "sequence_length"} for name in (*names, "last_hidden_state")}
    axes["sentence_embedding"] = {0: "batch_size"}
    return write_onnx(network, dict.fromkeys(names, ones), axes, opset, ["last_hidden_state", "sentence_embedding"])


def write_images(network: nn.Module, opset: int = 14, axes: Mapping[int, str] | None = None) -> ModelProto:
    """Export the network on images; its axes are the batch's alone unless others are given."""
    given = {"pixel_values": axes or {0: "batch"}, "logits": {0: "batch"}}
    pixels = torch.randn(2, 3, 32, 32).to(next(network.parameters()).dtype)
    return write_onnx(network, {"pixel_values": pixels}, given, opset, ["logits"])
