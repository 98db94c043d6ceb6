"""Image files to pixels, as a contract says, with Pillow."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from artifact.contract import ImageContract
from artifact.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")
_RESAMPLE = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {  # what turns a picture of each orientation upright
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
        box: Left, top, right, bottom of the rectangle of the sent image that the network sees, in its pixels.
    """

    values: NDArray[np.float32]
    width: int
    height: int
    box: tuple[float, float, float, float]


def read_image(content: bytes, contract: ImageContract, max_pixels: int) -> Pixels:
    """Decode, turn upright, resize, crop and normalise one image.

    Args:
        content: A JPEG, PNG or WebP file. Of an animation the first frame counts.
        contract: How to preprocess.
        max_pixels: Largest width times height; checked before anything is decoded.

    Raises:
        InputError: Not such a file, damaged, or too large.
    """
    upright = _to_8_bits(_decode(content, max_pixels)).convert(contract.mode)
    width, height = upright.size
    size = _resized_size(width, height, contract)
    if size[0] * size[1] > max_pixels:
        raise InputError(
            "image", f"{width} x {height} pixels", f"a shape that fits {max_pixels} pixels at {size[0]} x {size[1]}"
        )
    resized = upright.resize(size, _RESAMPLE[contract.resample])
    # As Hugging Face's processors round, so that both cut the same pixels.
    left, top = (resized.width - contract.crop_size) // 2, (resized.height - contract.crop_size) // 2
    cropped = resized.crop((left, top, left + contract.crop_size, top + contract.crop_size))
    per_x, per_y = width / resized.width, height / resized.height
    right, bottom = left + contract.crop_size, top + contract.crop_size
    box = (left * per_x, top * per_y, right * per_x, bottom * per_y)
    return Pixels(_normalize(cropped, contract), width, height, box)


def _decode(content: bytes, max_pixels: int) -> Image.Image:
    if not content:
        raise InputError("image", "empty", f"a {', '.join(FORMATS)} file")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > max_pixels:
            size = f"{image.width} x {image.height} pixels"
            raise InputError("image", size, f"at most {max_pixels} pixels (the server's --max-image-pixels)")
        image.load()
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError("image", error, f"at most {max_pixels} pixels (the server's --max-image-pixels)") from error
    except UnidentifiedImageError as error:
        start = content[:8].hex(" ")
        raise InputError(
            "image", f"{len(content)} bytes that start with {start}", f"a {', '.join(FORMATS)} file"
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged files
        raise InputError("image", f"{len(content)} bytes: {error}", f"a whole {', '.join(FORMATS)} file") from error
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Read EXIF's orientation, 1 to 8 (CIPA DC-008, tag 0x0112); metadata that cannot be read turns nothing."""
    try:
        found = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow's readers of metadata raise whatever a damaged tag makes of them
        return 1
    return found if isinstance(found, int) else 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits, which Pillow's own conversion would clip to white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.minimum(np.asarray(image, dtype=np.uint32) >> 8, 255).astype(np.uint8))


def _resized_size(width: int, height: int, contract: ImageContract) -> tuple[int, int]:
    shorter = contract.resize_shorter_edge
    if shorter is None:
        return contract.crop_size, contract.crop_size
    if width <= height:
        return shorter, int(shorter * height / width)
    return int(shorter * width / height), shorter


def _normalize(image: Image.Image, contract: ImageContract) -> NDArray[np.float32]:
    """Scale to [0, 1], subtract the mean and divide by the deviation; float32 [channels, height, width]."""
    pixels = np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    mean = np.array(contract.mean, dtype=np.float32)[:, None, None]
    std = np.array(contract.std, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray((pixels / np.float32(255) - mean) / std)
