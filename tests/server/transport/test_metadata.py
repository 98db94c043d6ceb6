"""Metadata, deadlines and messages of statuses, as gRPC over HTTP/2 writes them."""

import base64
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.transport.metadata import headers_of, metadata_of, percent_encoded
from server.transport.wire import seconds_of


@given(content=st.binary(max_size=50), pads=st.booleans())
def test_bytes_are_read_with_and_without_padding(content: bytes, pads: bool) -> None:
    """And are written without."""
    written = base64.b64encode(content)
    assert metadata_of([(b"x-bin", written if pads else written.rstrip(b"="))]) == {"x-bin": content}
    assert headers_of((("x-bin", content),)) == [(b"x-bin", written.rstrip(b"="))]


@given(before=st.binary(max_size=9), content=st.binary(max_size=9), pads=st.booleans())
def test_of_bytes_joined_by_a_comma_the_last_are_read(before: bytes, content: bytes, pads: bool) -> None:
    """As of a name that comes twice."""
    values = [base64.b64encode(one) if pads else base64.b64encode(one).rstrip(b"=") for one in (before, content)]
    assert metadata_of([(b"x-bin", b",".join(values))]) == {"x-bin": content}
    assert metadata_of([(b"x-bin", value) for value in values]) == {"x-bin": content}


def test_what_is_no_base64_is_nothing() -> None:
    """A fault of the caller's that no call fails for."""
    assert metadata_of([(b"x-bin", b"a")]) == {"x-bin": b""}


def test_text_is_read_as_it_is() -> None:
    """Whatever bytes it has."""
    assert metadata_of([(b"authorization", b"Bearer x,y"), (b"x", b"\xff")]) == {
        "authorization": "Bearer x,y",
        "x": "\xff",
    }
    assert headers_of((("x-request-id", "one"), ("x", b"two"))) == [(b"x-request-id", b"one"), (b"x", b"two")]


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("30S", 30.0),
        ("500m", 0.5),
        ("500000u", 0.5),
        ("5n", 5e-9),
        ("0n", 0.0),
        ("99999999S", 99_999_999.0),
        *(
            (bad, None)
            for bad in ("", "S", "1", "1s", "100000000S", "-1S", "+1S", "1.5S", " 1S", "1 S", "\u0661S", "1SS")
        ),
    ],
)
def test_timeouts_have_eight_digits_and_a_unit(timeout: str, seconds: float | None) -> None:
    """Anything else is none."""
    found = seconds_of(timeout)
    assert found is None if seconds is None else found == pytest.approx(seconds)


def test_of_a_status_message_all_but_visible_characters_and_the_percent_sign_are_encoded() -> None:
    """%x20-%x24 and %x26-%x7E are not: PROTOCOL-HTTP2.md, Percent-Encoded."""
    for code in range(256):
        character = chr(code)
        plain = 0x20 <= code <= 0x7E and character != "%"
        expected = character if plain else "".join(f"%{byte:02X}" for byte in character.encode())
        assert percent_encoded(character) == expected.encode()


@given(message=st.text(max_size=50))
@example(message="half \ud800")
def test_a_status_message_is_read_as_it_was_written(message: str) -> None:
    """With half of a pair of surrogates in it, too, which no UTF-8 has."""
    written = percent_encoded(message)
    assert written.isascii()
    assert unquote(written.decode()) == message.encode(errors="replace").decode()
