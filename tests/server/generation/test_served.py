"""Texts of the embedded model by a whole server: what is counted of them, and that nothing of them stays."""

import gc
from collections import Counter

from regard.v1 import regard_pb2 as api
from regard.v1 import types_pb2 as pb
from server.config import EMBEDDED_MODELS
from server.generation.request import GeneratedText, GeneratedToken, StepAttention
from server.generation.writing import Writing
from tests.server.asking import refused, samples
from tests.server.conftest import Running, Serve

WORDS = ("transformer", "gauge", "attention", "a", "knight")
BOTH = {"cross_attention": pb.AttentionRequest(), "self_attention": pb.AttentionRequest(layers=[-1])}


def asked(text: str, **given: object) -> api.GenerateRequest:
    """Ask the model g2p."""
    return api.GenerateRequest(model="g2p", text=text, **given)  # type: ignore[arg-type]


async def test_what_is_written_is_counted(start: Serve) -> None:
    """Texts by why they end, tokens, steps, and the times to the first token and between two; no text that fails."""
    requests = [
        *(asked(word) for word in WORDS),
        asked("transformer", max_tokens=1),
        asked("transformer", stop=["R"]),
        asked("gauge", target="G EY JH"),
        asked("gauge", num_beams=3, num_results=3, max_tokens=2),
    ]
    async with start(models=EMBEDDED_MODELS) as running:
        answers = [await running.stub.GenerateText(request) for request in requests]
        await refused(running.stub.GenerateText(asked("gauge", target="QQ")), "target")
        found = await samples(running)
    results = [result for answer in answers for result in answer.end.results]
    reasons = Counter(api.FinishReason.Name(one.finish_reason).rpartition("_")[2].lower() for one in results)
    assert set(reasons) == {"end", "length", "stop", "target"}
    for reason, count in reasons.items():
        assert found["regard_generations_total", "g2p", reason] == count
    assert found["regard_generated_tokens_total", "g2p"] == sum(len(result.tokens) for result in results)
    steps = [answer.end.timings.steps for answer in answers]
    assert found["regard_generation_steps_total", "g2p"] == sum(steps)  # each text was alone
    assert found["regard_first_token_seconds_count", "g2p"] == len(requests)
    first_ns = [answer.end.timings.first_token_ns for answer in answers]
    assert abs(found["regard_first_token_seconds_sum", "g2p"] - sum(first_ns) / 1e9) < 1e-6
    assert found["regard_token_seconds_count", "g2p"] == sum(count > 1 for count in steps) == len(requests) - 1
    assert found["regard_generation_rows",] == 0
    assert found["regard_generation_cache_bytes",] > 0  # kept for the next


async def test_nothing_of_a_text_stays(start: Serve) -> None:
    """Whole or streamed, of beams, with attention, refused, or given up: no object of it, and no byte is held."""
    async with start(models=EMBEDDED_MODELS) as running:
        await _write_all(running)
        before = _living()
        for _ in range(8):
            await _write_all(running)
        assert _living() == before
        assert (await samples(running))["regard_held_bytes",] == 0


async def _write_all(running: Running) -> None:
    for word in WORDS:
        await running.stub.GenerateText(asked(word, num_beams=1, alternatives=3, **BOTH))
        await running.stub.GenerateText(asked(word, num_beams=4, num_results=4))
        assert len([one async for one in running.stub.Generate(asked(word, num_beams=1, **BOTH))]) > 2
        call = running.stub.Generate(asked(word))
        assert [await call.read() for _ in range(2)]
        call.cancel()
    await refused(running.stub.GenerateText(asked("gauge", target="QQ")), "target")
    while (found := await samples(running))["regard_generation_rows",] or found["regard_held_bytes",]:
        pass  # of those that were given up


def _living() -> dict[str, int]:
    """How many objects of texts there are."""
    gc.collect()
    kinds = (Writing, GeneratedText, GeneratedToken, StepAttention)
    return dict(Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds)))
