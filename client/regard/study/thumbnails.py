"""Small pictures of inputs that are files, where Pillow is installed."""

import base64
import io
from pathlib import Path

from regard.sources import DAMAGED_IMAGE, IMAGE_SUFFIXES

_EDGE = 160  # pixels: twice what the page shows, for dense screens


class Thumbnails:
    """Makes each picture once."""

    def __init__(self) -> None:
        self._made = dict[str, str]()

    def image(self, name: str) -> str:
        """Return the element of a picture; nothing where the input is no image file that can be read."""
        if name not in self._made:
            self._made[name] = _made(name)
        return self._made[name]


def _made(name: str) -> str:
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        return ""
    try:
        from PIL import Image, ImageOps

        with Image.open(name) as opened:
            photo = ImageOps.exif_transpose(opened).convert("RGB")
        photo.thumbnail((_EDGE, _EDGE))
    except (ModuleNotFoundError, *DAMAGED_IMAGE):
        return ""
    held = io.BytesIO()
    photo.save(held, "WEBP", quality=75)
    return f'<img src="data:image/webp;base64,{base64.b64encode(held.getvalue()).decode()}" alt="">'
