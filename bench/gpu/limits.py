"""How far a device's answer may be from the CPU's: the largest difference over the largest number of a tensor."""

from artifact.contract import Precision

# float32 sums in another order. TF32 keeps 10 bits of each factor, as float16 does, bfloat16 7.
FLOAT32, TF32 = 1e-4, 2e-2
_BY_PRECISION: dict[Precision, float] = {"float32": FLOAT32, "float16": 2e-2, "bfloat16": 1e-1, "int8": 1e-1}
SAME = 1e-6  # of the same session, run twice
UINT8 = 1.01 / 255  # a step, since rounding may go the other way


def limit_of(precision: Precision, *, tf32: bool) -> float:
    """The limit of an artifact that computes in some precision; TF32 concerns float32 alone."""
    return TF32 if tf32 and precision == "float32" else _BY_PRECISION[precision]
