import asyncio
import io
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.api.regard_v1 import messages, service
from server.api.regard_v1.tensors import read_tensor, write_tensor
from server.engine.cost import CostModel
from server.engine.session import Graph
from tests.golden import GOLDEN_NETWORK
from tests.server.api.reference import TOLERANCE, run_alone, run_graph
from tests.server.asking import samples
from tests.server.conftest import Running, Serve

CLOTHING = sorted((Path(__file__).parents[4] / "examples" / "clothing").glob("*.png"))
TEXTS = ["the cat sat on the mat", "a dog", "it was not a very good film and the dog ran", "one bad mat"]


def weights(attention: pb.Attention, layer: int = 0) -> NDArray[Any]:
    """The weights of one entry of an answer."""
    return read_tensor("weights", attention.layers[layer].weights)


async def test_embed_gives_the_vector_and_the_attention_of_the_text(running: Running) -> None:
    """Equal to a run of the graph alone, every layer, head and row, with tokens and where they came from."""
    alone = run_alone(TEXTS[0])
    request = api.EmbedRequest(model="tiny-text", text=TEXTS[0], attention=pb.AttentionRequest())
    answer = await running.stub.Embed(request)
    np.testing.assert_allclose(read_tensor("v", answer.vector), alone["embedding"][0], atol=TOLERANCE)
    for layer in (0, 1):
        np.testing.assert_allclose(weights(answer.attention, layer), alone[f"attention.{layer}"][0], atol=TOLERANCE)
    tokens = answer.attention.tokens.tokens
    assert [token.text for token in tokens] == ["[CLS]", *TEXTS[0].split(), "[SEP]"]
    assert [TEXTS[0][token.start : token.end] for token in tokens if not token.special] == TEXTS[0].split()
    assert answer.timings.compute_ns > 0
    assert answer.timings.batch_size == 1


async def test_layers_are_streamed_one_a_message(running: Running) -> None:
    """Equal to the unary answer; what the positions stand for, and the timings, come with the first alone."""
    wanted = pb.AttentionRequest(layers=[1, 0], dtype=pb.DATA_TYPE_FLOAT16)
    request = api.AttendRequest(model="tiny-text", text=TEXTS[0], attention=wanted)
    first, second = [message async for message in running.stub.Attend(request)]
    whole = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text=TEXTS[0], attention=wanted))
    assert [*first.attention.layers, *second.attention.layers] == list(whole.attention.layers)
    assert first.attention.tokens == whole.attention.tokens
    assert min(first.timings.compute_ns, first.timings.encode_ns) > 0
    assert not second.HasField("timings")
    assert second.attention.WhichOneof("positions") is None


async def test_a_stream_is_a_request_until_its_last_layer(alone: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts against the model's limits while layers are written, and as failed if its caller leaves."""
    written, gate = asyncio.Event(), threading.Event()
    loop, write = asyncio.get_running_loop(), messages.write_next

    def write_slowly(layers: Any, timings: Any) -> bool:
        loop.call_soon_threadsafe(written.set)
        assert gate.wait(30)
        return write(layers, timings)

    monkeypatch.setattr(service, "write_next", write_slowly)
    call = alone.stub.Attend(api.AttendRequest(model="tiny-text", text=TEXTS[0], attention=pb.AttentionRequest()))
    first = asyncio.ensure_future(call.read())
    await asyncio.wait_for(written.wait(), 30)
    sent = ("regard_attention_sent_bytes_total", "tiny-text")
    assert (await samples(alone))[("regard_requests_in_flight",)] == 1
    assert sent not in await samples(alone)
    call.cancel()
    await asyncio.gather(first, return_exceptions=True)
    ended = ("regard_requests_total", "CANCELLED", "Attend", "tiny-text")
    async with asyncio.timeout(30):
        while ended not in await samples(alone):
            pass
    gate.set()
    assert sent not in await samples(alone)


async def test_more_outputs_than_a_graph_has_are_refused_by_their_count(running: Running) -> None:
    """Before the names are looked at."""
    with pytest.raises(grpc.aio.AioRpcError, match="outputs: 1025 entries; expected at most 1024"):
        await running.stub.Predict(api.PredictRequest(model="tiny-text", outputs=["embedding"] * 1025))


async def test_tensors_are_streamed_with_their_batch_axis(running: Running) -> None:
    """Nothing asked for means all of every layer."""
    request = api.AttendRequest(model="tiny-text")
    for name, value in (("input_ids", 5), ("attention_mask", 1)):
        request.tensors.tensors[name].CopyFrom(write_tensor(np.full((2, 3), value)))
    messages = [message async for message in running.stub.Attend(request)]
    assert [weights(message.attention).shape for message in messages] == [(2, 4, 3, 3)] * 2
    assert list(messages[0].attention.layers[0].axes) == ["batch", "head", "query", "key"]


async def test_what_cannot_be_streamed_is_refused_before_the_first_message(running: Running) -> None:
    """As unary calls refuse it."""
    request = api.AttendRequest(model="tiny-text", text="a", attention=pb.AttentionRequest(layers=[9]))
    with pytest.raises(grpc.aio.AioRpcError, match=r"attention\.layers: 9; expected from -2 to 1") as caught:
        await running.stub.Attend(request).read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match="input: neither image, text, pair nor tensors"):
        await running.stub.Attend(api.AttendRequest(model="tiny-text")).read()


async def test_special_tokens_and_prefix_tokens_are_dropped(running: Running) -> None:
    """[CLS] and [SEP] of a text; the class token of an image, whose distances are in pixels."""
    dropped = pb.AttentionRequest(layers=[0], drop_special=True, renormalize=True)
    answer = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat", attention=dropped))
    (layer,) = answer.attention.layers
    assert (list(layer.queries), list(layer.keys)) == ([1, 2], [1, 2])
    np.testing.assert_allclose(weights(answer.attention).sum(axis=-1), 1, atol=TOLERANCE)
    picture = io.BytesIO()
    Image.new("L", (28, 28), 200).save(picture, "PNG")
    request = api.AttendRequest(
        model="fashion",
        image=picture.getvalue(),
        attention=pb.AttentionRequest(layers=[-1], measure=pb.ATTENTION_MEASURE_DISTANCE),
    )
    (message,) = [message async for message in running.stub.Attend(request)]
    (distances,) = (weights(message.attention),)
    assert distances.shape == (4,)
    assert ((distances > 0) & (distances < 28 * 2**0.5)).all()
    assert list(message.attention.layers[0].queries) == list(range(1, 50))


async def test_who_asks_for_no_attention_gets_none(running: Running) -> None:
    """And the request runs the plain graph."""
    answer = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"))
    assert not answer.HasField("attention")


async def test_classify_names_clothing(running: Running) -> None:
    """At least nine of the ten first test images, one of each class, get their own name."""
    names = []
    for file in CLOTHING:
        answer = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=file.read_bytes(), top_k=10))
        assert len(answer.labels) == 10
        assert sum(label.probability for label in answer.labels) == pytest.approx(1, abs=1e-5)
        assert sorted(answer.labels, key=lambda label: -label.probability) == list(answer.labels)
        names.append(answer.labels[0].name.lower().replace("/", "-").replace(" ", "-"))
    assert sum(name == file.stem for name, file in zip(names, CLOTHING, strict=True)) >= 9


async def test_the_class_tokens_attention_comes_with_the_patch_grid(running: Running) -> None:
    """A wide picture is squeezed into 28 x 28: the grid covers all of it."""
    picture = io.BytesIO()
    Image.open(CLOTHING[0]).resize((56, 28)).save(picture, "PNG")
    request = api.ClassifyRequest(
        model="fashion", image=picture.getvalue(), attention=pb.AttentionRequest(layers=[-1], cls_only=True)
    )
    attention = (await running.stub.Classify(request)).attention
    assert weights(attention).shape == (4, 1, 50)
    np.testing.assert_allclose(weights(attention).sum(-1), 1, atol=TOLERANCE)
    grid = attention.patches
    assert (grid.prefix_tokens, grid.rows, grid.cols, grid.patch_size) == (1, 7, 7, 4)
    assert (grid.image_width, grid.image_height, grid.box.right, grid.box.bottom) == (56, 28, 56, 28)


async def test_predict_runs_the_callers_tensors_with_their_own_padding(running: Running) -> None:
    """Two rows in one request; the shorter equals its run alone where it is real."""
    tokenizer = Tokenizer.from_file(str(GOLDEN_NETWORK / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(TEXTS[:2])
    inputs = {
        "input_ids": write_tensor(np.array([encoding.ids for encoding in encodings])),
        "attention_mask": write_tensor(np.array([encoding.attention_mask for encoding in encodings])),
    }
    request = api.PredictRequest(
        model="tiny-text", inputs=inputs, outputs=["embedding"], attention=pb.AttentionRequest(layers=[1])
    )
    answer = await running.stub.Predict(request)
    assert list(answer.outputs) == ["embedding"]
    assert list(answer.attention.layers[0].axes) == ["batch", "head", "query", "key"]
    for row, text in enumerate(TEXTS[:2]):
        alone = run_alone(text)
        length = alone["attention.1"].shape[-1]
        got = read_tensor("e", answer.outputs["embedding"])[row]
        np.testing.assert_allclose(got, alone["embedding"][0], atol=TOLERANCE)
        got = weights(answer.attention)[row, :, :length, :length]
        np.testing.assert_allclose(got, alone["attention.1"][0], atol=TOLERANCE)


async def test_predict_without_names_gives_every_output(running: Running) -> None:
    """Hidden states, vector and logits."""
    inputs = {name: write_tensor(np.ones((1, 3), dtype=np.int64)) for name in ("input_ids", "attention_mask")}
    answer = await running.stub.Predict(api.PredictRequest(model="tiny-text", inputs=inputs))
    shapes = {name: list(tensor.shape) for name, tensor in answer.outputs.items()}
    assert shapes == {"last_hidden_state": [1, 3, 32], "embedding": [1, 32], "logits": [1, 2]}


async def test_64_callers_of_mixed_kinds_each_get_their_own_answer(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of mixed lengths with and without attention, images, tensors, all at once: each equals its run alone.

    That they share batches is left to no clock: the engine is held until all have come, and a run costs what is said
    here, since the warm-up on a busy machine may find that sharing is not worth it.
    """
    gate, run = threading.Event(), Graph.run

    def held(graph: Graph, *args: Any, **how: Any) -> Any:
        assert gate.wait(timeout=60)
        return run(graph, *args, **how)

    monkeypatch.setattr(Graph, "run", held)
    monkeypatch.setattr("server.engine.engine.fit_costs", lambda samples: CostModel(run_seconds=0.01))
    gate.set()
    async with start() as running:
        alone = {text: run_alone(text) for text in TEXTS}
        image = CLOTHING[0].read_bytes()
        lone_image = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=image, top_k=10))

        async def embed(text: str, attention: pb.AttentionRequest | None) -> int:
            request = api.EmbedRequest(model="tiny-text", text=text, attention=attention)
            answer = await running.stub.Embed(request)
            np.testing.assert_allclose(read_tensor("v", answer.vector), alone[text]["embedding"][0], atol=TOLERANCE)
            if attention:
                np.testing.assert_allclose(weights(answer.attention), alone[text]["attention.1"][0], atol=TOLERANCE)
            return int(answer.timings.batch_size)

        async def classify() -> int:
            answer = await running.stub.Classify(api.ClassifyRequest(model="fashion", image=image, top_k=10))
            for got, expected in zip(answer.labels, lone_image.labels, strict=True):
                assert got.name == expected.name
                assert got.probability == pytest.approx(expected.probability, abs=TOLERANCE)
            return int(answer.timings.batch_size)

        gate.clear()
        last = pb.AttentionRequest(layers=[-1])
        calls = [embed(TEXTS[i % 4], last if i % 8 < 4 else None) if i % 3 else classify() for i in range(64)]
        answers = asyncio.gather(*calls)
        while (await samples(running))[("regard_requests_in_flight",)] < 64:
            assert not answers.done()
        gate.set()
        assert max(await answers) > 1


BAD = [
    (api.EmbedRequest(model="nope", text="x"), "NOT_FOUND", "model: 'nope' is not served; expected one of fashion"),
    (api.EmbedRequest(text="x"), "INVALID_ARGUMENT", "model: empty; expected one of fashion, tiny-text"),
    (api.EmbedRequest(model="fashion", version="9", image=b"x"), "NOT_FOUND", "version: '9' of fashion"),
    (api.EmbedRequest(model="tiny-text"), "INVALID_ARGUMENT", "input: neither image, text nor token_ids"),
    (api.EmbedRequest(model="tiny-text", text=""), "INVALID_ARGUMENT", "text: empty"),
    (api.EmbedRequest(model="tiny-text", image=b"x"), "FAILED_PRECONDITION", "image: tiny-text takes no images"),
    (api.EmbedRequest(model="fashion", text="x"), "FAILED_PRECONDITION", "text: fashion takes no text"),
    (api.EmbedRequest(model="fashion", image=b"not an image"), "INVALID_ARGUMENT", "image: 12 bytes that start with"),
    (
        api.ClassifyRequest(model="fashion", image=CLOTHING[0].read_bytes()[:200]),
        "INVALID_ARGUMENT",
        "expected a whole",
    ),
    (api.ClassifyRequest(model="fashion", image=b"", top_k=-1), "INVALID_ARGUMENT", "top_k: -1; expected 0"),
    (api.EmbedRequest(model="tiny-text", text="x" * 10_000_000), "INVALID_ARGUMENT", "text: 10000000 bytes"),
    (api.EmbedRequest(model="tiny-text", text="the " * 80), "INVALID_ARGUMENT", "text: 82 tokens; expected at most 64"),
    (
        api.EmbedRequest(model="tiny-text", text="x", attention=pb.AttentionRequest(layers=[99])),
        "INVALID_ARGUMENT",
        "attention.layers: 99; expected from -2 to 1",
    ),
    (
        api.PredictRequest(model="tiny-text", outputs=["odd"]),
        "INVALID_ARGUMENT",
        "outputs: 'odd'; expected last_hidden_state",
    ),
    (
        api.PredictRequest(
            model="fashion", inputs={"pixel_values": write_tensor(np.zeros((1, 3, 28, 28), np.float32))}
        ),
        "INVALID_ARGUMENT",
        "inputs[pixel_values].shape: [1, 3, 28, 28]; expected [batch, 1, 28, 28]",
    ),
    (
        api.PredictRequest(model="fashion", inputs={"pixel_values": write_tensor(np.zeros((1, 1, 28, 28), np.uint8))}),
        "INVALID_ARGUMENT",
        "inputs[pixel_values].dtype: uint8; expected float32",
    ),
    (
        api.PredictRequest(
            model="fashion", inputs={"pixel_values": write_tensor(np.full((1, 1, 28, 28), np.nan, "f4"))}
        ),
        "INVALID_ARGUMENT",
        "inputs[pixel_values]: nan at [0, 0, 0, 0]; expected finite numbers",
    ),
    (
        api.PredictRequest(model="fashion", inputs={"x": pb.Tensor()}),
        "INVALID_ARGUMENT",
        "inputs: 'x'; expected pixel_values",
    ),
]


async def test_bad_requests_are_refused_by_field_and_the_server_goes_on(running: Running) -> None:
    """Every kind of bad input, the right code, and a good request after all of them."""
    methods = {
        api.EmbedRequest: running.stub.Embed,
        api.ClassifyRequest: running.stub.Classify,
        api.PredictRequest: running.stub.Predict,
    }
    for request, code, message in BAD:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await methods[type(request)](request)
        assert caught.value.code().name == code, message
        assert message in str(caught.value.details())
    answer = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"))
    np.testing.assert_allclose(read_tensor("v", answer.vector), run_alone("the cat")["embedding"][0], atol=TOLERANCE)


async def test_a_caller_who_hangs_up_is_counted_and_harms_nobody(running: Running) -> None:
    """Cancelled while it may be queued or computed; the next call is answered."""
    call = running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    answer = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="a dog"))
    np.testing.assert_allclose(read_tensor("v", answer.vector), run_alone("a dog")["embedding"][0], atol=TOLERANCE)


async def test_a_full_server_refuses_at_once_and_answers_whom_it_admitted(start: Serve) -> None:
    """Sixty at once where a queue of one is allowed: right answers, or RESOURCE_EXHAUSTED with the limit's name."""
    expected = run_alone("the cat")["embedding"][0]
    async with start(max_queue_size=1, max_batch_size=1) as running:
        request = api.EmbedRequest(model="tiny-text", text="the cat")
        outcomes = await asyncio.gather(*(running.stub.Embed(request) for _ in range(60)), return_exceptions=True)
        answers = [one for one in outcomes if not isinstance(one, BaseException)]
        refusals = [one for one in outcomes if isinstance(one, grpc.aio.AioRpcError)]
        assert len(answers) + len(refusals) == 60
        assert answers
        assert refusals
        for answer in answers:
            np.testing.assert_allclose(read_tensor("v", answer.vector), expected, atol=TOLERANCE)
        for refusal in refusals:
            assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "--max-queue-size" in str(refusal.details())


async def test_a_message_larger_than_the_limit_is_refused(start: Serve) -> None:
    """By gRPC itself, before it is read."""
    async with start(max_message_bytes=10_000) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Embed(api.EmbedRequest(model="fashion", image=b"x" * 20_000))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_attention_answer_larger_than_a_message_is_refused_with_advice(start: Serve) -> None:
    """Before anything is computed."""
    async with start(max_message_bytes=20_000) as running:
        request = api.EmbedRequest(
            model="fashion", image=CLOTHING[0].read_bytes(), attention=pb.AttentionRequest(layers=[0])
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.Embed(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        expected = "an answer of 40000 bytes; expected at most 18750: Attend, which sends each layer by itself"
        assert expected in str(caught.value.details())


async def test_layer_by_layer_no_answer_needs_a_large_message(start: Serve) -> None:
    """Every layer through a limit that all together exceed."""
    async with start(max_message_bytes=50_000) as running:
        image, everything = CLOTHING[0].read_bytes(), pb.AttentionRequest()
        with pytest.raises(grpc.aio.AioRpcError, match="sends each layer by itself"):
            await running.stub.Embed(api.EmbedRequest(model="fashion", image=image, attention=everything))
        request = api.AttendRequest(model="fashion", image=image, attention=everything)
        sizes = [len(answer.attention.layers[0].weights.data) async for answer in running.stub.Attend(request)]
        assert len(sizes) > 1
        assert set(sizes) == {40_000}


async def test_models_are_described_as_clients_need_them(running: Running) -> None:
    """Inputs, outputs, labels, layers, heads, grid."""
    models = {model.name: model for model in (await running.stub.ListModels(api.ListModelsRequest())).models}
    fashion, text = models["fashion"], models["tiny-text"]
    assert (fashion.modality, fashion.can_classify, fashion.labels[9]) == (pb.MODALITY_IMAGE, True, "Ankle boot")
    assert (fashion.patches.rows, fashion.patches.prefix_tokens, fashion.device) == (7, 1, "CPU")
    assert [(layer.layer, layer.num_heads) for layer in text.attention_layers] == [(0, 4), (1, 4)]
    assert (text.modality, text.max_tokens, text.embedding_dim, text.embedding_normalized) == (1, 64, 32, True)
    ids = text.inputs[0]
    assert (ids.name, ids.dtype, list(ids.shape), list(ids.axes)) == ("input_ids", 3, [-1, -1], ["batch", "seq_len"])
    one = await running.stub.GetModel(api.GetModelRequest(model="fashion"))
    assert one.model == fashion


async def test_a_refusal_says_when_to_come_back(start: Serve) -> None:
    """As gRPC's retries understand it, and as google.rpc.RetryInfo."""
    async with start(max_queue_size=1, max_batch_size=1) as running:
        request = api.EmbedRequest(model="tiny-text", text="the cat")
        outcomes = await asyncio.gather(*(running.stub.Embed(request) for _ in range(60)), return_exceptions=True)
        refusal = next(one for one in outcomes if isinstance(one, grpc.aio.AioRpcError))
        trailers = dict(refusal.trailing_metadata())
        status, retry = Status.FromString(trailers["grpc-status-details-bin"]), RetryInfo()
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == pytest.approx(int(trailers["grpc-retry-pushback-ms"]), abs=1)
        assert 10 <= retry.retry_delay.ToMilliseconds() <= 10_000


async def test_an_unknown_priority_is_refused_with_the_ones_there_are(running: Running) -> None:
    """Naming field, value and what was expected."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat", priority=4))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "priority: 4; expected 1 (first) to 3 (last), or 0 for the default"


async def test_a_timeout_that_cannot_be_met_is_refused(running: Running) -> None:
    """One millisecond is not enough for 32 rows of 64 tokens; ten seconds are."""
    ids = np.ones((32, 64), dtype=np.int64)
    inputs = {"input_ids": write_tensor(ids), "attention_mask": write_tensor(ids)}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub.Predict(api.PredictRequest(model="tiny-text", inputs=inputs, timeout_ms=1))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await running.stub.Predict(api.PredictRequest(model="tiny-text", inputs=inputs, timeout_ms=10_000, priority=1))


async def test_values_weigh_the_attention_of_an_exported_model(running: Running) -> None:
    """Weights times norms, as the tapped graph gives both."""
    attention = pb.AttentionRequest(layers=[1], value_weighted=True)
    answer = await running.stub.Embed(api.EmbedRequest(model="tiny-text", text="the cat sat", attention=attention))
    graph = run_graph("the cat sat", "attention.onnx")
    expected = graph["attention.1"][0] * graph["value_norms.1"][0][:, None]
    np.testing.assert_allclose(weights(answer.attention), expected, atol=TOLERANCE)


async def test_contributions_are_computed_by_their_own_graph(running: Running) -> None:
    """For one layer, and over all of them."""
    graph = run_graph("a good film", "contributions.onnx")
    attention = pb.AttentionRequest(layers=[-1], measure=pb.ATTENTION_MEASURE_CONTRIBUTION, rows=[0])
    answer = await running.stub.Classify(
        api.ClassifyRequest(model="tiny-text", text="a good film", attention=attention)
    )
    layer = answer.attention.layers[0]
    assert (list(layer.axes), list(layer.queries)) == (["query", "key"], [0])
    np.testing.assert_allclose(weights(answer.attention), graph["contributions.1"][0][:1], rtol=1e-4)
    attention = pb.AttentionRequest(measure=pb.ATTENTION_MEASURE_CONTRIBUTION_ROLLOUT)
    answer = await running.stub.Classify(
        api.ClassifyRequest(model="tiny-text", text="a good film", attention=attention)
    )
    product = graph["contributions.1"][0].astype(np.float64) @ graph["contributions.0"][0]
    np.testing.assert_allclose(weights(answer.attention), product / product.sum(axis=-1, keepdims=True), atol=TOLERANCE)
    assert list(answer.attention.layers[0].covered_layers) == [0, 1]
