"""The decoder's step in both of its forms."""

import ctypes
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from server.config import EMBEDDED_MODELS
from server.context import RpcContext
from server.engine.decoder import Decoder, Held
from server.engine.device import CPU, Device, Instances, choose_devices
from server.engine.engine import _load_first
from server.generation.caches import Caches
from server.generation.plan import AttentionPlan, GenerationPlan
from server.generation.request import GeneratedText
from server.generation.steps import Steps
from server.generation.writing import StraightWriting
from server.repository.limits import Usage
from server.repository.loading import LoadedModel, load_model
from server.repository.settings import ModelSettings

FOLDER, WORDS = EMBEDDED_MODELS / "g2p" / "1", ("transformer", "gauge", "a")
ONE = Instances(1, 1)
BOUND = Device("CPU", (CPU,), "in a GPU's place", bound=True)
LOG_PROBABILITY, WEIGHTS = 1e-5, 1e-6  # tolerances


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """The embedded model."""
    return load_model(FOLDER, choose_devices("cpu"), ONE, Usage(ModelSettings()))


def write(model: LoadedModel, decoder: Decoder) -> list[GeneratedText]:
    """Write several words together, with the attention of a layer."""
    generation, room = decoder.generation, Steps(decoder, 8, lambda: False, lambda told: None)
    assert model.reader and model.writer
    looks = tuple(AttentionPlan(kind, 1, (0, 3), None) for kind in ("cross", "self"))
    plan = GenerationPlan(generation, {"": generation.beginnings()[0]}, generation.max_tokens, attention=looks)
    writings = []
    for word in WORDS:
        ids = np.array([model.reader.read(word, truncate=False, max_bytes=100).ids])
        outputs = model.engine.plain.run(
            {"input_ids": ids, "attention_mask": np.ones_like(ids)}, generation.source_names
        )
        source = [np.asarray(outputs[name]) for name in generation.source_names]
        writings.append(StraightWriting(plan, source, model.writer, RpcContext()))
        room.join(writings[-1])
    while room.all:
        room.run({}, [])
    return [writing.results[0] for writing in writings]


def test_where_the_fused_form_cannot_be_loaded_the_lowered_writes_the_same(
    model: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tokens, log-probabilities and attention, its caches in place as well; the log says which it is and why."""
    assert model.engine.decoder
    generation = model.engine.decoder.generation
    broken = tmp_path / "decoder.onnx"
    broken.write_bytes(b"no graph")
    paths = [broken, FOLDER / "decoder.lowered.onnx"]
    lowered = _load_first(paths, lambda path: Decoder(path, generation, choose_devices("cpu"), ONE))
    assert f"{broken}: " in caplog.text
    assert "its lowered form is tried" in caplog.text
    for found, expected in zip(write(model, lowered), write(model, model.engine.decoder), strict=True):
        assert found.text == expected.text != ""
        assert [one.token for one in found.tokens] == [one.token for one in expected.tokens]
        for one, other in zip(found.tokens, expected.tokens, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=LOG_PROBABILITY)
            for ours, theirs in zip(one.attention, other.attention, strict=True):
                np.testing.assert_allclose(ours.weights, theirs.weights, atol=WEIGHTS)


class CopyingBinding:
    """A binding that copies inputs when they are bound, as ONNX Runtime's does for a GPU."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.own = session.io_binding()

    def bind_input(
        self, name: str, device: str, number: int, dtype: type, shape: tuple[int, ...], address: int
    ) -> None:
        del device, number
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        content = (ctypes.c_char * count).from_address(address)
        self.own.bind_cpu_input(name, np.frombuffer(bytes(content), dtype).reshape(shape))

    def bind_output(self, *arguments: object) -> None:
        self.own.bind_output(*arguments)


class CopyingSession:
    """A session whose binding copies."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def io_binding(self) -> CopyingBinding:
        return CopyingBinding(self._session)

    def run_with_iobinding(self, binding: CopyingBinding) -> None:
        self._session.run_with_iobinding(binding.own)


def test_where_inputs_are_copied_when_they_are_bound_each_step_reads_its_own(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU: else every step would read the first one's token, and caches that are empty."""
    assert model.engine.decoder
    expected = [result.text for result in write(model, model.engine.decoder)]
    copying = Decoder(FOLDER / "decoder.onnx", model.engine.decoder.generation, (BOUND,), ONE)
    monkeypatch.setattr(copying, "_one", [CopyingSession(copying._one[0])])
    monkeypatch.setattr(copying, "hold", lambda *_: None)
    assert [result.text for result in write(model, copying)] == expected


def test_a_device_that_holds_the_sources_writes_the_same(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that begin and end at different steps; sources are copied only where one has come or moved."""
    assert model.engine.decoder
    generation, copies = model.engine.decoder.generation, list[int]()
    refresh = Held.refresh

    def counted(held: Held) -> None:
        copies.append(held.is_stale)
        refresh(held)

    monkeypatch.setattr(Held, "refresh", counted)
    expected = write(model, model.engine.decoder)
    assert copies == []
    found = write(model, Decoder(FOLDER / "decoder.onnx", generation, (BOUND,), ONE))
    for one, other in zip(found, expected, strict=True):
        assert one.text == other.text != ""
        assert one.log_probability == pytest.approx(other.log_probability, abs=LOG_PROBABILITY)
    assert copies[0]
    assert 1 <= sum(copies) < len(copies) / 2


def test_what_a_device_holds_follows_the_rows(model: LoadedModel) -> None:
    """Rows that come, leave and take each other's place, with more than there is room for at first."""
    generation = model.contract.generation
    assert generation
    decoders = [
        Decoder(FOLDER / "decoder.onnx", generation, (device,), ONE) for device in (BOUND, *choose_devices("cpu"))
    ]
    both = [Caches(decoder, generation) for decoder in decoders]
    random = np.random.default_rng(0)

    def compare() -> None:
        one, other = (caches.step() for caches in both)
        np.testing.assert_allclose(one, other, atol=1e-5)

    def add(length: int) -> None:
        shape = (1, generation.num_heads, length, generation.head_dim)
        source = [random.standard_normal(shape).astype(np.float32) for _ in generation.source_names]
        for caches in both:
            for row in caches.add(source, 1):
                caches.set_token(row, next(iter(generation.starts.values()))[0])

    for length in (3, 5, 4):
        add(length)
        compare()
    for row in (0, 1):
        for caches in both:
            caches.remove(row)
        compare()
    for length in (2, 30, 6):
        add(length)
        compare()
        compare()
