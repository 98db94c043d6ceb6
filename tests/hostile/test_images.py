"""Pictures of few bytes that take long to decode, or much memory, or a large network's time."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from regard.v1 import regard_pb2 as api
from server.api.open_inference import open_inference_pb2 as pb
from tests.hostile.asking import ask
from tests.hostile.conftest import folder_of
from tests.hostile.measure import IS_FULL, Attack, Hostile, Target, Withstand, attacked, cases, withstanding
from tests.processes import ROOT

SECONDS = 30.0 if IS_FULL else 3.0
SIDE = 7050 if IS_FULL else 2000  # of a picture, in pixels: the largest that is taken is 7,071
SCANS = 400 if IS_FULL else 100
MAX_GROWTH_MB = 512.0 if IS_FULL else 192.0
WEBP_GROWTH_MB = 16e-6 * SIDE**2 + 192  # of one, which the library needs, and of what stays until memory is given back
CODES = ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
LARGE_MODEL = "vit-s14-518"


def encode(image: Image.Image, kind: str, **options: bool) -> bytes:
    """Write a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def many_scans() -> bytes:
    """A progressive JPEG whose last scan, which changes nothing, is there hundreds of times."""
    content = encode(Image.new("L", (SIDE, SIDE), 128), "JPEG", progressive=True)[:-2]
    scans = [place for place in range(len(content)) if content.startswith(b"\xff\xda", place)]
    table = content.rfind(b"\xff\xc4", scans[-2], scans[-1])
    return content + content[table if table > 0 else scans[-1] :] * SCANS + b"\xff\xd9"


def classify(target: Target, image: bytes, callers: int) -> "Counter[str]":
    """Ask at once; the callers wait no longer than they say."""
    request = api.ClassifyRequest(model="fashion", image=image).SerializeToString()
    return ask(target, "/regard.v1.RegardService/Classify", *[request] * callers, seconds=SECONDS)


def jpegs_of_many_scans(target: Target) -> "Counter[str]":
    """Some at once."""
    return classify(target, many_scans(), 8)


def large_pngs_in_one_request(target: Target) -> "Counter[str]":
    """A batch of them, a few KB each."""
    return infer_images(target, "fashion", [encode(Image.new("1", (SIDE, SIDE)), "PNG")] * 32)


def large_pngs_at_once(target: Target) -> "Counter[str]":
    """One each, by many callers."""
    return classify(target, encode(Image.new("1", (SIDE, SIDE)), "PNG"), 32)


def large_webps_at_once(target: Target) -> "Counter[str]":
    """Likewise, of another format."""
    return classify(target, encode(Image.new("RGB", (SIDE, SIDE)), "WEBP", lossless=True), 16)


def tiny_pngs_to_a_large_network(target: Target) -> "Counter[str]":
    """A batch of one pixel each, every limit kept: the run takes half a minute on two cores."""
    return infer_images(target, LARGE_MODEL, [encode(Image.new("L", (1, 1)), "PNG")] * 32)


def infer_images(target: Target, model: str, images: list[bytes]) -> "Counter[str]":
    """Ask once, with a batch."""
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    tensor.contents.bytes_contents.extend(images)
    return ask(target, "/inference.GRPCInferenceService/ModelInfer", request.SerializeToString(), seconds=SECONDS)


ATTACKS: tuple[Attack, ...] = (
    jpegs_of_many_scans,
    large_pngs_in_one_request,
    large_pngs_at_once,
    large_webps_at_once,
)


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_pictures_take_bounded_time_and_memory(attack: Attack, withstand: Withstand) -> None:
    """And others' are decoded beside them."""
    most = WEBP_GROWTH_MB if attack is large_webps_at_once else MAX_GROWTH_MB
    withstand(attack, CODES, most, max_left_mb=most)


def test_pictures_do_not_keep_a_server_from_ending(hostile: Hostile) -> None:
    """Their callers have gone; the server ends within its time to drain."""
    jpegs_of_many_scans(hostile.target)
    assert hostile.stop() == 0


@pytest.mark.skipif(not (IS_FULL and (ROOT / "models" / LARGE_MODEL).is_dir()), reason=f"needs models/{LARGE_MODEL}")
def test_a_request_larger_than_a_run_lets_others_in_between(
    transport: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """It is cut into several runs."""
    with attacked(transport, folder_of(tmp_path / "models", LARGE_MODEL), tmp_path / "clients.toml") as hostile:
        withstanding(hostile, record_property)(tiny_pngs_to_a_large_network, CODES, MAX_GROWTH_MB)
