"""What is asked: the inputs, and regard's requests for them, the same for the limit, the generators and the peers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb

Inputs = dict[str, NDArray[Any]]

_LENGTHS = 8
_PHOTO = Path(__file__).parent.parent / "examples" / "photos" / "chelsea.jpg"


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Attributes:
        part: Of the whole, as `--only` names it.
        model: Which network.
        title: For the tables.
        size: As make_inputs takes it.
        batches: Rows of a run of ONNX Runtime alone.
        loads: regard's: callers, and what is asked of the attention ("none", "cls", "all") or "jpeg".
        peer_callers: The peers' loads.
    """

    part: str
    model: str
    title: str
    size: str
    batches: tuple[int, ...]
    loads: tuple[tuple[int, str], ...]
    peer_callers: tuple[int, ...] = ()


TEXT = Workload(
    part="text",
    model="minilm",
    title="MiniLM, 16 tokens",
    size="16",
    batches=(1, 8, 16, 32),
    loads=((1, "none"), (8, "none"), (32, "none"), (128, "none"), (32, "cls"), (32, "all")),
    peer_callers=(1, 8, 32),
)
MIXED = Workload("mixed", "minilm", "MiniLM, 4 to 128 tokens, mixed", "4-128", (1,), ((32, "none"),), (32,))
IMAGES = Workload("images", "vit-s14", "ViT-S/14, 224 pixels", "224px", (1, 4), ((8, "none"), (8, "jpeg")), (8,))
WORKLOADS = (TEXT, MIXED, IMAGES)
GROWTH = tuple(
    Workload("growth", "minilm", f"MiniLM, {length} tokens", str(length), (1, 8), ((8, "none"),))
    for length in (4, 64, 256)
)


def make_inputs(size: str, rows: int = 1) -> list[Inputs]:
    """Random inputs: one batch of "16" tokens, eight of "4-128" in random order, or one of "224px" or grey "1x28px"."""
    random = np.random.default_rng(0)
    if size.endswith("px"):
        channels, _, edge = size.removesuffix("px").rpartition("x")
        shape = (rows, int(channels or 3), int(edge), int(edge))
        return [{"pixel_values": random.standard_normal(shape, dtype=np.float32)}]
    shortest, _, longest = size.partition("-")
    lengths = np.linspace(int(shortest), int(longest or shortest), _LENGTHS if longest else 1).astype(int)
    batches = [random.integers(1000, 20000, (rows, length)) for length in random.permutation(lengths)]
    return [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in batches]


def make_requests(model: str, size: str, asked: str) -> list[api.PredictRequest]:
    """Requests of one row with no attention, the last layer's class token's, or all of it."""
    wanted = {"none": None, "cls": pb.AttentionRequest(layers=[-1], cls_only=True), "all": pb.AttentionRequest()}
    return [
        api.PredictRequest(
            model=model,
            inputs={name: _write_tensor(array) for name, array in inputs.items()},
            outputs=["embedding"],
            attention=wanted[asked],
        )
        for inputs in make_inputs(size)
    ]


def make_jpeg_request(model: str) -> api.EmbedRequest:
    """A photograph as it comes from a camera."""
    return api.EmbedRequest(model=model, image=_PHOTO.read_bytes())


def _write_tensor(array: NDArray[Any]) -> pb.Tensor:
    dtype = pb.DATA_TYPE_FLOAT32 if array.dtype == np.float32 else pb.DATA_TYPE_INT64
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())
