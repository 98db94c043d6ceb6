"""How pictures are turned: as the server turns them, whatever their metadata is like."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.explorer.photos import orientation
from regard.orientation import read_orientation
from regard.pictures import open_photo


def encode(kind: str, **options: Any) -> bytes:
    """A file of 6 x 4 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, kind, **options)
    return file.getvalue()


def exif(value: int) -> Image.Exif:
    """Metadata with an orientation between other tags."""
    tags = Image.Exif()
    tags[0x010F], tags[0x0112], tags[0x011A] = "a camera", value, 300.0
    return tags


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", range(10))
def test_a_photo_is_turned_as_its_exif_says(kind: str, value: int) -> None:
    """Lying from 5 on; nonsense turns nothing."""
    content = encode(kind, exif=exif(value))
    assert orientation(content) == (value if 1 <= value <= 8 else 1)
    assert open_photo(content).size == ((4, 6) if 5 <= value <= 8 else (6, 4))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's, of what it skips
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_metadata_does_not_hinder_a_photo(kind: str) -> None:
    """Pillow's readers raise errors of many kinds."""
    random, whole = np.random.default_rng(1), exif(6).tobytes()
    for number in range(400):
        metadata = bytearray(whole)
        for place in random.integers(6, len(metadata), 1 + number % 6):
            metadata[place] = random.integers(256)
        content = encode(kind, exif=bytes(metadata))
        assert orientation(content) in range(1, 9)
        assert set(open_photo(content).size) == {6, 4}


def test_what_only_adobe_says_turns_nothing() -> None:
    """Browsers and the server do not look at XMP."""
    content = encode("JPEG", xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>')
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif()[0x0112] == 6
    with Image.open(io.BytesIO(content)) as image:
        assert read_orientation(image) == 1
