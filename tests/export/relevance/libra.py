"""Libra in PyTorch, apart from the reverse rules: what is held constant is detached, and autograd does the rest.

Mehri et al. 2025, "LibraGrad", and Srinivas and Fleuret 2019, "Full-Gradient Representation", equation 3.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional


def _attend(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *, is_causal: bool = False
) -> Tensor:
    assert not is_causal
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1).detach() @ value


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach()
    return normal * (1.0 if weight is None else weight) + (0.0 if bias is None else bias)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    assert approximate == "none"
    return x * (0.5 * (1 + torch.erf(x / math.sqrt(2)))).detach()


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    assert not inplace
    gate: Tensor = torch.sigmoid(x).detach()
    gated: Tensor = x * gate
    return gated


def _tanh(x: Tensor) -> Tensor:
    return x * torch.where(x == 0, 1.0, x.detach().tanh() / x.detach())


def _normalize(x: Tensor, dim: int = -1) -> Tensor:
    length: Tensor = x.norm(dim=dim, keepdim=True).detach()
    return x / length


@contextmanager
def holding() -> Iterator[None]:
    """Let torch's functions detach what Libra holds."""
    with (
        patch.object(functional, "scaled_dot_product_attention", _attend),
        patch.object(functional, "layer_norm", _layer_norm),
        patch.object(functional, "gelu", _gelu),
        patch.object(functional, "silu", _silu),
        patch.object(functional, "normalize", _normalize),
        patch.object(torch, "tanh", _tanh),
    ):
        yield


Run = tuple[dict[str, Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]


def _run(network: Any, feed: tuple[Tensor, ...]) -> Run:
    """Outputs, hidden states, and the biases of norms and linear layers with what each was added to."""
    added: list[tuple[Tensor, Tensor]] = []

    def keep(module: Any, _given: Any, made: Tensor) -> None:
        if module.bias is not None:
            added.append((module.bias, made))

    hooks = [one.register_forward_hook(keep) for one in network.modules() if isinstance(one, nn.Linear | nn.LayerNorm)]
    try:
        with holding():
            outputs, states = network.show_states(*feed)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, states, [pair for pair in added if pair[1] is not states[0]]  # the embeddings' own norm is before


def explain(
    network: Any, feed: tuple[Tensor, ...], score: Callable[[dict[str, Tensor]], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the relevance of each position [B, N], and what belongs to none [B].

    Args:
        network: One of model/.
        feed: Its inputs.
        score: Of its outputs, [B].
    """
    outputs, states, added = _run(network, feed)
    embedded, total = states[0], score(outputs).sum()
    found = torch.autograd.grad(total, [embedded, *(made for _, made in added)], allow_unused=True)
    positions = (embedded * found[0]).sum(-1)
    rest = torch.zeros(len(positions))
    for (bias, _), gradient in zip(added, found[1:], strict=True):
        if gradient is None:
            continue
        share = (gradient * bias).sum(-1)
        if share.dim() == 2:
            positions = positions + share
        else:
            rest = rest + share
    return positions.detach(), rest.detach()


def explain_layers(
    network: Any, feed: tuple[Tensor, ...], score: Callable[[dict[str, Tensor]], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return each hidden state times its gradient [B, L + 1, N], and what is added behind each [B, L + 1].

    Behind a state is what that does not depend on. Args: as explain.
    """
    outputs, states, added = _run(network, feed)
    made = [each for _, each in added]
    found = torch.autograd.grad(score(outputs).sum(), [*states, *made], allow_unused=True, retain_graph=True)
    held = torch.stack([(one * gradient).sum(-1) for one, gradient in zip(states, found, strict=False)], 1)
    behind = torch.zeros(held.shape[:2])
    for depth, state in enumerate(states):
        before = torch.autograd.grad(state.sum(), made, allow_unused=True, retain_graph=True)
        for (bias, _), gradient, earlier in zip(added, found[len(states) :], before, strict=True):
            if gradient is not None and earlier is None:
                behind[:, depth] += (gradient * bias).flatten(1).sum(1)
    return held.detach(), behind.detach()
