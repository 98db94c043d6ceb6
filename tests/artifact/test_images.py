import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifact.contract import ImageContract
from artifact.errors import InputError
from artifact.images import ImageLimits, read_image

CONTRACT = ImageContract(
    resize_shorter_edge=32, crop_size=24, resample="bicubic", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
)
LIMITS = ImageLimits(100_000, 1_000_000)


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """A picture in which every pixel differs from its neighbours."""
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reference(image: Image.Image) -> NDArray[np.float64]:
    """The same preprocessing written with Pillow and float64: resize, cut the centre, normalise."""
    scale = 32 / min(image.size)
    resized = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - 24) // 2, (resized.height - 24) // 2
    pixels = np.asarray(resized, dtype=np.float64)[top : top + 24, left : left + 24] / 255
    return ((pixels - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (50, 50), (32, 32), (20, 30)])
def test_pixels_equal_the_reference_for_every_shape(size: tuple[int, int]) -> None:
    """Wide, tall, square, small: within 1e-6 of Pillow and float64."""
    image = picture(*size)
    np.testing.assert_allclose(read_image(encode(image), CONTRACT, LIMITS).values, reference(image), atol=1e-6)


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (20, 30)])
def test_both_edges_may_be_resized_before_the_centre_is_cut(size: tuple[int, int]) -> None:
    """Whatever the shape; the box says which part of the sent picture was cut out."""
    contract = CONTRACT.model_copy(update={"resize_shorter_edge": None, "resize_edges": 32})
    image = picture(*size)
    got = read_image(encode(image), contract, LIMITS)
    squeezed = image.resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(got.values, reference(squeezed), atol=1e-6)
    (width, height), edge = size, 1 / 8
    np.testing.assert_allclose(got.box, (width * edge, height * edge, width * (1 - edge), height * (1 - edge)))


@pytest.mark.parametrize(
    ("size", "resized"), [((60, 40), (24, 16)), ((40, 60), (16, 24)), ((50, 50), (24, 24)), ((99, 1), (24, 1))]
)
def test_a_whole_picture_may_be_padded_to_a_square(size: tuple[int, int], resized: tuple[int, int]) -> None:
    """With zeros after normalising; the box reaches over the picture as far as the padding does."""
    contract = CONTRACT.model_copy(update={"resize_shorter_edge": None, "pad": True})
    image = picture(*size)
    got = read_image(encode(image), contract, LIMITS)
    pixels = np.asarray(image.resize(resized, Image.Resampling.BICUBIC), dtype=np.float64) / 255
    width, height = resized
    expected = np.zeros((3, 24, 24))
    expected[:, :height, :width] = ((pixels - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]).transpose(2, 0, 1)
    np.testing.assert_allclose(got.values, expected, atol=1e-6)
    np.testing.assert_allclose(got.box, (0, 0, 24 * size[0] / width, 24 * size[1] / height))


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_jpeg_png_and_webp_are_read(kind: str, options: dict[str, Any]) -> None:
    """Each as Pillow decodes it."""
    content = encode(picture(), kind, **options)
    expected = reference(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_allclose(read_image(content, CONTRACT, LIMITS).values, expected, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    """What a camera stored turned or mirrored is seen as it was taken, whichever of the eight ways."""
    undo: dict[int, Callable[[Image.Image], Image.Image]] = {
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    upright = picture()
    stored = undo[orientation](upright) if orientation > 1 else upright
    exif = upright.getexif()
    exif[0x0112] = orientation
    pixels = read_image(encode(stored, "PNG", exif=exif), CONTRACT, LIMITS)
    assert (pixels.width, pixels.height) == upright.size
    np.testing.assert_allclose(pixels.values, reference(upright), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_other_colour_modes_are_converted_to_what_the_network_takes(mode: str) -> None:
    """As Pillow converts them."""
    converted = picture().convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    content = encode(converted, kind)
    expected = reference(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_allclose(read_image(content, CONTRACT, LIMITS).values, expected, atol=1e-6)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    """Half of 65535 is a middle grey, not white."""
    for grey, expected in ((30_000, 117), (0, 0), (65_535, 255)):
        values = np.full((40, 60), grey, dtype=np.uint16)
        pixels = read_image(encode(Image.fromarray(values)), CONTRACT, LIMITS).values
        np.testing.assert_allclose(pixels[0], (expected / 255 - 0.4) / 0.2, atol=1e-6)


def test_a_grey_network_gets_one_channel() -> None:
    """Resized to the exact size where no shorter edge is given."""
    grey = ImageContract(mode="L", crop_size=28, resample="bilinear", mean=(0.5,), std=(0.5,))
    pixels = read_image(encode(picture()), grey, LIMITS)
    assert pixels.values.shape == (1, 28, 28)
    assert pixels.box == (0, 0, 60, 40)


def test_the_box_is_the_part_of_the_sent_image_that_the_network_sees() -> None:
    """60 x 40 becomes 48 x 32, of which 24 x 24 from (12, 4) are cut: (15, 5) to (45, 35) in the sent image."""
    assert read_image(encode(picture()), CONTRACT, LIMITS).box == (15.0, 5.0, 45.0, 35.0)


def bomb() -> bytes:
    """A small PNG file that says it has 30,000 x 30,000 pixels."""
    content = bytearray(encode(Image.new("1", (8, 8))))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    crc = zlib.crc32(bytes(content[12:29]))
    content[29:33] = crc.to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image: empty; expected a JPEG, PNG, WEBP file"),
        (b"hello, world", "12 bytes that start with 68 65 6c 6c 6f 2c 20 77; expected a JPEG, PNG, WEBP file"),
        (encode(picture(), "GIF"), "start with 47 49 46 38.*; expected a JPEG, PNG, WEBP file"),
        (encode(picture(), "JPEG")[:700], "700 bytes: .*; expected a whole JPEG, PNG, WEBP file"),
        (encode(picture(), "PNG")[:700], "700 bytes: .*; expected a whole JPEG, PNG, WEBP file"),
        (encode(picture(), "WEBP")[:700], "700 bytes.*; expected a(?: whole)? JPEG, PNG, WEBP file"),
        (encode(picture())[:20], "20 bytes.*; expected a(?: whole)? JPEG, PNG, WEBP file"),
        (encode(picture(400, 300)), "400 x 300 pixels; expected at most 100000 pixels"),
        (encode(picture(5000, 2)), r"5000 x 2 pixels; expected a shape that fits 100000 pixels"),
        (bomb(), "expected at most 100000 pixels"),
    ],
    ids=["empty", "text", "gif", "cut jpeg", "cut png", "cut webp", "header only", "large", "strip", "bomb"],
)
def test_what_is_no_whole_small_image_is_refused(content: bytes, message: str) -> None:
    """With what came and what was expected."""
    with pytest.raises(InputError, match=message):
        read_image(content, CONTRACT, LIMITS)


def test_a_damaged_image_never_raises_anything_else() -> None:
    """Bytes changed at random are either read or refused."""
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP"):
        whole = encode(picture(), kind)
        for _ in range(100):
            damaged = bytearray(whole)
            for place in random.integers(0, len(whole), 5):
                damaged[place] = random.integers(256)
            try:
                assert np.isfinite(read_image(bytes(damaged), CONTRACT, LIMITS).values).all()
            except InputError as error:
                assert str(error).startswith("image: ")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's, of what it skips
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_metadata_does_not_hinder_the_picture(kind: str) -> None:
    """Whatever stands in a file's EXIF: the pixels are read, and the orientation if it can be."""
    random, exif = np.random.default_rng(1), Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a camera", 300.0
    for number in range(400):
        metadata = bytearray(exif.tobytes())
        for place in random.integers(6, len(metadata), 1 + number % 6):
            metadata[place] = random.integers(256)
        found = read_image(encode(picture(), kind, exif=bytes(metadata)), CONTRACT, LIMITS)
        assert {found.width, found.height} == {60, 40}


def test_as_many_pixels_as_are_allowed_are_taken() -> None:
    """Of the file, and of what is made of it: 60 x 40 becomes 48 x 32."""
    assert read_image(encode(picture()), CONTRACT, ImageLimits(60 * 40)).width == 60
    with pytest.raises(InputError, match=r"^image: 60 x 40 pixels; expected at most 2399 pixels"):
        read_image(encode(picture()), CONTRACT, ImageLimits(60 * 40 - 1))
    grown = CONTRACT.model_copy(update={"resize_shorter_edge": 80})
    assert read_image(encode(picture()), grown, ImageLimits(120 * 80)).width == 60
    with pytest.raises(InputError, match="60 x 40 pixels; expected a shape that fits 9599 pixels at 120 x 80"):
        read_image(encode(picture()), grown, ImageLimits(120 * 80 - 1))


@pytest.mark.parametrize("size", [(33, 32), (32, 33), (37, 35), (35, 37)])
def test_an_odd_rest_is_cut_as_hugging_face_cuts_it(size: tuple[int, int]) -> None:
    """A pixel more on the right and below; the shorter edge decides, however close they are."""
    odd = CONTRACT.model_copy(update={"crop_size": 23})
    found = read_image(encode(picture(*size)), odd, LIMITS)
    scale = 32 / min(size)
    width, height = int(size[0] * scale), int(size[1] * scale)
    left, top = (width - 23) // 2, (height - 23) // 2
    ends = (left, top, left + 23, top + 23)
    assert found.box == pytest.approx([end * size[i % 2] / (width, height)[i % 2] for i, end in enumerate(ends)])
    resized = picture(*size).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, dtype=np.float64)[top : top + 23, left : left + 23] / 255
    expected = ((pixels - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]).transpose(2, 0, 1)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
