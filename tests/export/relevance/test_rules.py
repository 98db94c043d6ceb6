"""Each rule against PyTorch's autograd, of the same operator written there."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional

from export.errors import RelevanceError
from tests.export.relevance.graphs import Floats, gradient_of, make_graph, run_graph

_TOLERANCE = 2e-6
_random = np.random.default_rng(0)


def numbers(*shape: int) -> Floats:
    """Normal ones, float32."""
    return _random.standard_normal(shape).astype(np.float32)


X, FLAT = numbers(2, 3, 4), numbers(3, 4)
LEFT, TALL = numbers(5, 3), numbers(6, 1, 5, 3)
MATRIX, STACK, VECTOR, SCALE = numbers(4, 5), numbers(3, 4, 4), numbers(4), numbers(4)
PLACES, ROWS = np.array([[0, 1], [1, 2], [1, 2]]), np.array([3, 1])
TALLER = numbers(4, 3, 4)
PICKS = np.array([[[0, 1, 2, 0], [0, 0, -1, 1]]] * 2)
PICKED = np.array([2, 0, -1, 0])
NUMBERS = {
    "minus_one": np.array([-1]),
    "one": np.array([1]),
    "zero": np.array(0),
    "two": np.array(2.0, dtype=np.float32),
    "three": np.array(3.0, dtype=np.float32),
    "half": np.array(0.5, dtype=np.float32),
}


def seed_like(output: Any) -> Floats:
    """Normal numbers of a shape, the same whichever tests ran before."""
    return np.asarray(np.random.default_rng(7).standard_normal(tuple(output.shape)), dtype=np.float32)


def node(op_type: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    """A node; the input x where none is named."""
    return helper.make_node(op_type, list(inputs or ("x",)), [output], **attributes)


def as_tensor(array: Floats) -> Tensor:
    """The same in torch."""
    return torch.from_numpy(array)


Case = tuple[list[Any], Mapping[str, Floats], Callable[[Tensor], Tensor]]
CASES: dict[str, Case] = {
    "add": ([node("Add", "x", "a")], {"a": VECTOR}, lambda x: x + as_tensor(VECTOR)),
    "add to itself": ([node("Add", "x", "x")], {}, lambda x: x + x),
    "sum": ([node("Sum", "x", "a", "x")], {"a": VECTOR}, lambda x: x + as_tensor(VECTOR) + x),
    "sub": ([node("Sub", "a", "x")], {"a": VECTOR}, lambda x: as_tensor(VECTOR) - x),
    "spread": (
        [node("ReduceSum", "x", "one", output="m", keepdims=1), node("Sub", "x", "m")],
        {},
        lambda x: x - x.sum(1, keepdim=True),
    ),
    "spread over leading axes": (
        [node("ReduceSum", "x", "zeros", output="m", keepdims=0), node("Mul", "m", "x")],
        {"zeros": np.array([0])},
        lambda x: x.sum(0) * x,
    ),
    "neg": ([node("Neg")], {}, lambda x: -x),
    "mul": ([node("Mul", "x", "a")], {"a": VECTOR}, lambda x: x * as_tensor(VECTOR)),
    "square": ([node("Mul", "x", "x")], {}, lambda x: x * x),
    "div": ([node("Div", "x", "a")], {"a": VECTOR}, lambda x: x / as_tensor(VECTOR)),
    "div by itself": (
        [node("Exp", output="e"), node("Div", "x", "e")],
        {},
        lambda x: x / x.exp(),
    ),
    "matmul": ([node("MatMul", "x", "a")], {"a": MATRIX}, lambda x: x @ as_tensor(MATRIX)),
    "matmul from the left": ([node("MatMul", "a", "x")], {"a": LEFT}, lambda x: as_tensor(LEFT) @ x),
    "matmul of stacks": (
        [node("Unsqueeze", "x", "one", output="u"), node("MatMul", "u", "a")],
        {"a": STACK},
        lambda x: x[:, None] @ as_tensor(STACK),
    ),
    "matmul into stacks": ([node("MatMul", "a", "x")], {"a": TALL}, lambda x: as_tensor(TALL) @ x),
    "matmul with itself": (
        [node("Transpose", output="t", perm=[0, 2, 1]), node("MatMul", "x", "t")],
        {},
        lambda x: x @ x.transpose(1, 2),
    ),
    "softmax": ([node("Softmax", axis=-1)], {}, lambda x: x.softmax(-1)),
    "softmax of another axis": ([node("Softmax", axis=1)], {}, lambda x: x.softmax(1)),
    "layer norm": (
        [node("LayerNormalization", "x", "s", "b", epsilon=1e-3)],
        {"s": SCALE, "b": VECTOR},
        lambda x: functional.layer_norm(x, [4], as_tensor(SCALE), as_tensor(VECTOR), 1e-3),
    ),
    "relu": ([node("Relu")], {}, functional.relu),
    "leaky relu": ([node("LeakyRelu", alpha=0.2)], {}, lambda x: functional.leaky_relu(x, 0.2)),
    "gelu": ([node("Gelu")], {}, functional.gelu),
    "gelu by tanh": ([node("Gelu", approximate="tanh")], {}, lambda x: functional.gelu(x, approximate="tanh")),
    "tanh": ([node("Tanh")], {}, torch.tanh),
    "sigmoid": ([node("Sigmoid")], {}, torch.sigmoid),
    "erf": ([node("Erf")], {}, torch.erf),
    "reshape": ([node("Reshape", "x", "s")], {"s": np.array([0, 6, 2])}, lambda x: x.reshape(2, 6, 2)),
    "squeeze and back": (
        [node("Unsqueeze", "x", "one", output="u"), node("Squeeze", "u", "one")],
        {},
        lambda x: x * 1,
    ),
    "flatten": ([node("Flatten", axis=1)], {}, lambda x: x.flatten(1)),
    "transpose": ([node("Transpose", perm=[2, 0, 1])], {}, lambda x: x.permute(2, 0, 1)),
    "transpose all": ([node("Transpose")], {}, lambda x: x.permute(2, 1, 0)),
    "identity": ([node("Identity")], {}, lambda x: x * 1),
    "cast there and back": (
        [node("Cast", output="d", to=11), node("Cast", "d", to=1)],
        {},
        lambda x: x * 1,
    ),
    "expand": (
        [node("Unsqueeze", "x", "one", output="u"), node("Expand", "u", "s")],
        {"s": np.array([2, 5, 3, 4])},
        lambda x: x[:, None].expand(2, 5, 3, 4),
    ),
    "gather": ([node("Gather", "x", "i", axis=1)], {"i": PICKED}, lambda x: x[:, as_tensor(PICKED)]),
    "gather of a grid": (
        [node("Gather", "x", "i", axis=2)],
        {"i": PICKED.reshape(2, 2)},
        lambda x: x[:, :, as_tensor(PICKED.reshape(2, 2))],
    ),
    "gather of one": ([node("Gather", "x", "i", axis=1)], {"i": np.array(0)}, lambda x: x[:, 0]),
    "gather at places": (
        [node("GatherND", "x", "i")],
        {"i": PLACES},
        lambda x: x[as_tensor(PLACES[:, 0]), as_tensor(PLACES[:, 1])],
    ),
    "gather at places of an axis": (
        [node("GatherElements", "x", "i", axis=1)],
        {"i": PICKS},
        lambda x: x.gather(1, as_tensor(PICKS) % 3),
    ),
    "largest two": (
        [helper.make_node("TopK", ["x", "k"], ["y", "where"])],
        {"k": np.array([2])},
        lambda x: x.topk(2)[0],
    ),
    "add at places": (
        [node("ScatterND", "a", "i", "x", reduction="add")],
        {"a": TALLER, "i": ROWS[:, None]},
        lambda x: as_tensor(TALLER).index_add(0, as_tensor(ROWS), x),
    ),
    "add to places": (
        [node("ScatterND", "x", "i", "a", reduction="add")],
        {"a": TALLER[:2], "i": np.array([[1], [1]])},
        lambda x: x.index_add(0, torch.tensor([1, 1]), as_tensor(TALLER[:2])),
    ),
    "put at places": (
        [node("ScatterElements", "a", "i", "x", axis=0)],
        {"a": np.zeros((4, 3, 4), dtype=np.float32), "i": np.broadcast_to(ROWS[:, None, None], X.shape)},
        lambda x: torch.zeros(4, 3, 4).index_copy(0, as_tensor(ROWS), x),
    ),
    "slice": (
        [node("Slice", "x", "a", "b", "c", "d")],
        {"a": np.array([-1, 0]), "b": np.array([-9, 3]), "c": np.array([1, 2]), "d": np.array([-2, 2])},
        lambda x: x.flip(1)[:, ::2, 0:3:2],
    ),
    "slice of leading axes": (
        [node("Slice", "x", "a", "b")],
        {"a": np.array([0, 1]), "b": np.array([9, 3])},
        lambda x: x[:, 1:3],
    ),
    "pad": (
        [node("Pad", "x", "p", "fill", "a")],
        {"p": np.array([1, 2, 0, -1]), "fill": np.array(0, dtype=np.float32), "a": np.array([1, 2])},
        lambda x: functional.pad(x, (2, -1, 1, 0)),
    ),
    "concat": (
        [node("Concat", "x", "a", "x", axis=1)],
        {"a": numbers(2, 1, 4)},
        lambda x: torch.cat([x, torch.zeros(2, 1, 4), x], 1),
    ),
    "split": (
        [helper.make_node("Split", ["x"], ["p", "q"], axis=2, num_outputs=2), node("Mul", "p", "half")],
        {},
        lambda x: x[:, :, :2] * 0.5,
    ),
    "reduce sum": ([node("ReduceSum", "x", "minus_one", keepdims=0)], {}, lambda x: x.sum(-1)),
    "reduce sum of all": ([node("ReduceSum", "x", keepdims=0)], {}, lambda x: x.sum()),
    "reduce mean": ([node("ReduceMean", "x", "one", keepdims=0)], {}, lambda x: x.mean(1)),
    "reduce mean kept": ([node("ReduceMean", "x", "one", keepdims=1)], {}, lambda x: x.mean(1, keepdim=True)),
    "length": ([node("ReduceL2", "x", "minus_one", keepdims=1)], {}, lambda x: x.norm(dim=-1, keepdim=True)),
    "largest": ([node("ReduceMax", "x", "one", keepdims=0)], {}, lambda x: x.amax(1)),
    "largest of all, which are several": (
        [node("Clip", "x", "", "half", output="c"), node("ReduceMax", "c", keepdims=1)],
        {},
        lambda x: x.clip(max=0.5).amax(keepdim=True, dim=(0, 1, 2)),
    ),
    "where": (
        [node("Greater", "x", "half", output="c"), node("Mul", "x", "two", output="m"), node("Where", "c", "m", "x")],
        {},
        lambda x: torch.where(x > 0.5, x * 2, x),
    ),
    "clip": ([node("Clip", "x", "", "half")], {}, lambda x: x.clip(max=0.5)),
    "square of relu": ([node("Relu", output="r"), node("Pow", "r", "two")], {}, lambda x: functional.relu(x) ** 2),
    "root": ([node("Exp", output="e"), node("Pow", "e", "half")], {}, lambda x: x.exp() ** 0.5),
    "pow": ([node("Pow", "x", "three")], {}, lambda x: x**3),
    "sqrt": ([node("Exp", output="e"), node("Sqrt", "e")], {}, lambda x: x.exp().sqrt()),
    "reciprocal": ([node("Reciprocal")], {}, lambda x: 1 / x),
}

# Gemm takes matrices alone.
GEMMS: dict[str, tuple[dict[str, Any], Floats, Floats]] = {
    "gemm": ({"alpha": 0.5, "beta": 2.0}, numbers(4, 5), numbers(5)),
    "gemm, right turned": ({"transB": 1}, numbers(5, 4), numbers(5)),
    "gemm, left turned": ({"transA": 1}, numbers(3, 5), numbers(5)),
    "gemm, both turned": ({"transA": 1, "transB": 1}, numbers(5, 3), numbers(4, 5)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_autograd(name: str) -> None:
    """The score is a random sum of the output."""
    nodes, given, function = CASES[name]
    x = torch.from_numpy(X.copy()).requires_grad_()
    output = function(x)
    seed = seed_like(output)
    (expected,) = torch.autograd.grad((output * as_tensor(seed)).sum(), x)
    gradient, _ = gradient_of(make_graph(nodes, X, {**NUMBERS, **given}), X, seed)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=_TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right", "added"])
@pytest.mark.parametrize("name", GEMMS)
def test_each_part_of_a_gemm_has_the_gradient_of_autograd(name: str, side: str) -> None:
    """Whichever varies."""
    flags, right, added = GEMMS[name]
    turned_left, turned_right = flags.get("transA", 0), flags.get("transB", 0)
    left = FLAT
    parts = {"left": left, "right": right, "added": added}
    varying = torch.from_numpy(parts[side].copy()).requires_grad_()
    a, b, c = (varying if one == side else as_tensor(array) for one, array in parts.items())
    product = (a.T if turned_left else a) @ (b.T if turned_right else b)
    output = flags.get("alpha", 1.0) * product + flags.get("beta", 1.0) * c
    seed = seed_like(output)
    (expected,) = torch.autograd.grad((output * as_tensor(seed)).sum(), varying)
    names = ["x" if one == side else one for one in parts]
    graph = make_graph([node("Gemm", *names, **flags)], parts[side], {k: v for k, v in parts.items() if k != side})
    gradient, _ = gradient_of(graph, parts[side], seed)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=_TOLERANCE, rtol=1e-5)


# Held as a whole: a gate, a length or a denominator depends on nothing. What is put over something else is refused.
_NOT_AFFINE = {
    "put at places",
    "softmax",
    "softmax of another axis",
    "sigmoid",
    "erf",
    "length",
    "root",
    "sqrt",
    "reciprocal",
}
AFFINE = [name for name in CASES if name not in _NOT_AFFINE]


@pytest.mark.parametrize("name", AFFINE)
def test_with_libra_input_and_terms_make_up_the_output(name: str) -> None:
    """Whatever is held constant."""
    nodes, given, _ = CASES[name]
    graph = make_graph(nodes, X, {**NUMBERS, **given})
    (output,) = run_graph(graph, ["y"], {"x": X})
    seed = seed_like(output)
    gradient, terms = gradient_of(graph, X, seed, "libra")
    assert float((X * gradient).sum() + terms.sum()) == pytest.approx(float((output * seed).sum()), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"interleaved": 1}, {"rotary_embedding_dim": 2}])
def test_rotary_positions_have_the_gradient_of_a_rotation(options: dict[str, Any]) -> None:
    """Of neighbours or of halves; what is beyond the rotary numbers passes, and turned again it is what was given."""
    x, angles = numbers(2, 3, 2, 4), numbers(2, 2, options.get("rotary_embedding_dim", 4) // 2)
    nodes, given = [node("RotaryEmbedding", "x", "c", "s", **options)], {"c": np.cos(angles), "s": np.sin(angles)}
    seed = numbers(*x.shape)
    gradient, _ = gradient_of(make_graph(nodes, x, given, 23), x, seed)
    (turned,) = run_graph(make_graph(nodes, x, given, 23), ["y"], {"x": gradient})
    np.testing.assert_allclose(turned, seed, atol=_TOLERANCE)
    (output,) = run_graph(make_graph(nodes, x, given, 23), ["y"], {"x": x})
    assert np.abs(output - x).max() > 0.1
    assert float((x * gradient).sum()) == pytest.approx(float((output * seed).sum()), abs=1e-5)


@pytest.mark.parametrize("options", [{"mode": "reflect"}, {"fills": "half"}])
def test_padding_with_what_is_there_or_no_zero_is_refused(options: dict[str, Any]) -> None:
    """By the operator's name."""
    padded = node("Pad", "x", "p", options.get("fills", ""), mode=options.get("mode", "constant"))
    graph = make_graph([padded], X, {**NUMBERS, "p": np.array([0, 1, 0, 0, 0, 0])})
    with pytest.raises(RelevanceError, match="Pad has no reverse rule but with zeros"):
        gradient_of(graph, X, X)


def test_an_operator_without_a_rule_is_named() -> None:
    """With its node."""
    graph = make_graph([helper.make_node("Sin", ["x"], ["y"], name="wave")], X)
    with pytest.raises(RelevanceError, match="wave: Sin has no reverse rule"):
        gradient_of(graph, X, X)
