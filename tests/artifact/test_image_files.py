"""What is told of image files before they are decoded, and what a decoder gets of them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from artifact.errors import InputError
from artifact.image_files import MAX_SEGMENTS, read_image_file
from artifact.images import ImageLimits, open_image, read_image
from tests.artifact.test_images import CONTRACT, LIMITS, encode, picture

SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10" + bytes(4)  # refines 63 coefficients of the first component
END = b"\xff\xd9"


def segment(marker: int, data: bytes) -> bytes:
    """One of a JPEG's."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One of a PNG's."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def riff(chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def progressive(**options: int) -> bytes:
    """A JPEG with the ten scans of libjpeg's own script."""
    return encode(picture(), "JPEG", progressive=True, **options)


def test_the_scans_of_a_jpeg_are_counted() -> None:
    """As a decoder meets them: between stuffed bytes, restarts, padding and tables with any bytes in them."""
    content = progressive()
    assert read_image_file(encode(picture(), "JPEG")).scans == 1
    assert read_image_file(encode(picture(), "JPEG", restart_marker_blocks=1)).scans == 1
    assert read_image_file(content).scans == 10
    assert read_image_file(progressive(restart_marker_blocks=1)).scans == 10
    assert read_image_file(content.removesuffix(END) + SCAN * 90 + END).scans == 100
    assert read_image_file(content.removesuffix(END) + SCAN * 90).scans == 100
    hidden = segment(0xC4, b"\x10" + bytes([2] + [0] * 15) + END) + b"\xff" * 5 + b"\xff\x02\xff\xff"
    assert read_image_file(content.removesuffix(END) + hidden + SCAN * 5 + END).scans == 15


def test_what_is_no_scan_of_the_picture_is_not_counted() -> None:
    """A thumbnail in its metadata, and what phones put behind its end: further pictures, a film."""
    content = progressive()
    thumbnail = segment(0xE1, b"Exif\0\0" + content)
    found = read_image_file(content[:2] + thumbnail + content[2:] + content + SCAN * 1000)
    assert found.scans == 10
    assert found.content == content


def test_a_scan_may_be_long() -> None:
    """The marker behind it is found, wherever it lies."""
    content = encode(picture(), "JPEG").removesuffix(END)
    for length in (2**16 - 700, 2**16, 3 * 2**16):
        for shift in range(-3, 4):
            assert read_image_file(content + bytes(length + shift) + SCAN + END).scans == 2


def test_many_scans_of_many_pixels_are_refused() -> None:
    """Before they are decoded; as many as are allowed are taken."""
    attack = progressive().removesuffix(END) + SCAN * 90 + END
    assert read_image(attack, CONTRACT, ImageLimits(60 * 40, 64 * 40 * 100)).width == 60
    message = r"^image: 60 x 40 pixels in each of 100 scans; expected at most 255999 pixels in all scans \(.*-scan-pix"
    with pytest.raises(InputError, match=message):
        read_image(attack, CONTRACT, ImageLimits(60 * 40, 64 * 40 * 100 - 1))


def test_a_narrow_picture_has_whole_blocks() -> None:
    """A column of pixels is decoded as eight; many scans take as long as a larger picture."""
    file = io.BytesIO()
    Image.new("L", (1, 800)).save(file, "JPEG", progressive=True)
    content = file.getvalue().removesuffix(END)
    scans = read_image_file(content + END).scans
    opened = open_image(content + SCAN * (100 - scans) + END, ImageLimits(800))
    assert (opened.pixels, opened.scan_pixels, opened.decoded_pixels) == (800, 8 * 800 * 100, 8 * 800 * 10)
    assert open_image(content + END, ImageLimits(10**6)).decoded_pixels == max(800, 8 * 800 * scans // 10)


def test_honest_photographs_are_within_the_defaults() -> None:
    """Fifty million pixels in ten scans."""
    assert ImageLimits().pixels * 10 <= ImageLimits().scan_pixels


@pytest.mark.parametrize("kind", [0xC3, 0xC5, 0xC9, 0xCA, 0xCC, 0xCF])
def test_kinds_of_jpeg_that_nobody_writes_are_refused(kind: int) -> None:
    """Arithmetic coding, lossless, hierarchical: what they cost is not told by their length."""
    content = encode(picture(), "JPEG")
    with pytest.raises(InputError, match=f"a JPEG of kind FF {kind:X}; expected baseline or progressive"):
        read_image_file(content.replace(b"\xff\xc0", bytes((0xFF, kind))))


def test_a_decoder_gets_only_what_makes_pixels() -> None:
    """Padding, comments, metadata and unknown chunks take Pillow microseconds each, by the million."""
    jpeg, png = encode(picture(), "JPEG"), encode(picture())
    for extra in (b"\xff" * 10**6, bytes(10**6), segment(0xFE, b"") * 1000, segment(0xE2, bytes(60_000)) * 100):
        assert read_image_file(jpeg[:20] + extra + jpeg[20:]).content == jpeg
    compressed = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20)))
    for extra in (chunk(b"prIv") * 1000, compressed * 100, chunk(b"tEXt", b"a\0" + bytes(1000)) * 100):
        assert read_image_file(png[:33] + extra + png[33:]).content == png
        assert read_image_file(png[:-12] + extra + png[-12:]).content == png


def test_what_changes_pixels_stays() -> None:
    """Adobe's colours of a JPEG; palette and transparency of a PNG."""
    for content in (
        encode(picture().convert("CMYK"), "JPEG"),
        encode(picture(), "JPEG", keep_rgb=True),
        encode(picture().quantize(16), transparency=3),
        encode(picture(), transparency=(1, 2, 3)),
    ):
        kept = Image.open(io.BytesIO(read_image_file(content).content)).convert("RGBA")
        np.testing.assert_array_equal(kept, Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize("part", ["comment", "scan", "chunk", "frame"])
def test_too_many_parts_are_refused(part: str) -> None:
    """Even where each is left out: looking at them takes time, too."""
    jpeg, png, webp = (encode(picture(8, 8), kind) for kind in ("JPEG", "PNG", "WEBP"))
    content = {
        "comment": jpeg[:2] + segment(0xFE, b"") * MAX_SEGMENTS + jpeg[2:],
        "scan": jpeg.removesuffix(END) + SCAN * MAX_SEGMENTS + END,
        "chunk": png[:33] + chunk(b"IDAT") * MAX_SEGMENTS + png[33:],
        "frame": riff(webp[12:] + (b"ANMF" + bytes(4)) * MAX_SEGMENTS),
    }[part]
    with pytest.raises(InputError, match="image: more than 65536 parts; expected"):
        read_image_file(content)


def test_the_tables_of_a_jpeg_are_bounded() -> None:
    """Pillow reads them byte by byte."""
    jpeg, tables = encode(picture(), "JPEG"), segment(0xDB, (b"\0" + bytes(64)) * 1000)
    with pytest.raises(InputError, match=r"bytes of tables; expected a JPEG with at most 65536"):
        read_image_file(jpeg[:2] + tables * 2 + jpeg[2:])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "letter"), [(1, "B"), (3, "H"), (4, "I")])
def test_the_orientation_is_read_from_exif_alone(order: str, kind: int, letter: str) -> None:
    """In either byte order and every integer type, behind other tags; nonsense turns nothing."""

    def tiff(value: int, start: int = 8) -> bytes:
        entries = struct.pack(f"{order}HHI4s", 0x010F, 2, 10**9, b"\xff" * 4)
        entries += struct.pack(f"{order}HHI4s", 0x0112, kind, 1, struct.pack(order + letter, value))
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
        return head + struct.pack(f"{order}H", 2) + entries

    jpeg, png, webp = (encode(picture(), kind) for kind in ("JPEG", "PNG", "WEBP"))
    for exif, expected in ((tiff(6), 6), (tiff(9), 1), (tiff(0), 1), (tiff(6, 10**9), 1), (tiff(6)[:-12], 1)):
        padded = exif + bytes(len(exif) % 2)
        files = (
            jpeg[:2] + segment(0xE1, b"Exif\0\0" + exif) + jpeg[2:],
            png[:33] + chunk(b"eXIf", exif) + png[33:],
            riff(webp[12:] + b"EXIF" + struct.pack("<I", len(padded)) + padded),
        )
        assert [read_image_file(file).orientation for file in files] == [expected] * 3


@pytest.mark.parametrize(("mode", "kept"), [("RGB", False), ("RGBA", False), ("RGB", True), ("RGBA", True)])
def test_the_size_of_a_webp_is_told_by_its_first_chunk(mode: str, kept: bool) -> None:
    """Of each kind: lossy, lossless, extended with transparency, metadata or frames."""
    images = [picture(width, height).convert(mode) for width, height in ((1, 1), (60, 40), (301, 2), (3, 700))]
    for image in images:
        for more in ({}, {"exif": b"II*\0"}, {"save_all": True, "append_images": [image.rotate(180)]}):
            assert read_image_file(encode(image, "WEBP", lossless=kept, **more)).size == image.size
    scaled = bytearray(encode(images[1], "WEBP"))
    if scaled[12:16] == b"VP8 ":
        scaled[27] |= 0x40  # the upper bits say how to scale, which nobody does
        assert read_image_file(bytes(scaled)).size == (60, 40)


def test_a_large_webp_is_refused_before_its_reader_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader asks for 8 bytes a pixel as it opens a file, so that it waits for its turn, too."""
    monkeypatch.setattr(Image, "open", None)
    for more in ({"lossless": True}, {}, {"exif": b"II*\0"}):
        content = encode(picture(), "WEBP", **more)
        assert open_image(content, ImageLimits(60 * 40)).pixels == 60 * 40
        with pytest.raises(InputError, match=r"^image: 60 x 40 pixels; expected at most 2399 pixels"):
            open_image(content, ImageLimits(60 * 40 - 1))


def test_a_webp_that_says_two_sizes_is_refused() -> None:
    """Its canvas is small, its picture is not."""
    content = bytearray(encode(picture(), "WEBP", exif=b"II*\0"))
    content[24:30] = bytes(6)
    assert read_image_file(bytes(content)).size == (1, 1)
    with pytest.raises(InputError, match="expected a whole JPEG, PNG, WEBP file"):
        read_image(bytes(content), CONTRACT, LIMITS)


@pytest.mark.parametrize("cut", [12, 16, 20, 24])
def test_a_webp_without_a_size_is_refused(cut: int) -> None:
    """Cut short, or with something else at its beginning."""
    for content in (encode(picture(), "WEBP"), encode(picture(), "WEBP", lossless=True)):
        for damaged in (content[:cut], content[:12] + bytes(12) + content[24:]):
            with pytest.raises(InputError, match=f"{len(damaged)} bytes without a header; expected a whole WEBP file"):
                read_image_file(damaged)


def test_of_an_animation_the_first_picture_counts() -> None:
    """And no other is decoded."""
    others = [Image.new("RGB", (60, 40), "red")] * 3
    for kind in ("PNG", "WEBP"):
        moving = encode(picture(), kind, save_all=True, append_images=others, duration=50, lossless=True)
        still = encode(picture(), kind, lossless=True)
        expected = read_image(still, CONTRACT, LIMITS).values
        np.testing.assert_array_equal(read_image(moving, CONTRACT, LIMITS).values, expected)
    assert b"fdAT" not in read_image_file(encode(picture(), save_all=True, append_images=others)).content
