"""Every method by autograd on a network as its own library runs it: torch's functions are watched, nothing is exported.

What enters the first layer is a leaf, so that a value depends on the input just where autograd says that it requires a
gradient. With Libra (Mehri et al. 2025) attention's weights, denominators and gates are detached and what is added is a
leaf of its own (Srinivas and Fleuret 2019, equation 3).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers.activations import NewGELUActivation

from tests.export.relevance.attention import Eager

_GELU = NewGELUActivation.forward
_WEIGHTS_AXES = 4  # [B, H, N, N]
_HELD = (torch.sigmoid, Tensor.sigmoid, torch.erf, torch.sqrt, torch.rsqrt, Tensor.norm)
_ADDS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__, Tensor.add_)
_MULTIPLIES = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.matmul, Tensor.matmul, Tensor.__matmul__)
_DIVIDES = (torch.div, Tensor.div, Tensor.__truediv__)


def _softmax(x: Tensor, dim: int = -1, *_: Any, dtype: Any = None, **__: Any) -> Tensor:
    return x.softmax(dim, dtype=dtype)


class _Watch(TorchFunctionMode):
    """Keeps attention's weights; with Libra holds what it holds, and keeps what is added."""

    def __init__(self, libra: bool) -> None:
        super().__init__()
        self.libra = libra
        self.weights, self.terms = list[Tensor](), list[Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (functional.softmax, torch.softmax, Tensor.softmax):
            return self.keep(_softmax(*args, **kwargs))
        if func is functional.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return _multi_head(self, func, *args, **kwargs)
        if self.libra and (rule := _RULES.get(func)):
            return rule(self, func, *args, **kwargs)
        return func(*args, **kwargs)

    def keep(self, weights: Tensor) -> Tensor:
        """Keep weights of attention; with Libra hold them."""
        if weights.ndim == _WEIGHTS_AXES and weights.requires_grad:
            self.weights.append(weights)
        return weights.detach() if self.libra else weights

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Written out, torch's fused attention gives no weights."""
        assert dropout_p == 0
        if enable_gqa:
            key, value = (one.repeat_interleave(query.shape[1] // one.shape[1], 1) for one in (key, value))
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        return self.keep(scores.softmax(-1)) @ value

    def term(self, added: Tensor, shape: torch.Size) -> Tensor:
        """What is added, as a leaf of the shape of what it is added to."""
        self.terms.append(added.detach().expand(shape).clone().requires_grad_())
        return self.terms[-1]


def _hold(_watch: _Watch, func: Any, *args: Any, **options: Any) -> Any:
    return func(*args, **options).detach()


def _linear(watch: _Watch, _func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    made = functional.linear(x, weight)
    return made if bias is None else made + (watch.term(bias, made.shape) if x.requires_grad else bias)


def _layer_norm(
    watch: _Watch, _func: Any, x: Tensor, _shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach()
    made = normal if weight is None else normal * weight
    return made if bias is None else made + (watch.term(bias, made.shape) if x.requires_grad else bias)


def _gelu(_watch: _Watch, _func: Any, x: Tensor, approximate: str = "none") -> Tensor:
    inner = torch.erf(x / math.sqrt(2))
    if approximate == "tanh":
        inner = torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return x * (0.5 * (1 + inner)).detach()


def _multi_head(
    watch: _Watch,
    _func: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _width: int,
    heads: int,
    weight: Tensor,
    bias: Tensor,
    _key_bias: Any,
    _value_bias: Any,
    _zeros: bool,
    _dropout: float,
    out_weight: Tensor,
    out_bias: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Torch's own module, of [N, B, D]."""
    given = [x.transpose(0, 1) for x in (query, key, value)]
    made = [_linear(watch, None, *one) for one in zip(given, weight.chunk(3), bias.chunk(3), strict=True)]
    split = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in made]
    attended = watch.attend(*split).transpose(1, 2).flatten(2)
    return _linear(watch, None, attended, out_weight, out_bias).transpose(0, 1), None


def _new_gelu(_module: NewGELUActivation, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _silu(_watch: _Watch, _func: Any, x: Tensor, **_: Any) -> Tensor:
    return x * torch.sigmoid(x).detach()


def _tanh(_watch: _Watch, _func: Any, x: Tensor) -> Tensor:
    return x * torch.where(x == 0, 1.0, x.tanh() / x).detach()


def _normalize(_watch: _Watch, _func: Any, x: Tensor, p: float = 2.0, dim: int = 1, **_: Any) -> Tensor:
    made: Tensor = x / x.norm(p, dim, keepdim=True).detach()
    return made


def _add(watch: _Watch, func: Any, one: Any, other: Any, **options: Any) -> Any:
    made = func(one.clone() if func in (Tensor.__iadd__, Tensor.add_) else one, other, **options)
    left, right = (isinstance(value, Tensor) and value.requires_grad for value in (one, other))
    if left == right or options:
        return made
    varies, added = (one, other) if left else (other, one)
    return varies + watch.term(torch.as_tensor(added, dtype=made.dtype), made.shape)


def _multiply(_watch: _Watch, func: Any, one: Any, other: Any, **options: Any) -> Any:
    if not all(isinstance(value, Tensor) and value.requires_grad for value in (one, other)):
        return func(one, other, **options)
    return (func(one, other.detach()) + func(one.detach(), other)) / 2


def _divide(_watch: _Watch, func: Any, one: Any, other: Any, **options: Any) -> Any:
    return func(one, other.detach() if isinstance(other, Tensor) else other, **options)


def _power(_watch: _Watch, _func: Any, x: Tensor, exponent: float) -> Tensor:
    return x * (x ** (exponent - 1)).detach() if exponent >= 2 and exponent % 1 == 0 else (x**exponent).detach()


def _square(_watch: _Watch, _func: Any, x: Tensor) -> Tensor:
    return x * x.detach()


def _cat(watch: _Watch, _func: Any, parts: Sequence[Tensor], *args: Any, **options: Any) -> Tensor:
    vary = any(part.requires_grad for part in parts)
    kept = [watch.term(part, part.shape) if vary and not part.requires_grad else part for part in parts]
    return torch.cat(kept, *args, **options)


_RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys(_HELD, _hold),
    **dict.fromkeys(_ADDS, _add),
    **dict.fromkeys(_MULTIPLIES, _multiply),
    **dict.fromkeys(_DIVIDES, _divide),
    functional.linear: _linear,
    functional.layer_norm: _layer_norm,
    functional.gelu: _gelu,
    functional.silu: _silu,
    functional.normalize: _normalize,
    **dict.fromkeys((torch.tanh, Tensor.tanh, functional.tanh), _tanh),
    **dict.fromkeys((Tensor.pow, torch.pow, Tensor.__pow__), _power),
    **dict.fromkeys((torch.square, Tensor.square), _square),
    torch.cat: _cat,
}


@dataclass(eq=False)
class Run:
    """What was seen of a run.

    Attributes:
        embedded: What entered the first layer, [B, N, D].
        weights: Of attention, [B, H, N, N], in their order.
        states: What left each layer, [B, N, D].
        terms: With Libra, what was added on the way.
        made: What the network made, [B, C].
    """

    embedded: Tensor = field(default_factory=lambda: torch.zeros(0))
    weights: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    terms: list[Tensor] = field(default_factory=list)
    made: Tensor = field(default_factory=lambda: torch.zeros(0))


@dataclass(frozen=True, eq=False)
class Network:
    """A network, to be run as often as a method needs.

    Attributes:
        run: Returns what weights make a score of, float [B, C].
        layers: Its layers; one that is several comes once.
        depth: How many layers are run.
    """

    run: Callable[[], Tensor]
    layers: Sequence[nn.Module]
    depth: int

    def watched(
        self, libra: bool = False, change: Callable[[Tensor], Tensor] | None = None, last: Tensor | None = None
    ) -> "Run":
        """Run it.

        Args:
            libra: Whether what Libra holds is held.
            change: Made of what enters the first layer before it does.
            last: In place of what leaves the last layer.
        """
        run = Run()
        count = 0

        def enter(_module: Any, args: Any, options: Any) -> Any:
            nonlocal count
            count += 1
            if count > 1:
                return None
            name = "" if args else "hidden_states"
            run.embedded = (options[name] if name else args[0]).detach().requires_grad_()
            entered = change(run.embedded) if change else run.embedded
            return (args, {**options, name: entered}) if name else ((entered, *args[1:]), options)

        def leave(_module: Any, _args: Any, made: Any) -> Any:
            run.states.append(made[0] if isinstance(made, tuple) else made)
            if last is None or len(run.states) != self.depth:
                return None
            return (last, *made[1:]) if isinstance(made, tuple) else last

        hooks = [self.layers[0].register_forward_pre_hook(enter, with_kwargs=True)]
        hooks += [layer.register_forward_hook(leave) for layer in self.layers]
        try:
            with _Watch(libra) as watch, patch.object(NewGELUActivation, "forward", _new_gelu if libra else _GELU):
                run.made = self.run()
        finally:
            for hook in hooks:
                hook.remove()
        run.weights, run.terms = watch.weights, watch.terms
        return run

    def libra(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance of positions, float [B, N], and what belongs to none, [B]; the score is the weights' [B, C]."""
        run = self.watched(libra=True)
        found = torch.autograd.grad((run.made * weights).sum(), [run.embedded, *run.terms], allow_unused=True)
        positions, rest = (run.embedded * found[0]).sum(-1), torch.zeros(len(run.embedded))
        for term, gradient in zip(run.terms, found[1:], strict=True):
            if gradient is None:
                continue
            share = term * gradient
            if share.ndim == run.embedded.ndim and share.shape[:2] == run.embedded.shape[:2]:
                positions = positions + share.sum(-1)
            else:
                rest = rest + share.reshape(len(rest), -1).sum(1)  # of a row, its windows
        return positions.detach(), rest.detach()

    def gradient(self, weights: Tensor, scale: float = 1.0) -> Tensor:
        """What enters times the gradient at its scaled self, float [B, N]."""
        run = self.watched(change=lambda embedded: embedded * scale)
        (gradient,) = torch.autograd.grad((run.made * weights).sum(), run.embedded)
        return (run.embedded * gradient / scale).sum(-1).detach()

    def eager(self) -> Eager:
        """What GenAtt and LeGrad take."""
        run = self.watched()
        weights = run.weights[: self.depth]  # not those of a head
        return Eager(run.made, weights, run.states, lambda state: self.watched(last=state).made)
