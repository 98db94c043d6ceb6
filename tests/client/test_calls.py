"""What the blocking client sends, and how it hands on what comes back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regard import AttentionRequest, Client, TensorSpec, Timings
from regard.v1 import regard_pb2 as rpc
from regard.v1 import types_pb2 as pb
from tests.client.fake import NUM_HEADS, WORDS, FakeServer, photo_bytes, weights


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "uint8", "bool"])
def test_an_array_of_each_type_comes_back_as_it_went(client: Client, dtype: str) -> None:
    """Predict's echo returns equal values, type and shape."""
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = client.predict({"x": array}).outputs["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.int64).reshape(4, 6)[::-2, 1::2],
        np.arange(24, dtype=np.float32).reshape(4, 6).T,
        np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        np.broadcast_to(np.float32(7), (2, 2)),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(6, dtype=">i8")[::-1],
        np.zeros((0, 3), np.float32),
        np.array(5, np.int64),
    ],
    ids=["negative stride", "transposed", "column-major", "broadcast", "big-endian", "both", "empty", "scalar"],
)
def test_strides_and_byte_order_do_not_matter(client: Client, array: NDArray[Any]) -> None:
    """Whatever lies in memory, the values and the shape arrive."""
    back = client.predict({"x": array}).outputs["x"]
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")


def test_elements_travel_little_endian(client: Client, server: FakeServer) -> None:
    """The bytes on the wire are those of the contract."""
    client.predict({"x": np.array([1], ">i4")})
    assert server.requests[0].inputs["x"].data == b"\1\0\0\0"


def test_outputs_are_read_only(client: Client) -> None:
    """The array is a view of the message, and says so when written to."""
    back = client.predict({"x": np.zeros(3, np.float32)}).outputs["x"]
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


def test_an_unsupported_type_is_refused_by_name(client: Client, server: FakeServer) -> None:
    """The error names the input and its dtype, and nothing is sent."""
    with pytest.raises(TypeError, match="'ids' is complex128; expected one of float32"):
        client.predict({"ids": np.zeros(2, np.complex128)})
    assert server.requests == []


def test_predict_asks_for_what_it_was_told(client: Client, server: FakeServer) -> None:
    """Model, version, outputs and attention reach the server; the answer carries a batch axis."""
    answer = client.predict(
        {"x": np.zeros(2, np.float32)},
        model="tensors",
        version="3",
        outputs=["x"],
        attention=AttentionRequest(layers=(0, -1), heads=(1,), rows=(2, 3), dtype="float16"),
    )
    request = server.requests[0]
    assert (request.model, request.version, list(request.outputs)) == ("tensors", "3", ["x"])
    assert (list(request.attention.layers), list(request.attention.heads)) == ([0, -1], [1])
    assert (list(request.attention.rows), request.attention.dtype) == ([2, 3], pb.DATA_TYPE_FLOAT16)
    assert answer.attention is not None
    layer = answer.attention.layer(0)
    assert (layer.kind, layer.axes, layer.weights.shape) == ("cross", ("batch", "head", "query", "key"), (1, 3, 2, 5))
    assert (answer.attention.tokens, answer.attention.patches) == (None, None)


def test_a_photo_is_sent_as_its_bytes(client: Client, server: FakeServer, photo: Path) -> None:
    """Bytes, a path and a path as text are the same photo to the server."""
    client.classify(image=photo_bytes())
    client.classify(image=photo)
    client.classify(image=str(photo))
    assert {request.image for request in server.requests} == {photo_bytes()}


def test_classify_returns_labels_and_timings(client: Client, server: FakeServer) -> None:
    """Labels keep their order; without attention asked for there is none."""
    answer = client.classify(text="hm", model="photos", version="1", top_k=2, truncate=True)
    request = server.requests[0]
    assert (request.text, request.model, request.version, request.top_k) == ("hm", "photos", "1", 2)
    assert request.truncate
    assert not request.HasField("attention")
    assert [(label.index, label.name, label.probability) for label in answer.labels] == [
        (0, "cat", 0.75),
        (1, "[dog]", 0.25),
    ]
    assert answer.timings == Timings(decode_ns=1, queue_ns=2, compute_ns=3, encode_ns=4, batch_size=5)
    assert (answer.attention, answer.truncated) == (None, False)


def test_embed_returns_a_vector(client: Client, server: FakeServer) -> None:
    """The vector is float32, and a cut text is reported."""
    server.truncated = True
    answer = client.embed(text="a", model="minilm", truncate=True)
    assert server.requests[0].truncate
    assert answer.vector.dtype == np.float32
    np.testing.assert_array_equal(answer.vector, [0, 1, 0, 0])
    assert answer.truncated


def test_a_priority_travels_with_every_kind_of_request(client: Client, server: FakeServer) -> None:
    """Given or not: 0 lets the server choose."""
    client.predict({"x": np.zeros(2, np.float32)}, priority=1)
    client.classify(text="a", priority=3)
    client.embed(text="a", priority=2)
    client.embed(text="a")
    assert [request.priority for request in server.requests] == [1, 3, 2, 0]


def test_an_empty_text_is_a_text(client: Client, server: FakeServer) -> None:
    """Whether an empty text makes sense is for the server to say."""
    client.classify(text="")
    assert server.requests[0].WhichOneof("input") == "text"


@pytest.mark.parametrize("given", [{}, {"image": b"x", "text": "x"}], ids=["none", "both"])
def test_image_and_text_exclude_each_other(client: Client, server: FakeServer, given: dict[str, Any]) -> None:
    """Both or neither is the caller's mistake and never sent."""
    word = "image and text" if given else "none"
    for call in (client.classify, client.embed):
        with pytest.raises(ValueError, match=f"exactly one of them; got {word}"):
            call(**given)
    assert server.requests == []


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 2.5e-4)])
def test_attention_of_a_text_names_its_tokens(client: Client, dtype: Any, tolerance: float) -> None:
    """Weights keep type and values; tokens say what the positions are."""
    attention = client.embed(text="cats sitting", attention=AttentionRequest(dtype=dtype)).attention
    assert attention is not None
    layer = attention.layer(11)
    assert (layer.kind, layer.axes, layer.heads) == ("self", ("head", "query", "key"), (0, 1, 2))
    assert layer.weights.dtype == dtype
    np.testing.assert_allclose(layer.weights, weights(5, 5), atol=tolerance, rtol=0)
    assert attention.tokens is not None
    assert [token.text for token in attention.tokens] == WORDS
    assert [token.special for token in attention.tokens] == [True, False, False, False, True]
    assert attention.patches is None


def test_attention_of_a_photo_comes_with_its_grid(client: Client, server: FakeServer) -> None:
    """The grid says where the patches lie on the photo."""
    attention = client.classify(image=photo_bytes(), attention=AttentionRequest(cls_only=True)).attention
    assert server.requests[0].attention.cls_only
    assert attention is not None
    assert attention.patches is not None
    assert attention.patches.box is not None
    assert (attention.patches.box.left, attention.patches.box.right) == (15, 75)
    assert attention.layer(-1).queries == (0,)
    assert attention.layer(-1).weights.shape == (NUM_HEADS, 1, 7)


def test_a_mean_over_heads_has_no_head_axis(client: Client) -> None:
    """But the averaged heads are named."""
    attention = client.embed(text="a", attention=AttentionRequest(reduce_heads="mean")).attention
    assert attention is not None
    layer = attention.layers[0]
    assert (layer.axes, layer.heads, layer.weights.shape) == (("query", "key"), (0, 1, 2), (5, 5))


def test_layers_come_one_at_a_time_each_with_its_tokens(client: Client) -> None:
    """Eight bits are read as floats; the tokens came with the first alone."""
    first, second = client.attend(text="a", attention=AttentionRequest(dtype="uint8", top_k=2))
    assert first.layers[0].weights.tolist() == [[[0, 1]]]
    assert first.layers[0].weights.dtype == np.float32
    assert first.tokens == second.tokens
    assert first.layers[0].indices is None
    assert second.layers[0].indices is not None
    assert second.layers[0].indices.tolist() == [[[1, 0]]]
    assert not first.truncated


def test_a_cut_text_is_reported_with_each_layer(client: Client, server: FakeServer) -> None:
    """Though the first message alone says so."""
    server.truncated = True
    assert [part.truncated for part in client.attend(text="a", truncate=True)] == [True, True]


def test_what_is_wanted_of_the_attention_is_sent(client: Client, server: FakeServer) -> None:
    """Every field reaches the server."""
    wanted = AttentionRequest(
        keys=(1,), measure="rollout", residual_share=0.25, value_weighted=True, reduce_heads="max", renormalize=True
    )
    list(client.attend(text="a", attention=wanted))
    assert server.requests[-1].attention == pb.AttentionRequest(
        keys=[1],
        measure=pb.ATTENTION_MEASURE_ROLLOUT,
        residual_share=0.25,
        value_weighted=True,
        head_reduction=pb.HEAD_REDUCTION_MAX,
        renormalize=True,
        dtype=pb.DATA_TYPE_FLOAT32,
    )


def test_a_stream_takes_one_kind_of_input(client: Client) -> None:
    """An image, a text, or arrays."""
    with pytest.raises(ValueError, match="exactly one of them"):
        list(client.attend(text="a", inputs={"x": np.zeros(1)}))
    with pytest.raises(ValueError, match="exactly one of them"):
        list(client.attend())


def test_models_are_described(client: Client) -> None:
    """Every field is readable without the stubs; a model's own grid lies on no image."""
    fashion, minilm, photos, tensors, *_ = client.models()
    assert photos == client.model("photos")
    assert (fashion.modality, minilm.modality, tensors.modality) == ("image", "text", None)
    assert photos.inputs == (TensorSpec("pixel_values", "float32", (-1, 3, 32, 48), ("batch", "", "", "")),)
    assert photos.labels == ("cat", "[dog]", "bird")
    assert (len(photos.attention_layers), photos.attention_layers[0].num_heads) == (12, NUM_HEADS)
    assert photos.patches is not None
    assert (photos.patches.rows, photos.patches.box, photos.patches.image_width) == (2, None, None)
    assert (minilm.max_tokens, minilm.embedding_dim, minilm.embedding_normalized) == (256, 4, True)
    assert (minilm.prompts, minilm.default_prompt, minilm.similarity) == ({"query": "query: "}, "query", "cosine")
    assert (tensors.prompts, tensors.default_prompt, tensors.similarity) == ({}, "", "")
    assert (tensors.patches, tensors.attention_layers, tensors.device) == (None, (), "CUDA:0")


def test_the_core_needs_neither_typer_nor_pictures() -> None:
    """`import regard` loads grpcio, protobuf and numpy only."""
    check = "import regard, sys; print({'typer', 'rich', 'matplotlib', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_models_are_loaded_and_unloaded(client: Client, server: FakeServer) -> None:
    """And the versions that are not served are listed with the reason."""
    name = client.models()[0].name
    assert client.load_model(name) == client.models()[0]
    client.unload_model(name)
    assert [one.model for one in server.requests if not isinstance(one, rpc.ListModelsRequest)] == [name, name]
    assert [(one.version, one.state, one.reason) for one in client.versions()] == [
        ("1", "READY", ""),
        ("2", "UNAVAILABLE", "weights.bin: changed or damaged"),
    ]
