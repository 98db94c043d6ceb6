"""Rule: MatMul, scale, mask, Softmax, MatMul, as exporters before opset 23 write attention; the weights are there.

A softmax over the last axis is attention's where its scores come from a product with computed keys, by way of scaling
and masking alone, and where what comes out multiplies computed values. So neither a classifier's softmax nor a
router's is one.
"""

from collections.abc import Iterator

from onnx import NodeProto

from artifact.contract import BATCH_AXIS
from export.errors import TapError
from export.tapping.rule import Found
from export.tapping.value_norms import find_projection
from export.tapping.view import GraphView, attribute, name_of, walk_back

_PRODUCTS = frozenset({"MatMul", "FusedMatMul"})
_TO_SCORES = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Cast", "Clip", "Max", "Min", "Tanh", "Reshape", "Identity"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
# What may stand between the softmax and the product: the dropout of training, and torch's care for rows that are
# masked altogether. Weights are taken behind these, and before what only gives them another form.
_KEEPS_WEIGHTS = frozenset({"Dropout", "Identity", "Where"})
_CHANGES_FORM = frozenset({"Cast", "Reshape", "QuantizeLinear", "DequantizeLinear"})
_OTHER_PRODUCTS = frozenset({"Einsum", "Mul", "Gemm", *_PRODUCTS})
_FOLDED, _BY_HEAD = 3, 4


def tap_eager_attention(view: GraphView) -> Iterator[Found]:
    """Find every softmax between two products."""
    for softmax in view.nodes("Softmax"):
        if not _is_over_keys(view, softmax) or not _has_scores(view, softmax):
            continue
        found = _weighing(view, softmax.output[0])
        if found is None:
            _refuse_other_products(view, softmax)
            continue
        weights, product, values = found
        refuse_channels(view, softmax, product)
        if view.rank(weights) == _FOLDED:
            yield Found(softmax, _unfold_heads(view, softmax, weights, product), attended=product.output[0])
        elif view.rank(weights) == _BY_HEAD:
            yield Found(softmax, weights, values, product.output[0])
        else:
            axes = view.rank(weights)
            raise TapError(f"{name_of(softmax)}: its weights have {axes} axes; expected batch, heads, query, key")


def is_taken(view: GraphView, softmax: NodeProto) -> bool:
    """Whether this rule takes a softmax, or refuses it in its own words."""
    scores = _is_over_keys(view, softmax) and _has_scores(view, softmax)
    return scores and _weighing(view, softmax.output[0]) is not None


def _is_over_keys(view: GraphView, softmax: NodeProto) -> bool:
    """Whether it runs over the last axis; before opset 13 the axis was where a flattening begins."""
    axis = attribute(softmax, "axis", -1 if view.opset >= 13 else 1)
    rank = view.rank(softmax.input[0])
    return axis == -1 or (axis == rank - 1 if rank else axis in (2, 3))


def _has_scores(view: GraphView, softmax: NodeProto) -> bool:
    """Whether what it normalises is a product with keys that depend on the input; queries may be learned ones."""
    return any(True for _ in scores_of(view, softmax))


def scores_of(view: GraphView, softmax: NodeProto) -> Iterator[NodeProto]:
    """Yield the products with keys that a softmax normalises."""
    for node in walk_back(view, softmax.input[0], _TO_SCORES):
        keyed = len(node.input) > 1 and not view.is_constant(node.input[1])
        if keyed and (node.op_type in _PRODUCTS or (node.op_type == "Einsum" and not view.is_constant(node.input[0]))):
            yield node


def is_weighed_by(view: GraphView, weights: str, softmax: NodeProto) -> bool:
    """Whether a value is what a softmax gave, as it enters the product with the values."""
    through = _KEEPS_WEIGHTS | _CHANGES_FORM | {"Transpose"}
    return any(node is softmax for node in walk_back(view, weights, through))


def _weighing(view: GraphView, weights: str) -> tuple[str, NodeProto, str] | None:
    """Follow weights to the product with the values.

    Returns:
        The weights as they enter it, that product, and the values [.., K, d], empty where they are turned or scaled.
    """
    for node in view.consumers(weights):
        if node.op_type in _PRODUCTS and _weighs(view, node, weights, side=0):
            return weights, node, str(node.input[1]) if node.op_type == "MatMul" else ""
        for product in view.consumers(node.output[0]) if _swaps_last_axes(node) else []:
            if product.op_type in _PRODUCTS and _weighs(view, product, node.output[0], side=1):
                return weights, product, ""
        if node.op_type in _KEEPS_WEIGHTS and (found := _weighing(view, node.output[0])):
            return found
        if node.op_type in _CHANGES_FORM and (found := _weighing(view, node.output[0])):
            return (weights if found[0] == node.output[0] else found[0]), *found[1:]
    return None


def _refuse_other_products(view: GraphView, softmax: NodeProto) -> None:
    """Refuse weights that multiply values in a way that is not followed; passed over, they would leave a hole."""
    for node in view.consumers(softmax.output[0]):
        if node.op_type in _OTHER_PRODUCTS and not any(map(view.is_constant, node.input)):
            raise TapError(f"{name_of(softmax)}: its weights enter {name_of(node)} ({node.op_type}); expected MatMul")


def refuse_channels(view: GraphView, softmax: NodeProto, product: NodeProto) -> None:
    """Refuse a product that gives [B, H, d, N], with the positions last (El-Nouby et al. 2021, "XCiT")."""
    orders = (list(attribute(node, "perm", [])) for node in view.consumers(product.output[0]))
    if [0, 3, 1, 2] in orders:
        raise TapError(f"{name_of(softmax)}: is attention between channels; expected it between positions")


def _swaps_last_axes(node: NodeProto) -> bool:
    order = list(attribute(node, "perm", [])) if node.op_type == "Transpose" else []
    return order[-2:] == [len(order) - 1, len(order) - 2]


def _weighs(view: GraphView, product: NodeProto, weights: str, side: int) -> bool:
    """Whether weights are the left side of a product with values that depend on the input; turned, the right side."""
    turned = attribute(product, "transB" if side else "transA", 0)
    return product.input[side] == weights and not turned and not view.is_constant(product.input[1 - side])


def _has_rows_first(view: GraphView, product: NodeProto) -> bool:
    """Whether [B * H, Q, d] is not unfolded as [H, B, Q, d] further on: heads come last before they are merged."""
    for node in view.consumers(product.output[0]):
        for turn in view.consumers(node.output[0]) if node.op_type == "Reshape" else []:
            order = list(attribute(turn, "perm", [])) if turn.op_type == "Transpose" else []
            if len(order) == _BY_HEAD and order[2] != 1:
                return False
    return True


def _unfold_heads(view: GraphView, softmax: NodeProto, weights: str, product: NodeProto) -> str:
    """Turn weights [B * H, Q, K] into [B, H, Q, K].

    The output projection's width says how many heads there are; without one, a batch axis that is no product says that
    there is one.
    """
    heads: int | None = None
    if (view.shape(weights) or (None,))[0] == BATCH_AXIS:
        heads, count = 1, view.add_numbers([1], f"{weights}.heads")
    elif not _has_rows_first(view, product):
        raise TapError(f"{name_of(softmax)}: heads are folded into the batch before rows; expected rows before heads")
    elif (projection := find_projection(view, product.output[0])) is not None:
        width = view.add_numbers(projection.shape[:1], f"{weights}.width")
        head_dim = view.size_of(product.output[0], 2, f"{weights}.head_dim")
        count = view.add("Div", [width, head_dim], f"{weights}.heads")
        dim = (view.shape(product.output[0]) or (None,))[-1]
        heads = projection.shape[0] // dim if isinstance(dim, int) else None
    else:
        raise TapError(f"{name_of(softmax)}: heads are folded into the batch, and no output projection says how many")
    rest = view.add_numbers([-1], f"{weights}.rest")
    lengths = [view.size_of(weights, axis, f"{weights}.{axis}") for axis in (1, 2)]
    axes = view.add("Concat", [rest, count, *lengths], f"{weights}.axes", axis=0)
    shaped = view.add("Reshape", [weights, axes], f"{weights}.shaped")
    return view.describe(shaped, (None, heads, *(view.shape(weights) or (None,) * 3)[1:]), view.dtype(weights))
