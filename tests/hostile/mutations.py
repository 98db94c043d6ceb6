"""Bytes that are nearly right: what is valid, damaged at random in one of a few ways."""

import random
from collections.abc import Callable

_VARINTS = (b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x08", b"\0")


def mutate(chance: random.Random, content: bytes) -> bytes:
    """Damage bytes one to four times; the result is at most a few times as long."""
    for _ in range(chance.randint(1, 4)):
        content = chance.choice(_WAYS)(chance, content)
    return content


def _change(chance: random.Random, content: bytes) -> bytes:
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.randbytes(chance.randint(1, 3)) + content[place + chance.randint(1, 3) :]


def _flip(chance: random.Random, content: bytes) -> bytes:
    place = chance.randrange(len(content) + 1)
    return (
        content[:place]
        + bytes(byte ^ (1 << chance.randrange(8)) for byte in content[place : place + 1])
        + content[place + 1 :]
    )


def _leave_out(chance: random.Random, content: bytes) -> bytes:
    first, last = sorted(chance.randrange(len(content) + 1) for _ in "12")
    return content[:first] + content[min(last, first + 64) :]


def _repeat(chance: random.Random, content: bytes) -> bytes:
    first, last = sorted(chance.randrange(len(content) + 1) for _ in "12")
    return content[:last] + content[first:last][:256] * chance.randint(1, 8) + content[last:]


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _lie(chance: random.Random, content: bytes) -> bytes:
    """Put a number where perhaps a length stands."""
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.choice(_VARINTS) + content[place + 1 :]


_WAYS: tuple[Callable[[random.Random, bytes], bytes], ...] = (_change, _flip, _leave_out, _repeat, _cut, _lie)
