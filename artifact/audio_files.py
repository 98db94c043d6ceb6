"""What a sound file holds, told from its bytes before a decoder sees them.

A decoder gets only what makes samples, in a file of two or three parts: who wrote the others could make it look at
millions of them.
"""

import struct
from dataclasses import dataclass

from artifact.errors import InputError

FORMATS = "WAV or FLAC"
MAX_PARTS = 4096  # chunks of a WAV, blocks of metadata of a FLAC
_FORMAT_BYTES = (16, 18, 40)  # of a WAV's format: plain, with an empty extension, extensible
# Of samples (RFC 2361), and the bits that each may have.
_KINDS = {1: ("integers", (8, 16, 24, 32)), 3: ("floats", (32, 64)), 6: ("A-law", (8,)), 7: ("mu-law", (8,))}
_EXTENSIBLE, _GUID_END = 0xFFFE, bytes.fromhex("000000001000800000aa00389b71")  # behind the kind (RFC 2361, section 4)
_UNKNOWN_SIZE = 0x7FFF_0000  # and more: of samples whose number nobody knew yet
_STREAMINFO, _STREAMINFO_BYTES, _LAST = 0, 34, 0x80  # of FLAC (RFC 9639, sections 8.1 and 8.2)


@dataclass(frozen=True)
class AudioFile:
    """A sound file as far as it is known before it is decoded.

    Attributes:
        content: What a decoder needs of it.
        rate: Samples a second, of each channel.
        channels: How many there are.
        frames: Samples of each channel.
    """

    content: bytes
    rate: int
    channels: int
    frames: int


def read_audio_file(content: bytes) -> AudioFile:
    """Look through a file without decoding anything, in a time that its number of parts bounds.

    Raises:
        InputError: Of no known kind, of too many parts, or without what makes samples.
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _read_wav(content)
    if content[:4] == b"fLaC":
        return _read_flac(content)
    found = f"{len(content)} bytes that start with {content[:8].hex(' ')}" if content else "empty"
    raise InputError("audio", found, f"a {FORMATS} file")


def _read_wav(content: bytes) -> AudioFile:
    """Find format and samples; a length of samples that nobody knew when it was written reaches to the end."""
    described, place = b"", 12
    for _ in range(MAX_PARTS):
        kind, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        start = place + 8
        if start > len(content):
            raise InputError("audio", f"a WAV of {len(content)} bytes without samples", "a chunk 'fmt ', then 'data'")
        if kind == b"fmt ":
            described = content[start : start + size]
        elif kind == b"data":
            if start + size > len(content) and size < _UNKNOWN_SIZE:
                found = f"a WAV with {len(content) - start} of {size} bytes of samples"
                raise InputError("audio", found, f"a whole {FORMATS} file")
            return _make_wav(described, memoryview(content)[start : start + size])
        place = start + size + size % 2
    raise _too_many()


def _make_wav(described: bytes, samples: memoryview) -> AudioFile:
    if len(described) not in _FORMAT_BYTES:
        sizes = " or ".join(map(str, _FORMAT_BYTES))
        raise InputError("audio", f"a WAV with a format of {len(described)} bytes", f"{sizes} bytes before the samples")
    kind, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", described)
    if kind == _EXTENSIBLE and len(described) == _FORMAT_BYTES[-1] and described.endswith(_GUID_END):
        (kind,) = struct.unpack_from("<H", described, 24)
    if kind not in _KINDS:
        expected = ", ".join(name for name, _ in _KINDS.values())
        raise InputError("audio", f"a WAV with samples of kind {kind}", f"one of {expected}")
    name, allowed = _KINDS[kind]
    if not channels or bits not in allowed or frame_bytes != channels * bits // 8:
        found = f"a WAV of {channels} channels, {name} of {bits} bits and {frame_bytes} bytes for each of its frames"
        raise InputError("audio", found, f"{' or '.join(map(str, allowed))} bits, and as many bytes as that makes")
    frames = len(samples) // frame_bytes
    samples = samples[: frames * frame_bytes]
    head = b"WAVEfmt " + struct.pack("<I", len(described)) + described + b"data" + struct.pack("<I", len(samples))
    padding = bytes(len(samples) % 2)
    size = struct.pack("<I", len(head) + len(samples) + len(padding))
    return AudioFile(b"".join((b"RIFF", size, head, samples, padding)), rate, channels, frames)


def _read_flac(content: bytes) -> AudioFile:
    """Leave out all metadata but the first block, which tells how many samples there are."""
    place, first = 4, b""
    for _ in range(MAX_PARTS):
        header = content[place : place + 4]
        if len(header) < 4:
            raise InputError("audio", f"a FLAC of {len(content)} bytes without samples", "a whole file")
        size = int.from_bytes(header[1:], "big")
        if place == 4:
            first = content[8 : 8 + size]
            if header[0] & ~_LAST != _STREAMINFO or len(first) != _STREAMINFO_BYTES:
                raise InputError("audio", "a FLAC that does not begin with STREAMINFO", "34 bytes of it, as RFC 9639")
        place += 4 + size
        if header[0] & _LAST:
            break
    else:
        raise _too_many()
    told = int.from_bytes(first[10:18], "big")  # rate, channels, bits, samples: 20, 3, 5 and 36 bits
    rate, channels, frames = told >> 44, (told >> 41 & 0b111) + 1, told & (2**36 - 1)
    if not frames:
        expected = "one that says it, as programs write into files and not into pipes"
        raise InputError("audio", "a FLAC that does not say how many samples it has", expected)
    kept = b"fLaC" + bytes([_LAST | _STREAMINFO]) + _STREAMINFO_BYTES.to_bytes(3, "big") + first + content[place:]
    return AudioFile(kept, rate, channels, frames)


def _too_many() -> InputError:
    return InputError("audio", f"more than {MAX_PARTS} parts", "a file of fewer chunks or blocks")
