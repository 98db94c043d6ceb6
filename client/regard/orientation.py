"""How a picture is turned, by its EXIF, as the server reads it."""

from PIL import Image

_TAG = 0x0112
_UPRIGHT = {  # what turns a picture of each orientation upright (CIPA DC-008, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1, upright, where it does not say, or cannot be read.

    Raises:
        OSError, ValueError, SyntaxError: A PNG may have its EXIF behind its pixels, and these cannot be decoded.
    """
    if image.format == "PNG" and "exif" not in image.info:
        image.load()
    for name in ("xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # where Pillow would look for it, too
        image.info.pop(name, None)
    try:
        found = image.getexif().get(_TAG, 1)
    except Exception:  # Pillow's readers of metadata raise whatever a damaged tag makes of them
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turn_upright(image: Image.Image) -> Image.Image:
    """Return a picture as people see it; raises as `read_orientation` does."""
    turn = _UPRIGHT.get(read_orientation(image))
    return image if turn is None else image.transpose(turn)
