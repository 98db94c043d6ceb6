"""GenAtt and LeGrad in PyTorch, apart from the exporter's: autograd's gradients at the weights of eager attention.

Chefer, Gur and Wolf 2021, "Generic Attention-Model Explainability", equations 5 and 6; Bousselham et al. 2025,
"LeGrad".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Eager:
    """A run with eager attention, whose graph autograd still has.

    Attributes:
        logits: [B, C].
        attentions: Of each layer, [B, H, N, N].
        states: What leaves each layer, [B, N, D].
        head: Makes logits of the last.
    """

    logits: Tensor
    attentions: Sequence[Tensor]
    states: Sequence[Tensor]
    head: Head


def run_own(network: Any, *feed: Tensor) -> Eager:
    """One of model/, its layers' outputs taken by hooks."""
    states = list[Tensor]()
    hooks = [
        one.register_forward_hook(lambda _module, _given, made: states.append(made[0]))
        for one in network.encoder.layers
    ]
    outputs, attentions = network.explain(*feed)
    for hook in hooks:
        hook.remove()
    masks = feed[1:2]
    return Eager(
        outputs["logits"],
        attentions,
        states,
        lambda state: network._heads(network.encoder.final_norm(state), *masks)["logits"],
    )


def genatt(run: Eager, weights: Tensor, read: Tensor) -> Tensor:
    """Return relevance [B, N]; the score is read from positions where read, [B, N], is 1."""
    gradients = torch.autograd.grad((run.logits * weights).sum(), list(run.attentions), retain_graph=True)
    identity = torch.eye(read.shape[1]).expand(len(read), -1, -1)
    relevance = identity
    for attention, gradient in zip(run.attentions, gradients, strict=True):
        relevance = relevance + (gradient * attention).clamp(min=0).mean(1) @ relevance
    rows = (relevance - identity) * read[:, :, None]
    return (rows.sum(1) / read.sum(1, keepdim=True)).detach()


def legrad(run: Eager, weights: Tensor, read: Tensor, real: Tensor) -> Tensor:
    """Return relevance [B, N], of real positions, where real [B, N] is 1; the score of each layer is of its state.

    What a mask hides has a weight of 0, and no part in it.
    """
    found = []
    for attention, state in zip(run.attentions, run.states, strict=True):
        score = (run.head(state) * weights).sum()
        (gradient,) = torch.autograd.grad(score, attention, retain_graph=True)
        found.append(
            (gradient.clamp(min=0) * (attention > 0)).mean(1).sum(1) / read.sum(1, keepdim=True)
        )  # others' rows are 0
    return (torch.stack(found).mean(0) * real).detach()
