"""A request's images: looked at, bounded together, decoded one by one."""

import io
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from artifact.contract import Contract, ImageContract, PatchContract, read_contract
from artifact.images import ImageLimits, Pixels, read_image
from server.auth.clients import Client
from server.auth.quota import Quota
from server.config import EMBEDDED_MODELS
from server.context import RpcContext
from server.errors import InvalidInput, NotPossible, TooBusy
from server.inference import image_rows
from server.inference.decoding import LARGE_PIXELS, Decoders
from server.inference.image_rows import image_contract, read_images
from server.inference.preprocess import InputLimits, prepare_images, special_positions
from server.telemetry.metrics import Metrics
from tests.server.fakes import CONTRACT, make_model

FASHION = read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json")
MODEL = make_model(FASHION)
LIMITS = InputLimits(rows=8, text_bytes=100, image=ImageLimits(), request_pixels=5 * LARGE_PIXELS)
PATCHES = PatchContract(prefix_tokens=0, rows=2, cols=2, patch_size=2)
PIXELS = ImageContract(crop_size=4, mean=(0.0,), std=(1.0,))


class Jobs(Decoders):
    """Notes how many pixels each job has."""

    def __init__(self) -> None:
        super().__init__(2, 50_000_000, Metrics())
        self.pixels = list[int]()

    async def run(self, jobs: Sequence[tuple[Callable[[], Any], int]], context: RpcContext) -> list[Any]:
        self.pixels += [pixels for _, pixels in jobs]
        return await super().run(jobs, context)


@pytest.fixture
async def jobs() -> AsyncIterator[Jobs]:
    """Threads that decode."""
    made = Jobs()
    yield made
    made.close()


def picture(grey: int, width: int = 28, height: int = 28) -> bytes:
    """A PNG file of one colour."""
    file = io.BytesIO()
    Image.new("L", (width, height), grey).save(file, "PNG")
    return file.getvalue()


async def read(
    jobs: Jobs, *contents: bytes, limits: InputLimits = LIMITS, context: RpcContext | None = None
) -> list[Pixels]:
    """Read what somebody sent."""
    return await read_images(contents, image_contract(MODEL), limits, jobs, context or RpcContext())


async def test_images_are_the_rows_of_the_first_input(jobs: Jobs) -> None:
    """In their order; each has the positions of the model's patches, and one alone says where they lie."""
    contract = FASHION.model_copy(update={"inputs": (*FASHION.inputs, CONTRACT.inputs[0])})
    rows = await read(jobs, picture(10), picture(200))
    one, two = (prepare_images(make_model(contract), found) for found in (rows[:1], rows))
    ((name, pixels),) = two.inputs.items()
    assert name == FASHION.inputs[0].name
    assert pixels.shape == (2, 1, 28, 28)
    assert pixels[0].mean() < pixels[1].mean()
    np.testing.assert_array_equal(one.inputs[name], pixels[:1])
    assert FASHION.patches is not None
    assert (one.length, two.length) == (FASHION.patches.positions, FASHION.patches.positions)
    assert one.source is rows[0]
    assert two.source is None
    assert special_positions(MODEL, one) == range(1)


async def test_small_images_are_one_job_and_large_ones_each_their_own(jobs: Jobs) -> None:
    """As all of them together are small or not; the first job looks at the headers."""
    edge = 2**9  # four of which are 2^20 pixels
    small, large = picture(1, edge, edge), picture(2, 2 * edge, edge + 1)
    assert len(await read(jobs, small, small, small, small)) == 4
    assert jobs.pixels == [0]
    rows = await read(jobs, small, large, large)
    assert jobs.pixels[1:] == [0, edge**2, 2 * edge * (edge + 1), 2 * edge * (edge + 1)]
    assert FASHION.image is not None
    for found, content in zip(rows, (small, large, large), strict=True):
        np.testing.assert_array_equal(found.values, read_image(content, FASHION.image, ImageLimits()).values)


async def test_the_pixels_of_a_request_are_bounded_before_any_is_decoded(jobs: Jobs) -> None:
    """As many as are allowed are taken, in however many images."""
    content = picture(1, 2**10, 2**10)
    assert len(await read(jobs, *[content] * 5)) == 5
    jobs.pixels.clear()
    message = r"^image: 6291456 pixels in 6 images; expected at most 5242880 in a request \(.*--max-request-pixels\)$"
    with pytest.raises(InvalidInput, match=message):
        await read(jobs, *[content] * 6)
    assert jobs.pixels == [0]


@pytest.mark.parametrize("size", [28, 1200])
async def test_the_image_that_cannot_be_used_is_named(jobs: Jobs, size: int) -> None:
    """By its number where there are several: by its header, or when it is decoded."""
    good, bad = picture(1, size, size), picture(200, size, size)[:45]
    with pytest.raises(InvalidInput, match=r"^image: 45 bytes: .*; expected a whole"):
        await read(jobs, bad)
    with pytest.raises(InvalidInput, match=r"^image\[1\]: 45 bytes: .*; expected a whole"):
        await read(jobs, good, bad)
    few = InputLimits(8, 100, ImageLimits(size * size - 1), 10**9)
    with pytest.raises(
        InvalidInput, match=rf"^image\[0\]: {size} x {size} pixels; expected at most .*max-image-pixels"
    ):
        await read(jobs, good, good, limits=few)


async def test_a_burst_cannot_decode_more_than_its_quota(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it will take is reserved before it is decoded, and given back; it is charged for what it took."""
    monkeypatch.setattr(image_rows, "_EXPECTED_SECONDS", 1e-3)
    quota, decode = Quota("client", compute_seconds_per_second=100.0, clock=lambda: 0.0), jobs.run
    context = RpcContext(caller=Client("client", quota=quota))

    async def run(queued: Any, context: RpcContext) -> list[Any]:
        if queued[0][1]:  # the image itself: another comes while it is decoded
            with pytest.raises(TooBusy, match="client has used its quota"):
                await read(jobs, picture(1, 2**10, 2**10 + 1), context=RpcContext(caller=context.caller))
        return await decode(queued, context)

    monkeypatch.setattr(jobs, "run", run)
    assert len(await read(jobs, picture(1, 2**10, 2**10 + 1), context=context)) == 1
    assert 0 < context.decoding_seconds < 1
    quota.reserve(99.0)
    quota.reserve(99.0)
    with pytest.raises(TooBusy):
        quota.reserve(1.0)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (CONTRACT, "image: .* takes no images; expected a text"),
        (CONTRACT.model_copy(update={"text": None}), "takes tensors only; expected its own inputs"),
        (CONTRACT.model_copy(update={"patches": PATCHES}), "takes no images; expected a text"),
        (CONTRACT.model_copy(update={"image": PIXELS}), "takes no images; expected a text"),
    ],
)
def test_a_model_that_takes_no_images_says_so(contract: Contract, message: str) -> None:
    """With what it takes."""
    with pytest.raises(NotPossible, match=message):
        image_contract(make_model(contract))
