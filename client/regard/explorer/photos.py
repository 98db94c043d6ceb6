"""Keeps the last photos in memory by their hash, so that links to them work."""

import hashlib
import io
from collections import OrderedDict
from threading import Lock

from PIL import Image

from regard.orientation import read_orientation
from regard.sources import DAMAGED_IMAGE

MAX_PHOTOS = 64
MAX_BYTES = 256 * 2**20


def media_type(data: bytes) -> str:
    """Return what a browser calls this image: by the first bytes, as `regard.sources.is_image` tells them."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if data.startswith(b"RIFF") else "image/png"


def orientation(data: bytes) -> int:
    """Return how EXIF says that an image is turned, 1 to 8; 1, upright, where it does not say.

    Browsers turn JPEG by themselves, but not all turn PNG and WebP; the page turns what they do not. A PNG may have its
    EXIF behind its pixels, all of which are then decoded: call this in a thread.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return read_orientation(image)
    except (*DAMAGED_IMAGE, Image.DecompressionBombError):
        return 1  # whoever asks about it will be told what is wrong with it


class PhotoStore:
    """The photos last used, at most so many and so many bytes; the one unused for longest goes first.

    Threads may share one: hashing a photo takes a while, and is best done in a thread of its own.
    """

    def __init__(self, max_photos: int = MAX_PHOTOS, max_bytes: int = MAX_BYTES) -> None:
        self._photos: OrderedDict[str, bytes] = OrderedDict()
        self._max_photos = max_photos
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = Lock()

    def put(self, data: bytes) -> str:
        """Keep a photo of at most max_bytes and return its name, the SHA-256 in hexadecimal."""
        name = hashlib.sha256(data).hexdigest()
        with self._lock:
            if name not in self._photos:
                self._photos[name] = data
                self._bytes += len(data)
            self._photos.move_to_end(name)
            while len(self._photos) > self._max_photos or self._bytes > self._max_bytes:
                _, oldest = self._photos.popitem(last=False)
                self._bytes -= len(oldest)
        return name

    def get(self, name: str) -> bytes | None:
        """Return a photo, or None where it is no longer kept or never was."""
        with self._lock:
            data = self._photos.get(name)
            if data is not None:
                self._photos.move_to_end(name)
        return data
