"""Tells weights of attention that torch computes for the library, which keeps them to itself or means over heads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

# Attention that is a function of torch's as a whole, of which the library gives the mean over the heads.
AVERAGED = ("wavlm",)


def fuse_heads(network: nn.Module) -> None:
    """Let heads that pool by attention (SigLIP's) use torch's fused form, as they do where nobody asks for weights."""
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.register_forward_pre_hook(_without_weights, with_kwargs=True)


@contextmanager
def told_by_torch() -> Iterator[list[Tensor]]:
    """Collect weights, each float [B, H, Q, K], of all attention that torch computes as a whole meanwhile."""
    weights, own = list[Tensor](), functional.multi_head_attention_forward

    def tell(*given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        output, seen = own(*given, **named | {"need_weights": True, "average_attn_weights": False})
        assert seen is not None  # noqa: S101 -- they are asked for
        weights.append(seen)
        return output, seen.mean(dim=1)

    functional.multi_head_attention_forward = tell
    try:
        yield weights
    finally:
        functional.multi_head_attention_forward = own


def _without_weights(module: nn.Module, taken: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return taken, named | {"need_weights": False}
