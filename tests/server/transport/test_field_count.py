"""What messages have is counted in their bytes, before they are parsed."""

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.open_inference import open_inference_pb2 as oip
from server.errors import MalformedMessage
from server.transport.field_count import MessageLimits, check_fields, fields_of

LIMITS = MessageLimits(fields=100, integers=2000, text_bytes=5000)
INFER = fields_of(oip.ModelInferRequest.DESCRIPTOR)
EMBED = fields_of(api.EmbedRequest.DESCRIPTOR)
EMPTY_INPUT, EMPTY_PARAMETER = b"\x2a\x00", b"\x22\x00"


def infer(**contents: object) -> bytes:
    """A request with one input, typed."""
    request = oip.ModelInferRequest()
    request.inputs.add(contents=oip.InferTensorContents(**contents))  # type: ignore[arg-type]
    return request.SerializeToString()


def nested(content: bytes) -> bytes:
    """Within an input."""
    return b"\x2a" + bytes([len(content) & 127 | 128, len(content) >> 7]) + content


def look(content: bytes, limits: MessageLimits = LIMITS) -> None:
    """Walk to the end."""
    for _ in check_fields(content, INFER, limits):
        pass


@pytest.mark.parametrize(
    "content",
    [
        EMPTY_INPUT * 101,
        nested(EMPTY_PARAMETER * 100),
        nested(nested(b"\x08\x01" * 99)),  # in the contents, which are field 5, too: unpacked bool_contents
        nested(b"\x22\x83\x02" + b"\x12\x80\x02" + b"\x08\x01" * 128),  # in the value of a parameter
        b"\xf8\x01\x01" * 101,  # of an unknown field
        b"\x3a\x00" * 101,  # raw contents
        infer(bytes_contents=[b""] * 100),
    ],
)
def test_fields_are_counted_wherever_they_are(content: bytes) -> None:
    """Of inputs, of their parameters and contents, unknown ones; protobuf itself would take them all."""
    oip.ModelInferRequest.FromString(content)
    with pytest.raises(MalformedMessage, match=r"more than 100 fields in the message; expected at most 100 .*-fields"):
        look(content)
    look(content, MessageLimits(300, 2000, 5000))


@pytest.mark.parametrize(
    "contents",
    [
        {"int64_contents": [1] * 2001},
        {"int64_contents": [-1] * 2001},  # ten bytes each
        {"bool_contents": [True] * 2001},
        {"uint_contents": [2**31] * 1001, "uint64_contents": [300] * 1000},
        {"int_contents": range(30_000)},
    ],
)
def test_integers_are_counted_in_all_lists(contents: dict[str, object]) -> None:
    """However many bytes they have."""
    with pytest.raises(MalformedMessage, match=r"more than 2000 integers in the message; expected .*-integers"):
        look(infer(**contents))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        EMPTY_INPUT * 100,
        infer(int64_contents=[2**62] * 2000),  # nine bytes each
        infer(fp32_contents=[1.0] * 5000),
        infer(bytes_contents=[b"x" * 10_000] * 90),
        oip.ModelInferRequest(raw_input_contents=[bytes(10**6)], model_name="x" * 5000).SerializeToString(),
    ],
)
def test_what_is_large_and_honest_passes(content: bytes) -> None:
    """Raw contents, texts and lists of floats are stepped over, whatever their bytes look like."""
    look(content)


Tensor = oip.ModelInferRequest.InferInputTensor
LONG, FIRST, KEY = "x" * 5001, "y" * 5000, "k" * 64


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("model_name", oip.ModelInferRequest(model_name=LONG)),
        ("parameters[x]", oip.ModelInferRequest(parameters={"x": oip.InferParameter(string_param=LONG)})),
        (f"parameters[{KEY}]", oip.ModelInferRequest(parameters={KEY: oip.InferParameter(string_param=LONG)})),
        ("parameters", oip.ModelInferRequest(parameters={KEY + "k": oip.InferParameter(string_param=LONG)})),
        ("parameters", oip.ModelInferRequest(parameters={"a\nb": oip.InferParameter(string_param=LONG)})),
        ("parameters.key", oip.ModelInferRequest(parameters={LONG: oip.InferParameter()})),
        ("inputs[0].datatype", oip.ModelInferRequest(inputs=[Tensor(name=FIRST, datatype=LONG)])),
        (
            "inputs[1].parameters[x]",
            oip.ModelInferRequest(
                parameters={"p": oip.InferParameter(string_param=FIRST)},
                inputs=[Tensor(), Tensor(name="a", parameters={"x": oip.InferParameter(string_param=LONG)})],
            ),
        ),
        ("text", api.EmbedRequest(text=LONG)),
        ("prompt", api.EmbedRequest(text="a", prompt=LONG)),
        ("texts[3]", api.EmbedRequest(model="m", texts=pb.Texts(items=["a", FIRST, "c", LONG]))),
        ("candidate_labels[1]", api.ClassifyRequest(model="m", version="1", candidate_labels=[FIRST, LONG])),
        ("pair.second", api.ClassifyRequest(pair=pb.TextPair(first="a", second=LONG))),
        (
            "pairs[1].first",
            api.ClassifyRequest(pairs=pb.TextPairs(items=[pb.TextPair(first=FIRST), pb.TextPair(first=LONG)])),
        ),
        ("query", api.RankRequest(query=LONG)),
        ("documents[2]", api.RankRequest(query="a", documents=pb.Texts(items=["a", "b", LONG]))),
    ],
)
def test_texts_and_names_are_measured(name: str, request_: Message) -> None:
    """Wherever they are, and named by their place as their caller writes it; bytes are no texts."""
    with pytest.raises(MalformedMessage) as refused:
        list(check_fields(request_.SerializeToString(), fields_of(request_.DESCRIPTOR), LIMITS))
    assert str(refused.value) == f"{name}: 5001 bytes; expected at most 5000 (the server's --max-text-bytes)"


def test_a_name_may_be_longer_than_a_text() -> None:
    """Where texts have little room; whose text is longer than even that is told what a text may have."""
    limits = MessageLimits(fields=100, integers=2000, text_bytes=5000, max_text_bytes=10)
    for request, said in (
        (api.EmbedRequest(text=LONG), "text: 5001 bytes; expected at most 10 (the server's --max-text-bytes)"),
        (api.EmbedRequest(model=LONG), "model: 5001 bytes; expected at most 5000"),
    ):
        with pytest.raises(MalformedMessage) as refused:
            list(check_fields(request.SerializeToString(), EMBED, limits))
        assert str(refused.value) == said


def test_every_list_of_an_attention_request_is_looked_into() -> None:
    """Layers, heads, rows and keys."""
    for name in ("layers", "heads", "rows", "keys"):
        request = api.EmbedRequest(attention=pb.AttentionRequest(**{name: range(2001)}))  # type: ignore[arg-type]
        with pytest.raises(MalformedMessage, match="more than 2000 integers"):
            list(check_fields(request.SerializeToString(), EMBED, LIMITS))


@pytest.mark.parametrize(
    "content",
    [
        b"\x2a",
        b"\x2a\x05",
        b"\x2a\x02\x22\x05",  # an inner message that ends after the outer one
        b"\x2a\x02\x0d\x00" + bytes(4),  # likewise a number of four bytes
        b"\x2a\x05\x2a\x03\x1a\x90\x03",  # a list of integers that ends after them
        b"\x09\x00",
        b"\x08" + b"\xff" * 11,
        b"\x0b\x0c",  # a group
        b"\x0f",
    ],
)
def test_bytes_that_are_no_message_are_found_on_the_way(content: bytes) -> None:
    """And told as those that protobuf finds."""
    with pytest.raises(MalformedMessage, match="the bytes are no message of this method"):
        look(content)


@given(st.binary(max_size=64))
def test_what_protobuf_takes_is_taken(content: bytes) -> None:
    """But for groups, which no message of ours has."""
    try:
        look(content)
    except MalformedMessage:
        if not any(byte & 7 == 3 for byte in content):
            with pytest.raises(DecodeError):
                oip.ModelInferRequest.FromString(content)


def test_a_walk_pauses_for_others() -> None:
    """Every thousand fields or so."""
    assert len(list(check_fields(EMPTY_INPUT * 10_240, INFER, MessageLimits(20_000, 1, 1)))) == 10
