"""A small text network, its artifact and its tokenizer, so that server tests need neither torch nor a download."""

from pathlib import Path

GOLDEN_NETWORK = Path(__file__).parent / "tiny-text"
GOLDEN_MODELS = Path(__file__).parent / "models"
GOLDEN_PAIRS = Path(__file__).parent / "pairs"
GOLDEN_TOWERS = Path(__file__).parent / "towers"
GOLDEN_WHISPER = Path(__file__).parent / "whisper"
GOLDEN_WINDOWS = Path(__file__).parent / "windows"
BARE_ONNX_MODELS = Path(__file__).parent / "bare_onnx"
CROSS_ENCODERS = {"tiny-rank": ("relevant",), "tiny-nli": ("contradiction", "neutral", "entailment")}  # and classes
CONSTANT = 4321.5  # what two of the bare ONNX models add, to be found in their files
