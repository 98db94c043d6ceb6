"""What an image file holds, told from its bytes before a decoder sees them.

A decoder gets only what makes pixels. Pillow reads the rest in Python: four megabytes of padding, of empty segments or
of compressed profiles take it five to nine seconds, whatever the size of the picture.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from artifact.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_SEGMENTS = 65_536
_MAX_TABLE_BYTES = 64 * 2**10  # of a JPEG, before its first scan; those of Annex K of ITU-T T.81 take 700
_STEP_BYTES = 64 * 2**10  # looked through or copied at a time, so that other threads get their turn

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))

# Of JPEG (ITU-T T.81, table B.1). What is no marker, or a restart between blocks, is passed over as decoders do.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_SOI, _EOI, _SOS, _DHT, _DQT, _DRI, _APP0, _APP1, _APP14 = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xEE
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended, progressive; each with Huffman's coding
_KEPT = _FRAMES | {_DHT, _DQT, _DRI, _APP0, _APP14}  # the last two say which colours there are
_REFUSED = frozenset(range(0xC0, 0xD0)) - _FRAMES - {_DHT}  # lossless, hierarchical, arithmetic coding

_ORIENTATION_TAG = 0x0112
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG of TIFF


@dataclass(frozen=True)
class ImageFile:
    """An image file as far as it is known before it is decoded.

    Attributes:
        content: What a decoder needs of it.
        scans: How often a decoder goes over all pixels; more than once for a progressive JPEG.
        orientation: EXIF's, 1 to 8; 1, upright, where none can be read.
        size: Width and height in pixels, of a WebP; None for other kinds, which Pillow opens without memory for pixels.
    """

    content: bytes
    scans: int = 1
    orientation: int = 1
    size: tuple[int, int] | None = None


def read_image_file(content: bytes) -> ImageFile:
    """Look through a file without decoding anything, in a time that its length bounds.

    Raises:
        InputError: Of no known kind, or of too many parts.
    """
    if content.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(content)
    if content.startswith(_PNG):
        return _read_png(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return _read_webp(content)
    found = f"{len(content)} bytes that start with {content[:8].hex(' ')}" if content else "empty"
    raise InputError("image", found, f"a {', '.join(FORMATS)} file")


def _read_jpeg(content: bytes) -> ImageFile:
    """Count the scans, and leave out padding, application data, comments and what follows the picture's end."""
    tables, scans, orientation = [content[:2]], 0, 1
    first = end = len(content)  # of the first scan, of the picture
    for marker, start, stop in _segments(content):
        if marker in _REFUSED:
            raise InputError("image", f"a JPEG of kind FF {marker:X}", "baseline or progressive, Huffman-coded")
        if marker == _SOS:
            scans += 1
            first = min(first, start)
        elif marker == _EOI:
            end = stop
        elif not scans and marker in _KEPT:
            tables.append(content[start:stop])
        elif marker == _APP1 and content.startswith(b"Exif\0\0", start + 4):
            orientation = _orientation(content[start + 10 : stop])
    header = b"".join(tables)
    if len(header) > _MAX_TABLE_BYTES:
        raise InputError("image", f"{len(header)} bytes of tables", f"a JPEG with at most {_MAX_TABLE_BYTES}")
    picture = (content[start : min(start + _STEP_BYTES, end)] for start in range(first, end, _STEP_BYTES))
    return ImageFile(b"".join((header, *picture)), scans, orientation)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each of a JPEG's segments, until its end; a scan's data is no segment."""
    place = 2
    for _ in _counted():
        found = _next_marker(content, place)
        if found is None:
            return
        marker, start = content[found + 1], found
        place = start + 2
        if marker not in (_SOI, _EOI):
            place += max(int.from_bytes(content[place : place + 2], "big"), 2)
        yield marker, start, place
        if marker == _EOI:
            return


def _next_marker(content: bytes, place: int) -> int | None:
    """Find a marker from some place on: a few thousand bytes of a scan, or tens of millions, lie before it."""
    for start in range(place, len(content), _STEP_BYTES):
        if found := _MARKER.search(content, start, start + _STEP_BYTES + 1):
            return found.start()
    return None


def _read_png(content: bytes) -> ImageFile:
    """Leave out all chunks but those that make pixels; of an animation the first picture stays."""
    chunks, place, orientation = [content[:8]], 8, 1
    for _ in _counted():
        kind = content[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if kind in _PNG_CHUNKS:
            chunks.append(content[place:end])
        elif kind == b"eXIf":
            orientation = _orientation(content[place + 8 : end - 4])
        place = end
        if kind == b"IEND" or place >= len(content):
            break
    return ImageFile(b"".join(chunks), orientation=orientation)


def _read_webp(content: bytes) -> ImageFile:
    """Tell the size, and count the chunks, all of which libwebp looks at; it keeps metadata to itself."""
    place, orientation, stop = 12, 1, min(8 + int.from_bytes(content[4:8], "little"), len(content))
    for _ in _counted():
        kind, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if kind == b"EXIF":
            orientation = _orientation(content[place + 8 : place + 8 + size].removeprefix(b"Exif\0\0"))
        place += 8 + size + size % 2
        if place >= stop:
            break
    return ImageFile(content, orientation=orientation, size=_webp_size(content))


def _webp_size(content: bytes) -> tuple[int, int]:
    """Read width and height from the first chunk (RFC 9649, 2.5 to 2.7; RFC 6386, 9.1).

    Raises:
        InputError: There is none that tells them.
    """
    kind, start = content[12:16], content[20:30]
    if kind == b"VP8 " and len(start) == 10 and start[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", start, 6)
        return width & 0x3FFF, height & 0x3FFF  # what is above says how to scale
    if kind == b"VP8L" and len(start) >= 5 and start[0] == 0x2F:
        (bits,) = struct.unpack_from("<I", start, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(start) == 10:
        return int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:], "little") + 1
    raise InputError("image", f"{len(content)} bytes without a header", "a whole WEBP file")


def _counted() -> Iterator[int]:
    """Count a file's parts.

    Raises:
        InputError: There are too many.
    """
    yield from range(MAX_SEGMENTS)
    raise InputError("image", f"more than {MAX_SEGMENTS} parts", "a file of fewer segments or chunks")


def _orientation(exif: bytes) -> int:
    """Read the orientation from the first directory of TIFF's (CIPA DC-008, tag 0x0112); 1 where there is none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4], "")
    if not order or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    count = int.from_bytes(exif[start : start + 2], "little" if order == "<" else "big")
    entries = exif[start + 2 : start + 2 + count * 12]
    for tag, kind, _, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _ORIENTATION_TAG and kind in _INTEGERS:
            (found,) = struct.unpack_from(order + _INTEGERS[kind], value)
            return found if 1 <= found <= 8 else 1
    return 1
