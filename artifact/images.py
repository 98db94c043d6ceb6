"""Image files to pixels, as a contract says, with Pillow."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from artifact.contract import ImageContract
from artifact.errors import InputError
from artifact.image_files import FORMATS, ImageFile, read_image_file

_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_UPRIGHT = {  # what turns a picture of each orientation upright (CIPA DC-008, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image as a network sees it, and how it lies on what was sent.

    Attributes:
        values: float32 [channels, crop_size, crop_size], normalised.
        width: Of the sent image after its EXIF orientation, in pixels.
        height: Likewise.
        box: Left, top, right, bottom of the rectangle of the sent image that the network sees, in its pixels; it
            reaches over the image where that is padded.
    """

    values: NDArray[np.float32]
    width: int
    height: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded.

    Attributes:
        pixels: Width times height.
        scan_pixels: Pixels times scans; a progressive JPEG has about ten, each of which takes a tenth of the time of a
            baseline one.
    """

    pixels: int = 50_000_000
    scan_pixels: int = 600_000_000


_BLOCK, _SCANS_A_PICTURE = 8, 10  # pixels along a side of a JPEG's block; scans that take as long as a whole picture


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image whose size is known and whose pixels are not decoded yet.

    Attributes:
        file: What is decoded.
        size: Width and height, in pixels.
        size_bytes: Of what was sent.
        image: As Pillow opened it; None of a WebP, whose reader asks for 8 bytes a pixel as it opens a file.
    """

    file: ImageFile
    size: tuple[int, int]
    size_bytes: int
    image: Image.Image | None

    @property
    def pixels(self) -> int:
        """Width times height."""
        return math.prod(self.size)

    @property
    def scan_pixels(self) -> int:
        """Pixels times scans; what is scanned are whole blocks of a JPEG, 8 x 8, however narrow it is."""
        return self.file.scans * math.prod(-(-side // _BLOCK) * _BLOCK for side in self.size)

    @property
    def decoded_pixels(self) -> int:
        """Pixels of a picture without scans that takes as long to decode: a scan takes a tenth of that."""
        return max(self.pixels, self.scan_pixels // _SCANS_A_PICTURE)


def read_image(content: bytes, contract: ImageContract, limits: ImageLimits) -> Pixels:
    """Open and decode one image.

    Args:
        content: A JPEG, PNG or WebP file. Of an animation the first frame counts.
        contract: How to preprocess.
        limits: Checked before anything is decoded.

    Raises:
        InputError: Not such a file, damaged, or too large.
    """
    return decode_image(open_image(content, limits), contract, limits)


def open_image(content: bytes, limits: ImageLimits) -> OpenedImage:
    """Look at an image's header, and refuse what would take too long to decode.

    Raises:
        InputError: Not such a file, damaged, or too large.
    """
    file = read_image_file(content)
    size, image = file.size, None
    if size is None:
        with _telling_damage(len(content), limits):
            image = _open(file)
        size = image.size
    opened = OpenedImage(file, size, len(content), image)
    said = f"{size[0]} x {size[1]} pixels"
    if opened.pixels > limits.pixels:
        raise InputError("image", said, f"at most {limits.pixels} pixels (the server's --max-image-pixels)")
    if opened.scan_pixels > limits.scan_pixels:
        expected = f"at most {limits.scan_pixels} pixels in all scans (the server's --max-image-scan-pixels)"
        raise InputError("image", f"{said} in each of {file.scans} scans", expected)
    return opened


def decode_image(opened: OpenedImage, contract: ImageContract, limits: ImageLimits) -> Pixels:
    """Decode, turn upright, resize, crop and normalise an image.

    Raises:
        InputError: It is damaged, or so long that it would be too large when it is resized.
    """
    upright = _turn_upright(opened, limits)
    upright = upright if upright.mode == contract.mode else upright.convert(contract.mode)
    width, height = upright.size
    size = _resized_size(width, height, contract)
    if size[0] * size[1] > limits.pixels:
        raise InputError(
            "image", f"{width} x {height} pixels", f"a shape that fits {limits.pixels} pixels at {size[0]} x {size[1]}"
        )
    resized = upright.resize(size, _RESAMPLE[contract.resample])
    # As Hugging Face's processors round, so that both cut the same pixels.
    left, top = (
        (0, 0)
        if contract.pad
        else ((resized.width - contract.crop_size) // 2, (resized.height - contract.crop_size) // 2)
    )
    per_x, per_y = width / resized.width, height / resized.height
    right, bottom = left + contract.crop_size, top + contract.crop_size
    box = (left * per_x, top * per_y, right * per_x, bottom * per_y)
    if contract.pad:
        return Pixels(_pad(_normalize(resized, contract), contract.crop_size), width, height, box)
    return Pixels(_normalize(resized.crop((left, top, right, bottom)), contract), width, height, box)


def _turn_upright(opened: OpenedImage, limits: ImageLimits) -> Image.Image:
    with _telling_damage(opened.size_bytes, limits):
        image = opened.image or _open(opened.file)
        image.load()
    turn = _UPRIGHT.get(opened.file.orientation)
    return _to_8_bits(image if turn is None else image.transpose(turn))


def _open(file: ImageFile) -> Image.Image:
    return Image.open(io.BytesIO(file.content), formats=FORMATS)


@contextmanager
def _telling_damage(size_bytes: int, limits: ImageLimits) -> Iterator[None]:
    """Turn what Pillow's decoders raise on damaged files into InputError."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError("image", error, f"at most {limits.pixels} pixels (the server's --max-image-pixels)") from error
    except UnidentifiedImageError as error:
        raise InputError("image", f"{size_bytes} bytes without a header", f"a {', '.join(FORMATS)} file") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError("image", f"{size_bytes} bytes: {error}", f"a whole {', '.join(FORMATS)} file") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow's own conversion would clip to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.minimum(np.asarray(image, dtype=np.uint32) >> 8, 255).astype(np.uint8))


def _resized_size(width: int, height: int, contract: ImageContract) -> tuple[int, int]:
    shorter = contract.resize_shorter_edge
    if contract.pad:
        scale = contract.crop_size / max(width, height)
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    if shorter is None:
        edge = contract.resize_edges or contract.crop_size
        return edge, edge
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _pad(values: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Fill a square up with zeros, below and on the right."""
    padded = np.zeros((len(values), edge, edge), dtype=np.float32)
    padded[:, : values.shape[1], : values.shape[2]] = values
    return padded


def _normalize(image: Image.Image, contract: ImageContract) -> NDArray[np.float32]:
    """Scale to [0, 1], subtract the mean and divide by the deviation; float32 [channels, height, width]."""
    pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    mean = np.array(contract.mean, dtype=np.float32)[:, None, None]
    std = np.array(contract.std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray((pixels / np.float32(255) - mean) / std)
