"""Small encoder-decoders in checkpoint folders, and what an export writes of them."""

from pathlib import Path
from typing import Any, Literal

import onnx
from torch import nn

from artifact.contract import PLAIN_GRAPH, WEIGHTS_FILE
from export.encoder_decoder import Writing, load_own
from export.graph import externalize, to_onnx
from export.traits import Traits
from export.write_steps import write_steps
from model.checkpoint import save_encoder_decoder
from model.encoder import Positions
from tests.model.encoder_decoders import VOCAB, make_network

VOCABULARY = ("<pad>", "<s>", "</s>", "<stress>", *"'abcdefghi", "AA", "B", "CH", "0", "1", "2")
assert len(VOCABULARY) == VOCAB


def write_checkpoint(
    folder: Path, positions: Positions = "rotary", norm: Literal["pre", "post"] = "pre", **settings: Any
) -> Path:
    """Save one with random weights."""
    save_encoder_decoder(make_network(positions, norm, **settings), folder, VOCABULARY)
    return folder


def write_graphs(checkpoint: Path, folder: Path) -> tuple[Writing, Traits]:
    """Write the plain graph and those of a step."""
    reader, traits, writing = load_own(checkpoint)
    folder.mkdir()
    write_steps(writing, write_plain(reader, traits, folder), folder)
    return writing, traits


def write_plain(reader: nn.Module, traits: Traits, folder: Path) -> onnx.ModelProto:
    """Write the plain graph with its weights beside it."""
    plain = externalize(to_onnx(reader, traits), folder / WEIGHTS_FILE)
    onnx.save_model(plain, folder / PLAIN_GRAPH)
    return plain
