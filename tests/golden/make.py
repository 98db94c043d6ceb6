"""Makes the golden models again: `python -m tests.golden.make`; needs the extra export.

A text network with its artifact; two that read pairs of texts, of a single score and of three classes; a CLIP and a
SigLIP, each of two towers; a Swin, which attends in windows; a Whisper; and ONNX files without a contract: every-type
gives back an input of each type, words strings; free doubles rows of any width, plus adds a constant to them; fixed
takes exactly two rows, and gives them plus that constant, and their sum.
"""

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from export.build import build
from export.sources import load_folder
from export.towers import build_towers
from export.towers_folder import load_towers
from model.checkpoint import save_network
from model.encoder import EncoderConfig
from model.text import TextConfig, TextNetwork
from tests.export.whispers import write_whisper
from tests.golden import (
    BARE_ONNX_MODELS,
    CONSTANT,
    CROSS_ENCODERS,
    GOLDEN_MODELS,
    GOLDEN_NETWORK,
    GOLDEN_PAIRS,
    GOLDEN_TOWERS,
    GOLDEN_WHISPER,
    GOLDEN_WINDOWS,
)
from tests.golden.towers_folders import TOWERS, write_towers
from tests.golden.windows_folder import NAME as SWIN
from tests.golden.windows_folder import write_swin

NAME, WHISPER = "tiny-text", "tiny-whisper"
MAX_POSITIONS = 64
Kind = tuple[int, Sequence[int | str]]
_WORDS = "the a cat dog sat ran on mat film was good bad and not very it is to see of one".split()  # noqa: SIM905


def make_tokenizer(pair: str | None = None) -> Tokenizer:
    """A WordPiece tokenizer of some words and all printable ASCII characters; pair is its template for two texts."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS, *characters, *(f"##{c}" for c in characters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 -- no password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=special)
    return tokenizer


def make_network(vocab_size: int) -> TextNetwork:
    """Random weights, large enough that attention is far from uniform."""
    encoder = EncoderConfig(32, 2, 4, 64, norm="post", positions="learned", max_positions=MAX_POSITIONS)
    return spread(TextConfig(encoder, vocab_size, num_classes=2))


def make_cross_encoder(vocab_size: int, num_classes: int) -> TextNetwork:
    """A smaller one, which tells two texts apart and classifies from the first token."""
    encoder = EncoderConfig(16, 2, 2, 32, norm="post", positions="learned", max_positions=MAX_POSITIONS)
    return spread(TextConfig(encoder, vocab_size, num_segments=2, pooling="cls", num_classes=num_classes))


def spread(config: TextConfig) -> TextNetwork:
    """A network with random weights."""
    torch.manual_seed(0)
    network = TextNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.4)
    return network.eval()


def save_bare_onnx(name: str, nodes: list[onnx.NodeProto], inputs: dict[str, Kind], outputs: dict[str, Kind]) -> None:
    """Write an ONNX file; inputs and outputs are element types and shapes by name."""
    takes, gives = (
        [helper.make_tensor_value_info(key, *kind) for key, kind in some.items()] for some in (inputs, outputs)
    )
    constant = helper.make_tensor("constant", TensorProto.FLOAT, [], struct.pack("<f", CONSTANT), raw=True)
    used = [constant] if any("constant" in node.input for node in nodes) else []
    path = Path(BARE_ONNX_MODELS, name, "1", "model.onnx")
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, name, takes, gives, used)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def save_bare_onnx_models() -> None:
    """Write those without a contract."""
    types = ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
    types += ["FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE"]
    kinds: dict[str, Kind] = {name: (getattr(TensorProto, name), ["rows", 3]) for name in types}
    nodes = [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in types]
    takes, gives = ({f"{side}_{name}": kind for name, kind in kinds.items()} for side in ("in", "out"))
    save_bare_onnx("every-type", nodes, takes, gives)
    words: Kind = (TensorProto.STRING, ["rows"])
    save_bare_onnx("words", [helper.make_node("Identity", ["x"], ["y"])], {"x": words}, {"y": words})
    free: Kind = (TensorProto.FLOAT, ["rows", "width"])
    save_bare_onnx("plus", [helper.make_node("Add", ["x", "constant"], ["y"])], {"x": free}, {"y": free})
    save_bare_onnx("free", [helper.make_node("Add", ["x", "x"], ["y"])], {"x": free}, {"y": free})
    nodes = [helper.make_node("Add", ["x", "constant"], ["y"]), helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0)]
    fixed: Kind = (TensorProto.FLOAT, [2, 3])
    save_bare_onnx("fixed", nodes, {"x": fixed}, {"y": fixed, "s": (TensorProto.FLOAT, [])})


def save_cross_encoders() -> None:
    """Write those that read pairs."""
    tokenizer = make_tokenizer("[CLS] $A [SEP] $B:1 [SEP]:1")
    for name, labels in CROSS_ENCODERS.items():
        with TemporaryDirectory() as folder:
            network = make_cross_encoder(tokenizer.get_vocab_size(), len(labels))
            save_network(network, Path(folder), labels)
            tokenizer.save(str(Path(folder, "tokenizer.json")))
            shutil.rmtree(GOLDEN_PAIRS / name, ignore_errors=True)
            build(load_folder(Path(folder), name=name, description="random weights, for tests"), GOLDEN_PAIRS)


def save_towers() -> None:
    """Write those of two towers."""
    for name in TOWERS:
        with TemporaryDirectory() as folder:
            write_towers(name, Path(folder), make_tokenizer())
            shutil.rmtree(GOLDEN_TOWERS / name, ignore_errors=True)
            build_towers(load_towers(Path(folder), name=name, description="random weights, for tests"), GOLDEN_TOWERS)


def save_windows() -> None:
    """Write the one that attends in windows."""
    with TemporaryDirectory() as folder:
        write_swin(Path(folder))
        shutil.rmtree(GOLDEN_WINDOWS / SWIN, ignore_errors=True)
        build(load_folder(Path(folder), name=SWIN, description="random weights, for tests"), GOLDEN_WINDOWS)


def save_whisper() -> None:
    """Write the one that hears."""
    with TemporaryDirectory() as folder:
        write_whisper(Path(folder, WHISPER), suppress_tokens=[*range(51, 60)])
        shutil.rmtree(GOLDEN_WHISPER / WHISPER, ignore_errors=True)
        build(load_folder(Path(folder, WHISPER), name=WHISPER, description="random weights, for tests"), GOLDEN_WHISPER)


def main() -> None:
    """Write the checkpoint folder, then export it."""
    tokenizer = make_tokenizer()
    save_network(make_network(tokenizer.get_vocab_size()), GOLDEN_NETWORK, labels=("negative", "positive"))
    tokenizer.save(str(GOLDEN_NETWORK / "tokenizer.json"))
    shutil.rmtree(GOLDEN_MODELS / NAME, ignore_errors=True)
    save_bare_onnx_models()
    save_cross_encoders()
    save_towers()
    save_windows()
    save_whisper()
    source = load_folder(GOLDEN_NETWORK, name=NAME, description="random weights, for tests")
    build(source, GOLDEN_MODELS, relevance=("libra", "layers"))


if __name__ == "__main__":
    main()
