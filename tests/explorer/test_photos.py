"""The photos that links name: how many are kept."""

from regard.explorer.photos import PhotoStore, media_type, orientation
from tests.client.fake import photo_bytes


def test_a_photo_is_kept_once_under_its_hash() -> None:
    """The same file has the same name, and takes its room once."""
    store = PhotoStore(max_bytes=10)
    names = {store.put(b"12345") for _ in range(9)}
    assert len(names) == 1
    assert store.get(names.pop()) == b"12345"


def test_the_photo_unused_for_longest_goes_when_there_are_too_many() -> None:
    """Looking at one keeps it."""
    store = PhotoStore(max_photos=2)
    first, second = store.put(b"1"), store.put(b"2")
    store.get(first)
    third = store.put(b"3")
    assert [store.get(name) for name in (first, second, third)] == [b"1", None, b"3"]


def test_photos_go_when_they_take_too_many_bytes() -> None:
    """As many as must; the bytes of those that went are free again."""
    store = PhotoStore(max_bytes=10)
    small = [store.put(bytes([number]) * 4) for number in range(2)]
    large = store.put(b"x" * 10)
    assert [store.get(name) for name in small] == [None, None]
    assert store.get(large) == b"x" * 10
    after = [store.put(bytes([number]) * 5) for number in range(2)]
    assert all(store.get(name) is not None for name in after)


def test_the_type_of_a_photo_is_told_by_its_first_bytes() -> None:
    """Of the three kinds that are taken."""
    kinds = {media_type(start + b"rest") for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP")}
    assert kinds == {"image/jpeg", "image/png", "image/webp"}


def test_how_a_photo_is_turned_is_read_from_its_exif() -> None:
    """Upright where it does not say, or says nonsense, or is damaged."""
    assert [orientation(photo_bytes(number)) for number in (1, 3, 6, 9)] == [1, 3, 6, 1]
    assert orientation(b"\xff\xd8\xff damaged") == 1
