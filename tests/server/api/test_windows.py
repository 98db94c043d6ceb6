"""A network whose layers attend in windows, by both protocols: each layer's own grid, and what is refused of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from artifact.contract import Contract, read_contract
from artifact.images import ImageLimits, read_image
from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as oip
from server.api.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from server.api.regard_v1.tensors import read_tensor, write_tensor
from tests.golden import GOLDEN_WINDOWS
from tests.server.api.open_inference.messages import make_bytes_request, make_request, read
from tests.server.api.reference import TOLERANCE
from tests.server.api.towers import picture
from tests.server.asking import CODES, refused
from tests.server.conftest import Running

MODEL = "tiny-swin"
FOLDER = GOLDEN_WINDOWS / MODEL / "1"
PHOTO = picture()
SHAPES = [(2, 100, 16), (2, 100, 16), (4, 25, 16), (4, 25, 16)]  # heads, queries and keys of each layer
ROLLOUTS = (pb.ATTENTION_MEASURE_ROLLOUT, pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT)
NOT_OF_WINDOWS = (*ROLLOUTS, pb.ATTENTION_MEASURE_DISTANCE, pb.ATTENTION_MEASURE_CONTRIBUTION)


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small Swin."""
    folder = tmp_path_factory.mktemp("models")
    (folder / MODEL).symlink_to(GOLDEN_WINDOWS / MODEL)
    return folder


@pytest.fixture
def stub(running: Running) -> GRPCInferenceServiceStub:
    """The server, asked through the Open Inference Protocol."""
    return GRPCInferenceServiceStub(running.channel)


def contract() -> Contract:
    """The model's."""
    return read_contract(FOLDER / "contract.json")


def feed(*photos: bytes) -> NDArray[np.float32]:
    """Photos as arrays."""
    image = contract().image
    assert image
    return np.stack([read_image(photo, image, ImageLimits()).values for photo in photos])


def run_alone(pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The attention that ONNX Runtime alone gives."""
    session = onnxruntime.InferenceSession(FOLDER / "attention.onnx")
    names = [layer.output for layer in contract().attention]
    return list(session.run(names, {"pixel_values": pixels}))


def window(layer: int) -> dict[str, int]:
    """What is said of a layer's windows."""
    rows, cell_size = (10, 4) if layer < 2 else (5, 8)
    shift = 2 if layer % 2 else 0
    sizes = {"rows": rows, "cols": rows, "height": 4, "width": 4, "cell_size": cell_size}
    return sizes | {"shift_rows": shift, "shift_cols": shift}


async def test_a_model_says_how_its_layers_lie_in_windows(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """Each on a grid of its own; also among the parameters of the other protocol's configuration."""
    model = await running.stub.GetModel(api.GetModelRequest(model=MODEL))
    assert [layer.window for layer in model.model.attention_layers] == [
        pb.AttentionWindow(**window(layer)) for layer in range(4)
    ]
    assert (model.model.patches.rows, model.model.patches.patch_size) == (10, 4)
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name=MODEL))).config
    told = json.loads(config.parameters["attention_windows"].string_value)
    assert told == [{"layer": layer, **window(layer)} for layer in range(4)]


async def test_a_photos_layers_come_with_their_windows(running: Running) -> None:
    """In one answer or layer by layer: the numbers are those of the graph."""
    expected = run_alone(feed(PHOTO))
    asked = pb.AttentionRequest()
    whole = (await running.stub.Classify(api.ClassifyRequest(model=MODEL, image=PHOTO, attention=asked))).attention
    stream = running.stub.Attend(api.AttendRequest(model=MODEL, image=PHOTO, attention=asked))
    parts = [part.attention.layers[0] async for part in stream]
    for sent in (whole.layers, parts):
        for layer, (found, weights) in enumerate(zip(sent, expected, strict=True)):
            assert found.window == pb.AttentionWindow(**window(layer))
            assert (found.kind, list(found.queries)) == (pb.ATTENTION_KIND_SELF, list(range(SHAPES[layer][1])))
            np.testing.assert_allclose(read_tensor("w", found.weights), weights[0], atol=TOLERANCE)
    assert (whole.patches.rows, whole.patches.prefix_tokens, whole.patches.image_width) == (10, 0, 50)


async def test_rows_heads_keys_and_the_largest_are_chosen_as_anywhere(running: Running) -> None:
    """Rows are cells of the layer's grid, keys and indices positions of the window."""
    weights = run_alone(feed(PHOTO))[3][0]
    asked = pb.AttentionRequest(layers=[3], heads=[1, 3], rows=[24, 7], keys=[5, 2, 15], top_k=2)
    layer = (await ask(running, asked)).layers[0]
    chosen = weights[[1, 3]][:, [24, 7]][:, :, [5, 2, 15]]
    np.testing.assert_allclose(read_tensor("w", layer.weights), -np.sort(-chosen)[:, :, :2], atol=TOLERANCE)
    largest = np.array([5, 2, 15])[np.argsort(-chosen)[:, :, :2]]
    np.testing.assert_array_equal(read_tensor("i", layer.indices), largest)
    mean = pb.AttentionRequest(layers=[1], head_reduction=pb.HEAD_REDUCTION_MEAN, dtype=pb.DATA_TYPE_FLOAT16)
    reduced = read_tensor("w", (await ask(running, mean)).layers[0].weights)
    np.testing.assert_allclose(reduced, run_alone(feed(PHOTO))[1][0].mean(0), atol=5e-4)
    entropy = read_tensor(
        "e",
        (await ask(running, pb.AttentionRequest(measure=pb.ATTENTION_MEASURE_ENTROPY, layers=[3]))).layers[0].weights,
    )
    np.testing.assert_allclose(entropy, -(weights * np.log(np.maximum(weights, 1e-30))).sum(-1), atol=1e-4)


async def ask(running: Running, asked: pb.AttentionRequest) -> pb.Attention:
    """Ask of the photo."""
    answer: api.ClassifyResponse = await running.stub.Classify(
        api.ClassifyRequest(model=MODEL, image=PHOTO, attention=asked)
    )
    return answer.attention


async def test_a_row_that_the_layers_grid_has_not_is_refused(running: Running) -> None:
    """The first layers have 100 cells, the last 25."""
    for asked, match in (
        (pb.AttentionRequest(layers=[3], rows=[25]), "attention.rows: 25; expected from -25 to 24"),
        (pb.AttentionRequest(layers=[3], keys=[16]), "attention.keys: 16; expected from -16 to 15"),
    ):
        assert await refused(ask(running, asked), match) == CODES.INVALID_ARGUMENT


@pytest.mark.parametrize("measure", NOT_OF_WINDOWS)
async def test_what_goes_beyond_windows_is_refused(measure: Any, running: Running) -> None:
    """With the layer's number, though its window may hold the whole grid."""
    asked = pb.AttentionRequest(measure=measure, layers=[2, 3])
    name = pb.AttentionMeasure.Name(measure)
    match = f"attention.measure: {name}; expected none of layer 2, which attends in windows"
    assert await refused(ask(running, asked), match) == CODES.FAILED_PRECONDITION


@pytest.mark.parametrize("field", ["value_weighted", "drop_special"])
async def test_what_needs_values_or_one_sequence_is_refused(field: str, running: Running) -> None:
    """Windows have neither in common."""
    asked = pb.AttentionRequest(layers=[1], **{field: True})  # type: ignore[arg-type]
    match = f"attention.{field}: true; expected none of layer 1, which attends in windows"
    assert await refused(ask(running, asked), match) == CODES.FAILED_PRECONDITION


async def test_there_is_no_class_token(running: Running) -> None:
    """Position 0 is a patch."""
    match = "attention.cls_only: tiny-swin has no class token"
    assert await refused(ask(running, pb.AttentionRequest(cls_only=True)), match) == CODES.FAILED_PRECONDITION


async def test_rows_of_a_batch_have_windows_of_their_own(running: Running, stub: GRPCInferenceServiceStub) -> None:
    """Three photos as tensors, by both protocols, as each alone."""
    pixels = feed(PHOTO, picture(1), picture(2))
    alone = [run_alone(pixels[row : row + 1]) for row in range(3)]
    inputs = {"pixel_values": write_tensor(pixels)}
    answer = await running.stub.Predict(
        api.PredictRequest(model=MODEL, inputs=inputs, attention=pb.AttentionRequest(layers=[1, 3]))
    )
    request = make_request(MODEL, pixel_values=pixels)
    for name in ("attention.1", "attention.3"):
        request.outputs.add(name=name)
    other = read(await stub.ModelInfer(request))
    for layer, found in zip((1, 3), answer.attention.layers, strict=True):
        expected = np.concatenate([one[layer] for one in alone])
        np.testing.assert_allclose(read_tensor("w", found.weights), expected, atol=TOLERANCE)
        np.testing.assert_allclose(other[f"attention.{layer}"], expected, atol=TOLERANCE)


async def test_the_other_protocol_refuses_alike(stub: GRPCInferenceServiceStub) -> None:
    """In the words of its parameters."""
    request = make_bytes_request(MODEL, "image", PHOTO)
    request.parameters["attention_measure"].string_param = "rollout"
    match = r"parameters\[attention_measure\]: rollout; expected none of layer 0, which attends in windows"
    assert await refused(stub.ModelInfer(request), match) == CODES.FAILED_PRECONDITION
