"""Lower precisions: what they cost is measured on real inputs, recorded, and refused where it is too much."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

import export.accuracy
import export.build
from artifact.contract import Precision, read_contract
from artifact.verification import Accuracy
from export.__main__ import app
from export.accuracy import measure_accuracy, misses
from export.build import Precise, build
from export.errors import AccuracyError, SampleError
from export.graph import to_onnx
from export.quantize import Quantizer
from export.samples import read_samples
from export.sources import Source, load_folder
from export.traits import Feed
from model.text import TextNetwork
from tests.golden import GOLDEN_NETWORK
from tests.processes import ROOT

TEXTS = [
    f"{first} {second} on the mat" for first in ("the cat", "a dog", "one film") for second in ("sat", "ran", "is")
]


@pytest.fixture
def samples_file(tmp_path: Path) -> Path:
    """Nine sentences, and empty lines between them."""
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS) + "\n")
    return path


@pytest.fixture
def samples(samples_file: Path, source: Source) -> list[Feed]:
    """The same as the network takes them."""
    return read_samples(samples_file, source)


def run(folder: Path, graph: str, feed: Feed) -> dict[str, np.ndarray]:
    """Every output of a graph."""
    session = onnxruntime.InferenceSession(folder / graph, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_lower_precision_has_the_same_outputs_nearly(
    precision: Precision, source: Source, out: Path, samples: list[Feed]
) -> None:
    """In float32, attention too; what it costs stands in the contract, and rows do not depend on their neighbours."""
    built = build(replace(source, name=precision), out, precise=Precise(precision, samples))
    full = build(source, out)
    contract = read_contract(built.folder / "contract.json")
    assert (contract.precision, full.contract.precision) == (precision, "float32")
    assert [spec.name for spec in contract.outputs] == [spec.name for spec in full.contract.outputs]
    measures = {line.measure: line for line in contract.accuracy}
    assert measures["cosine, mean"].value > 0.99
    assert measures["label agreement"].inputs == len(TEXTS) // 2
    checks = {line.check for line in contract.verification}
    assert checks == {"against plain", "rows sum to 1", "row alone", "lowered form", "as served"}
    for feed in samples:
        exact = run(full.folder, "attention.onnx", feed)
        for name, array in run(built.folder, "attention.onnx", feed).items():
            assert array.dtype == np.float32
            assert np.corrcoef(array.ravel(), exact[name].ravel())[0, 1] > 0.98, name
    weights = (built.folder / "weights.bin").stat().st_size
    assert weights < 0.9 * (full.folder / "weights.bin").stat().st_size


def test_bfloat16_is_measured_in_torch_since_onnx_runtime_cannot_run_it_on_a_cpu(
    source: Source, out: Path, samples: list[Feed]
) -> None:
    """So there is no verification of the graphs, which are sound."""
    built = build(source, out, precise=Precise("bfloat16", samples))
    assert built.contract.verification == ()
    assert min(line.value for line in built.contract.accuracy if line.measure.startswith("cosine")) > 0.99
    onnx.checker.check_model(built.folder / "attention.onnx")


def test_what_costs_too_much_is_not_published(
    source: Source, out: Path, samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many products stay in float32; the message says which limit is missed by how much."""
    monkeypatch.setattr(export.accuracy, "COSINE", 1.1)
    with pytest.raises(AccuracyError, match=r"cosine, mean: (0\.\d+|1\.0000); expected at least 1\.1"):
        build(source, out, precise=Precise("int8", samples))
    assert not out.exists() or not any((out / "tiny-text").glob("*"))


def test_ever_more_products_stay_in_float32_until_the_limits_are_kept(
    source: Source, out: Path, samples: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, one, two, four."""
    tried: list[int] = []

    class Recorded(Quantizer):
        def quantize(self, left_out: int) -> onnx.ModelProto:
            tried.append(left_out)
            return super().quantize(left_out)

    def third_time_lucky(found: Sequence[Accuracy]) -> list[str]:
        return [] if len(tried) == 3 else ["missed"]

    monkeypatch.setattr(export.build, "Quantizer", Recorded)
    monkeypatch.setattr(export.build, "misses", third_time_lucky)
    build(source, out, precise=Precise("int8", samples))
    assert tried == [0, 1, 2]


def test_smoothing_alone_changes_nothing(source: Source, samples: list[Feed]) -> None:
    """With every product left in float32 the graph gives what it gave."""
    assert isinstance(source.network, TextNetwork)
    graph = to_onnx(source.network, source.traits)
    before = graph.SerializeToString()
    quantizer = Quantizer(graph, samples)
    left = quantizer.quantize(quantizer.products)
    assert graph.SerializeToString() == before
    sessions = [
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"])
        for one in (graph, left)
    ]
    for got, expected in zip(*(session.run(None, samples[0]) for session in sessions), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_accuracy_is_what_its_names_say() -> None:
    """Vectors at 60 degrees, one of two labels the same, attention that differs by 0.1 in half of its places."""
    feeds = [{"x": np.zeros(1)}, {"x": np.ones(1)}]

    def reference(feed: Feed) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        return {"embedding": np.array([[1.0, 0.0]]), "logits": np.array([[1.0, 0.0]])}, [np.full((1, 1, 2, 2), 0.5)]

    def candidate(feed: Feed) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        logits = np.array([[feed["x"][0], 0.5]])
        return (
            {"embedding": np.array([[0.5, 0.75**0.5]]), "logits": logits},
            [np.array([[[[0.5, 0.5], [0.4, 0.6]]]])],
        )

    found = {line.measure: line for line in measure_accuracy(reference, candidate, feeds)}
    values = {name: pytest.approx(line.value) for name, line in found.items()}
    assert values == {
        "cosine, mean": 0.5,
        "cosine, least": 0.5,
        "label agreement": 0.5,
        "attention, mean difference": 0.05,
        "attention, largest difference": 0.1,
    }
    assert misses(tuple(found.values())) == [
        "cosine, mean: 0.5000; expected at least 0.99",
        "label agreement: 0.5000; expected at least 0.99",
        "attention, mean difference: 0.0500; expected at most 0.01",
    ]


def test_numbers_that_are_none_keep_no_limit() -> None:
    """NaN is neither above nor below."""
    assert misses([Accuracy(measure="cosine, mean", value=float("nan"), limit=0.99, inputs=1)])
    assert misses([Accuracy(measure="attention, mean difference", value=float("nan"), limit=0.01, inputs=1)])


def test_images_are_read_as_the_server_reads_them(tmp_path: Path) -> None:
    """A folder of them, in the order of their names."""
    source = load_folder(ROOT / "model" / "weights" / "fashion")
    for index in range(8):
        Image.new("L", (28, 28), index * 20).save(tmp_path / f"{index}.png")
    feeds = read_samples(tmp_path, source)
    assert [feed["pixel_values"].shape for feed in feeds] == [(1, 1, 28, 28)] * 8
    assert [float(feed["pixel_values"].mean()) for feed in feeds] == sorted(
        float(feed["pixel_values"].mean()) for feed in feeds
    )
    (tmp_path / "9.png").write_bytes(b"no image")
    with pytest.raises(SampleError, match=r"9\.png: .*image"):
        read_samples(tmp_path, source)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int4"], "--precision: 'int4'; expected fp32, fp16, bf16, int8"),
        (["--precision", "int8"], "--samples: missing; int8 is measured on real inputs"),
        (["--precision", "int8", "--samples", "{folder}"], "expected a text file, one text a line"),
        (["--precision", "fp16", "--samples", "{folder}/few.txt"], "few.txt: 1 inputs; expected at least 8"),
        (["--precision", "fp16", "--samples", "{folder}/odd.txt"], "odd.txt, line 3: not UTF-8: invalid start byte"),
    ],
)
def test_samples_that_cannot_be_used_are_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, out: Path
) -> None:
    """With exit code 1, and nothing published."""
    (tmp_path / "few.txt").write_text("one\n")
    (tmp_path / "odd.txt").write_bytes(b"one\r\n\n" + b"\xff\xfe one\n" * 9)
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    done = CliRunner().invoke(app, [str(GOLDEN_NETWORK), "--out", str(out), *filled])
    assert done.exit_code == 1
    assert message in done.output.replace("\n", "")
    assert not out.exists()


def test_the_command_line_names_the_artifact_after_its_precision(out: Path, samples_file: Path) -> None:
    """And prints what the precision costs."""
    arguments = [str(GOLDEN_NETWORK), "--out", str(out), "--precision", "fp16", "--samples", str(samples_file)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "tiny-text-fp16: float16 against float32, 4 inputs" in done.output
    assert "at least 0.99" in done.output
    assert f"published {out / 'tiny-text-fp16' / '1'}" in done.output.replace("\n", "")
