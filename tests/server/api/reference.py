"""What ONNX Runtime alone gives for the golden text model."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.golden import GOLDEN_MODELS, GOLDEN_NETWORK

TOLERANCE = 1e-5


def run_alone(text: str) -> dict[str, NDArray[np.float32]]:
    """Outputs and attention of the tapped graph for one text, by ONNX Runtime itself."""
    given = run_graph(text, "attention.onnx")
    return {name: array for name, array in given.items() if not name.startswith("value_norms")}


def run_graph(text: str, graph: str) -> dict[str, NDArray[np.float32]]:
    """Everything that one of the graphs gives for one text."""
    session = onnxruntime.InferenceSession(GOLDEN_MODELS / "tiny-text" / "1" / graph)
    ids = np.array([Tokenizer.from_file(str(GOLDEN_NETWORK / "tokenizer.json")).encode(text).ids])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)}), strict=True))
