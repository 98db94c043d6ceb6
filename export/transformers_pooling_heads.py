"""Shows how heads that pool by attention (SigLIP's) weigh positions, of which the library does not tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def fuse_pooling(network: nn.Module) -> None:
    """Let a network's heads use torch's fused attention, which they do where nobody asks for weights."""
    for head in _heads(network):
        head.register_forward_pre_hook(_without_weights, with_kwargs=True)


@contextmanager
def pooling_weights(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the weights of a network's heads, each float [B, H, 1, N], in the order in which they run."""
    weights, handles = list[Tensor](), list[Any]()
    for head in _heads(network):
        handles.append(head.register_forward_pre_hook(_with_weights, with_kwargs=True))
        handles.append(head.register_forward_hook(lambda module, taken, made: weights.append(made[1])))
    try:
        yield weights
    finally:
        for handle in handles:
            handle.remove()


def _heads(network: nn.Module) -> Iterator[nn.MultiheadAttention]:
    """Heads that the library makes of torch's own module; its other attention it writes itself."""
    return (module for module in network.modules() if isinstance(module, nn.MultiheadAttention))


def _without_weights(module: nn.Module, taken: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return taken, named | {"need_weights": False}


def _with_weights(module: nn.Module, taken: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return taken, named | {"need_weights": True, "average_attn_weights": False}
