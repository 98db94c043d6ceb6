"""Writes the small graphs that make measures of attention on the device that holds it; `python -m export.kernels`.

A server has no onnx package, so they are committed, in server/engine/kernels/. Each does what the function of its
name in server/engine/array_ops.py does. Axes: B batch, H heads, Q queries, K keys, N positions; a tensor without axes
here may have any.
"""

from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto, parser

FOLDER = Path(__file__).parents[1] / "server" / "engine" / "kernels"
# An opset of which CUDA has every operator here.
_HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def _normalize(rows: str, shares: str) -> str:
    """Divide by the sums of the last axis, but for rows of zeros."""
    return f"""
        last = Constant <value_ints = [-1]> ()
        sums = ReduceSum ({rows}, last)
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        positive = Greater (sums, zero)
        divisors = Where (positive, sums, one)
        {shares} = Div ({rows}, divisors)
    """


def _fuse(operator: str) -> str:
    return f"(float values) => (float fused) {{ fused = {operator} <axes = [1], keepdims = 0> (values) }}"


_GRAPHS = {
    # Queries first: what is wanted of them is mostly few.
    "choose": """(float[B, H, Q, K] weights, int64[b] rows, int64[h] heads, int64[q] queries, int64[k] keys)
        => (float[b, h, q, k] chosen) {
        of_queries = Gather <axis = 2> (weights, queries)
        of_heads = Gather <axis = 1> (of_queries, heads)
        of_rows = Gather <axis = 0> (of_heads, rows)
        chosen = Gather <axis = 3> (of_rows, keys)
    }""",
    "choose_fused": """(float[B, M, N] values, int64[b] rows, int64[m] firsts, int64[n] seconds)
        => (float[b, m, n] chosen) {
        of_firsts = Gather <axis = 1> (values, firsts)
        of_rows = Gather <axis = 0> (of_firsts, rows)
        chosen = Gather <axis = 2> (of_rows, seconds)
    }""",
    "choose_keys": "(float values, int64[k] keys) => (float chosen) { chosen = Gather <axis = -1> (values, keys) }",
    "weigh_by_values": """(float[B, H, Q, K] weights, float[B, H, K] value_norms) => (float[B, H, Q, K] weighed) {
        query = Constant <value_ints = [2]> ()
        spread = Unsqueeze (value_norms, query)
        weighed = Mul (weights, spread)
    }""",
    "normalize_rows": f"(float rows) => (float shares) {{ {_normalize('rows', 'shares')} }}",
    "fuse_heads.mean": _fuse("ReduceMean"),
    "fuse_heads.max": _fuse("ReduceMax"),
    "fuse_heads.min": _fuse("ReduceMin"),
    "rollout": f"""(float[B, Q, N] flow, float[B, N, N] weights, float[1] share) => (float[B, Q, N] flowed) {{
        {_normalize("weights", "shares")}
        rest = Sub (one, share)
        moved = MatMul (flow, shares)
        through_attention = Mul (rest, moved)
        past_attention = Mul (share, flow)
        flowed = Add (through_attention, past_attention)
    }}""",
    "contribution_rollout": f"""(float[B, Q, N] flow, float[B, N, N] contributions) => (float[B, Q, N] flowed) {{
        moved = MatMul (flow, contributions)
        {_normalize("moved", "flowed")}
    }}""",
    "entropy": """(float[B, H, Q, K] weights) => (float[B, H, Q] entropies) {
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        positive = Greater (weights, zero)
        inside = Where (positive, weights, one)
        logarithms = Log (inside)
        terms = Mul (weights, logarithms)
        last = Constant <value_ints = [-1]> ()
        sums = ReduceSum <keepdims = 0> (terms, last)
        turned = Neg (sums)
        entropies = Max (turned, zero)
    }""",
    "mean_distance": """(float[B, H, Q, K] weights, float[Q, K] apart, float[K] counted, int64[R] rows)
        => (float[B, H] distances) {
        weighed = Mul (weights, apart)
        last = Constant <value_ints = [-1]> ()
        sums = ReduceSum <keepdims = 0> (weighed, last)
        of_counted = Mul (weights, counted)
        left = ReduceSum <keepdims = 0> (of_counted, last)
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        positive = Greater (left, zero)
        divisors = Where (positive, left, one)
        means = Div (sums, divisors)
        of_rows = Gather <axis = 2> (means, rows)
        distances = ReduceMean <axes = [-1], keepdims = 0> (of_rows)
    }""",
    "as_one_head": """(float[B, Q, K] values) => (float[B, 1, Q, K] of_one) {
        head = Constant <value_ints = [1]> ()
        of_one = Unsqueeze (values, head)
    }""",
    "received": """(float[B, H, Q, K] weights) => (float[B, H, K] means) {
        means = ReduceMean <axes = [2], keepdims = 0> (weights)
    }""",
    "sum_places": """(float[B, H, Q, K] weights, int64[P] places) => (float[B, H] sums) {
        flat_shape = Constant <value_ints = [0, 0, -1]> ()
        flat = Reshape (weights, flat_shape)
        chosen = Gather <axis = 2> (flat, places)
        last = Constant <value_ints = [-1]> ()
        sums = ReduceSum <keepdims = 0> (chosen, last)
    }""",
    "largest": """(float values, int64[1] count) => (float top, int32 places) {
        top, found = TopK (values, count)
        places = Cast <to = 6> (found)
    }""",
    "to_float16": "(float values) => (float16 rounded) { rounded = Cast <to = 10> (values) }",
    # As server/engine/array_ops.py: 255 steps of the largest value, and steps of 1 where float32 has no such step.
    "to_uint8": """(float values) => (uint8 rounded, float[1] scale) {
        shape = Constant <value_ints = [1]> ()
        largest = ReduceMax <keepdims = 0> (values)
        flat = Reshape (largest, shape)
        steps = Constant <value_float = 255.0> ()
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        step = Div (flat, steps)
        smallest = Constant <value_float = 1.17549435e-38> ()
        positive = GreaterOrEqual (step, smallest)
        scale = Where (positive, step, one)
        scaled = Div (values, scale)
        kept = Where (positive, scaled, zero)
        nearest = Round (kept)
        clipped = Clip (nearest, zero, steps)
        rounded = Cast <to = 2> (clipped)
    }""",
}


def kernels() -> Iterator[tuple[str, ModelProto]]:
    """Yield each graph with its name."""
    for name, source in _GRAPHS.items():
        model = parser.parse_model(f"{_HEADER} {name.replace('.', '_')} {source}")
        for value in (*model.graph.input, *model.graph.output):
            if not value.type.tensor_type.shape.dim:  # any number of axes, where the parser says none
                value.type.tensor_type.ClearField("shape")
        yield name, model


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, model in kernels():
        (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
