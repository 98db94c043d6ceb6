"""Texts written by the embedded model over gRPC: what PyTorch writes, whoever shares the steps, and nothing is left."""

import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest

import regard
from regard.v1 import regard_pb2 as pb
from regard.v1.regard_pb2_grpc import RegardServiceStub
from tests.faults.callers import wait_until
from tests.processes import ROOT, ServerProcess, StartProcess, serving

torch = pytest.importorskip("torch", reason="the export extra is not installed")
from model.checkpoint import load_encoder_decoder  # noqa: E402 -- needs torch

WORDS = [
    "transformer", "a", "regard", "attention", "is", "all", "you", "need", "phonemes", "encoder", "decoder", "queue",
    "knight", "through", "gauge", "antidisestablishmentarian",
]  # fmt: skip
LOGITS, WEIGHTS = 1e-4, 1e-5  # tolerances
BOTH = regard.AttentionRequest()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """What is embedded is served."""
    with serving() as started:
        yield started


@pytest.fixture
def client(server: ServerProcess) -> Iterator[regard.Client]:
    """Asks that server."""
    with regard.Client(server.address) as asking:
        yield asking


def metric(server: ServerProcess, name: str) -> float:
    """Read one metric."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


def test_each_step_equals_pytorch_alone_and_among_many(client: regard.Client) -> None:
    """Tokens, log-probabilities, and the weights of both kinds of attention, at every step."""
    network = load_encoder_decoder(ROOT / "model" / "weights" / "g2p").eval()

    def write(word: str) -> regard.Generated:
        return client.generate_text(word, model="g2p", num_beams=1, cross_attention=BOTH, self_attention=BOTH)

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(write, WORDS * 8))
    for word, found in zip(WORDS * 8, together, strict=True):
        result, ids = found.results[0], torch.tensor([[token.id for token in found.source]])
        read = torch.tensor([[1, *(token.token for token in result.tokens[:-1])]])
        with torch.inference_mode():
            logits, _, own, cross = network.explain(ids, torch.ones_like(ids), read)
        expected = logits[0].log_softmax(-1)
        for place, token in enumerate(result.tokens):
            assert token.token == int(expected[place].argmax()), word
            assert token.log_probability == pytest.approx(float(expected[place, token.token]), abs=LOGITS)
            for layer in token.attention:
                weights = cross[layer.layer] if layer.kind == "cross" else own[layer.layer][..., : place + 1]
                np.testing.assert_allclose(layer.weights, weights[0, :, place], atol=WEIGHTS)
            assert len(token.attention) == 2 * len(cross)


def test_tokens_of_a_stream_are_those_of_the_whole(client: regard.Client) -> None:
    """Greedy and drawn, with the text they add; and a text's own score as a target is what it was written with."""
    for sampling in (None, regard.Sampling(temperature=1.5, top_p=0.95, seed=11)):
        stream = client.generate("gauge", model="g2p", sampling=sampling)
        tokens = list(stream)
        whole = client.generate_text("gauge", model="g2p", sampling=sampling)
        assert "".join(token.text for token in tokens) == whole.text == stream.finish().text
        assert [token.token for token in tokens] == [token.token for token in whole.results[0].tokens]
    scored = client.generate_text("gauge", model="g2p", target=whole.text)
    assert [token.log_probability for token in scored.results[0].tokens] == pytest.approx(
        [token.log_probability for token in whole.results[0].tokens], abs=LOGITS
    )


def test_a_target_is_scored_with_what_its_steps_attend_to(client: regard.Client) -> None:
    """As when it was written; of another text each step attends elsewhere."""

    def look(**given: str) -> regard.GeneratedText:
        asked = {"cross_attention": BOTH, "self_attention": BOTH, "num_beams": 1, **given}
        return client.generate_text("gauge", model="g2p", **asked).results[0]  # type: ignore[arg-type]

    written, other = look(), look(target="K AE T S")
    scored = look(target=written.text)
    assert scored.finish_reason == "target"
    for kind in ("cross", "self"):
        for layer in range(3):
            expected = written.alignment(layer, kind).weights
            np.testing.assert_allclose(scored.alignment(layer, kind).weights, expected, atol=WEIGHTS)
    assert np.abs(other.alignment().weights[:, 1:3] - written.alignment().weights[:, 1:3]).max() > 0.01


def test_beams_find_what_is_likelier_than_greedy(client: regard.Client) -> None:
    """Each result as likely as when it is scored, the best first."""
    for word in WORDS:
        found = client.generate_text(word, model="g2p", num_beams=5, num_results=5, length_penalty=0.0)
        likely = [result.log_probability for result in found.results]
        assert likely == sorted(likely, reverse=True)
        greedy = client.generate_text(word, model="g2p", num_beams=1)
        assert likely[0] >= greedy.results[0].log_probability - LOGITS
        for result in found.results[:2]:
            scored = client.generate_text(word, model="g2p", target=result.text)
            assert scored.results[0].log_probability == pytest.approx(result.log_probability, abs=LOGITS)


def test_who_hangs_up_frees_its_rows(start_process: StartProcess) -> None:
    """In mid-stream; afterwards nothing is written, and no more held than any model keeps."""
    with start_process() as server, regard.Client(server.address) as client:
        stub = RegardServiceStub(client._channel)

        def leave(number: int) -> str:
            call = stub.Generate(pb.GenerateRequest(model="g2p", text=WORDS[number % len(WORDS)] * 3, truncate=True))
            next(call)
            next(call)
            call.cancel()
            return "left"

        with ThreadPoolExecutor(16) as pool:
            left = [pool.submit(leave, number) for number in range(64)]
            stay = [pool.submit(client.generate_text, word, model="g2p") for word in WORDS]
            assert {one.result() for one in as_completed(left)} == {"left"}
            texts = [one.result().text for one in stay]
        assert texts == [client.generate_text(word, model="g2p").text for word in WORDS]
        wait_until(lambda: metric(server, "regard_generation_rows") == 0)
        assert metric(server, "regard_generation_cache_bytes") <= 2 * 16 * 2**20  # of two groups


def test_other_models_answer_beside_texts_that_are_written(client: regard.Client) -> None:
    """Images are classified between steps."""
    image = ROOT / "examples" / "clothing" / "sandal.png"
    with ThreadPoolExecutor(24) as pool:
        written = [pool.submit(client.generate_text, word, model="g2p") for word in WORDS * 4]
        named = [pool.submit(client.classify, image=image, model="fashion") for _ in range(16)]
        assert {one.result().labels[0].name for one in named} == {"Sandal"}
        assert all(one.result().text for one in written)


def test_a_model_that_writes_is_meant_where_writing_is_asked_for(client: regard.Client) -> None:
    """And no other call means it, where none is named; a target of what it cannot write is refused."""
    assert client.generate_text("regard").model == "g2p"
    assert client.classify(image=ROOT / "examples" / "clothing" / "sandal.png").model == "fashion"
    with pytest.raises(regard.InvalidArgument, match="target: 'R QQ'; expected a text of the model's vocabulary"):
        client.generate_text("regard", model="g2p", target="R QQ")
