"""Networks of the transformers library: each method equal to autograd on the library's own run, alone as in a batch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from onnx import ModelProto
from torch import Tensor
from torch.nn import functional

from artifact.contract import RelevanceGraph
from export.errors import RelevanceError
from export.graph import to_onnx
from export.relevance.graph import SCALE, WEIGHTS, add_relevance
from export.relevance.parts import CHOSEN, PART, add_parts
from export.sources import load_folder
from export.tapping.tap import tap, tap_lowered
from tests.export.families import FAMILIES, write_folder
from tests.export.relevance.attention import genatt, legrad
from tests.export.relevance.autograd import Network
from tests.export.relevance.graphs import Floats, run_graph
from tests.export.relevance.test_networks import weights_like
from tests.export.small.family import GROUPED, IMAGE, LABELS, TEXT, Config, Family

_TOLERANCE = 1e-5  # of the largest number
_LENGTHS = (7, 4)  # of two texts
_ALL: tuple[RelevanceGraph, ...] = ("libra", "gradient", "genatt", "legrad")
_READS: dict[str, Callable[[Tensor], Tensor]] = {
    "class token": lambda real: torch.eye(real.shape[1])[:1].expand(len(real), -1),
    "last": lambda real: torch.eye(real.shape[1])[real.sum(1).long() - 1],
    "all": lambda real: real,
    "patches": lambda real: torch.cat([0 * real[:, :1], real[:, 1:]], 1),
}


@dataclass(frozen=True)
class Case:
    """A classifier.

    Attributes:
        family: What is written.
        layers: Where the library's network has its layers.
        read: From which positions the score is read.
        refused: Methods that it has not, and why.
    """

    family: Family
    layers: str
    read: str = "class token"
    refused: dict[str, str] = field(default_factory=dict)

    def has(self) -> Iterator[RelevanceGraph]:
        """The methods that it has."""
        return (method for method in _ALL if method not in self.refused)


def _classifier(model_type: str, task: str, base: Config, **own: Any) -> Family:
    return Family(model_type, base | LABELS | own, task=task)


_text, _image = (partial(_classifier, task=f"{of}Classification") for of in ("Sequence", "Image"))
_DEBERTA: Config = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_UNLIKE = "layers are not made alike"
CLASSIFIERS = {
    "bert": Case(_text("bert", base=TEXT), "bert.encoder.layer"),
    "distilbert": Case(FAMILIES["distilbert, text classifier"], "distilbert.transformer.layer"),
    "roberta": Case(FAMILIES["roberta, text classifier"], "roberta.encoder.layer"),
    "albert": Case(_text("albert", base=TEXT, embedding_size=16), "albert.encoder.albert_layer_groups.0.albert_layers"),
    "modernbert": Case(FAMILIES["modernbert, text classifier"], "model.layers"),
    "modernbert, mean": Case(
        Family(
            "modernbert",
            FAMILIES["modernbert, text classifier"].config | {"classifier_pooling": "mean", "local_attention": 6},
            task="SequenceClassification",
        ),
        "model.layers",
        "all",
    ),
    "deberta": Case(_text("deberta", base=TEXT, **_DEBERTA), "deberta.encoder.layer"),
    "deberta-v2": Case(
        _text("deberta-v2", base=TEXT, **_DEBERTA), "deberta.encoder.layer", refused={"legrad": _UNLIKE}
    ),
    "llama": Case(_text("llama", base=GROUPED), "model.layers", "last"),
    "nemotron": Case(_text("nemotron", base=GROUPED), "model.layers", "last"),  # the square of ReLU
    "vit": Case(_image("vit", base=IMAGE), "vit.layers"),
    "dinov2": Case(_image("dinov2", base=IMAGE, layerscale_value=0.5), "dinov2.encoder.layer", "all"),
    "dinov2, SwiGLU": Case(_image("dinov2", base=IMAGE, use_swiglu_ffn=True), "dinov2.encoder.layer", "all"),
    "clip": Case(FAMILIES["clip, image classifier"], "vision_model.encoder.layers", "patches"),
    "siglip": Case(FAMILIES["siglip, image classifier"], "vision_model.encoder.layers", "all"),
    "swin": Case(
        FAMILIES["swin, image classifier"],
        "swin.encoder.layers.0.blocks",
        refused=dict.fromkeys(("genatt", "legrad"), "attention.0: attends to 16 positions; expected all 64"),
    ),
}


@dataclass(frozen=True, eq=False)
class Exported:
    """A network twice.

    Attributes:
        graph: Exported, tapped and lowered.
        attention: Names of its weights.
        output: Of the graph.
        feed: What both are run on; the second text is shorter.
        network: The library's.
    """

    graph: ModelProto
    attention: tuple[str, ...]
    output: str
    feed: dict[str, Floats]
    network: Any

    def real(self, positions: int) -> Tensor:
        """1 at what is no padding, float [B, N]."""
        mask = self.feed.get("attention_mask")
        return torch.ones(2, positions) if mask is None else torch.from_numpy(mask).float()

    def tensors(self) -> dict[str, Tensor]:
        """The feed for the library."""
        return {name: torch.from_numpy(array) for name, array in self.feed.items()}

    def explain(
        self, method: RelevanceGraph, rows: slice = slice(None), scale: Floats | None = None
    ) -> tuple[Floats, ...]:
        """Relevance [B, N], and of Libra the rest [B], of the last label against the first."""
        graph, names = add_relevance(self.graph, Path(), self.output, method, self.attention)
        feed = {name: array[rows] for name, array in self.feed.items()}
        if "attention_mask" in feed:
            longest = int(feed["attention_mask"].sum(1).max())
            feed = {name: array[:, :longest] for name, array in feed.items()}
        given = {**feed, WEIGHTS: weights_like(len(next(iter(feed.values()))))}
        if scale is not None:
            given = {name: np.repeat(array[:1], len(scale), axis=0) for name, array in given.items()} | {SCALE: scale}
        taken = {value.name for value in graph.graph.input}
        outputs = [name for name in (names.positions, names.rest) if name]
        return tuple(run_graph(graph, outputs, {name: array for name, array in given.items() if name in taken}))


def export(family: Family, folder: Path, output: str = "logits") -> Exported:
    """Write a network, export it as the exporter does, and load it as the library does."""
    source = load_folder(write_folder(family, folder / "network"), None, part=family.part)
    assert source.network is not None
    tapped, taps = tap(to_onnx(source.network, source.traits), folder)
    factory = getattr(transformers, f"AutoModel{'For' * bool(family.task)}{family.task}")
    network = factory.from_pretrained(folder / "network").eval().requires_grad_(False)
    config = getattr(network.config, "text_config", network.config)
    feed = {spec.name: values(spec, int(getattr(config, "pad_token_id", 0) or 0)) for spec in source.traits.inputs}
    lowered = tap_lowered(tapped, folder) or tapped
    return Exported(lowered, tuple(one.output for one in taps), output, feed, network)


def values(spec: Any, padding: int) -> Floats:
    """Two rows of an input; texts are of _LENGTHS where there is room."""
    sizes = [axis if isinstance(axis, int) else (2, _LENGTHS[0])[place] for place, axis in enumerate(spec.axes)]
    random = np.random.default_rng(3)
    if spec.dtype == "float32":
        return random.standard_normal(sizes).astype(np.float32)
    mask = np.arange(sizes[1]) < np.array(_LENGTHS)[:, None]
    ids = np.where(mask, random.integers(5, 200, sizes), padding)
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}.get(spec.name, np.zeros(sizes, dtype=np.int64))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Export each classifier once."""
    made: dict[str, Exported] = {}

    def make(name: str) -> Exported:
        if name not in made:
            made[name] = export(CLASSIFIERS[name].family, tmp_path_factory.mktemp("parity"))
        return made[name]

    return make


def by_autograd(case: Case, one: Exported) -> Network:
    """The library's network, to be watched."""
    layers = [*one.network.get_submodule(case.layers)]
    depth = one.network.config.num_hidden_layers if hasattr(one.network.config, "num_hidden_layers") else len(layers)
    return Network(lambda: one.network(**one.tensors()).logits, layers, depth)


def assert_equal(found: Floats, expected: Floats | Tensor, tolerance: float = _TOLERANCE) -> None:
    """Within a share of the largest, which is not nothing."""
    largest = float(np.abs(np.asarray(expected)).max())
    assert largest > 1e-4
    np.testing.assert_allclose(found, np.asarray(expected), rtol=0, atol=tolerance * largest)


# Of Nemotron's points torch in float32 is itself 2.1e-5 off what it gives in float64; the graph 1.8e-5.
_STEEP = 5e-5
PAIRS = [(name, method) for name, case in CLASSIFIERS.items() for method in case.has()]


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_relevance_is_that_of_autograd(name: str, method: RelevanceGraph, exported: Callable[[str], Exported]) -> None:
    """Of one label against another, in a batch with padding."""
    case, one = CLASSIFIERS[name], exported(name)
    network, seed = by_autograd(case, one), torch.from_numpy(weights_like(2))
    found, *rest = one.explain(method)
    real = one.real(found.shape[1])
    match method:
        case "libra":
            expected, others = network.libra(seed)
            assert_equal(np.column_stack([found, *rest]), np.column_stack([expected, others]))
        case "gradient":
            assert_equal(found, network.gradient(seed))
        case "genatt":
            assert_equal(found, genatt(network.eager(), seed, _READS[case.read](real)))
        case "legrad":
            assert_equal(found, legrad(network.eager(), seed, _READS[case.read](real), real))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_points_of_integrated_gradients_are_those_of_autograd(name: str, exported: Callable[[str], Exported]) -> None:
    """Several in one batch, each with its own scale."""
    one, scales = exported(name), np.array([0.3, 0.6, 0.9], dtype=np.float32)
    network, seed = by_autograd(CLASSIFIERS[name], one), torch.from_numpy(weights_like(2))
    expected = torch.stack([network.gradient(seed, float(scale))[0] for scale in scales])
    (found,) = one.explain("gradient", scale=scales)
    assert_equal(found, expected, _STEEP if name == "nemotron" else _TOLERANCE)


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_a_row_alone_has_the_relevance_that_it_has_in_a_batch(
    name: str, method: RelevanceGraph, exported: Callable[[str], Exported]
) -> None:
    """A text shorter than the other lacks its padding, which has none."""
    one = exported(name)
    (both, *_), (alone, *_) = one.explain(method), one.explain(method, slice(1, 2))
    length = alone.shape[1]
    assert_equal(both[1:, :length], alone)
    assert not both[1, length:].any()


@pytest.mark.parametrize(
    ("name", "method", "why"),
    [(name, method, why) for name, case in CLASSIFIERS.items() for method, why in case.refused.items()],
)
def test_a_method_that_a_network_has_not_is_refused(
    name: str, method: RelevanceGraph, why: str, exported: Callable[[str], Exported]
) -> None:
    """With why."""
    with pytest.raises(RelevanceError, match=why):
        exported(name).explain(method)


def test_the_gradient_is_that_of_central_differences(exported: Callable[[str], Exported]) -> None:
    """In float64 of the library's network: what enters the first layer changes at one position after the other."""
    name, step = "dinov2, SwiGLU", 1e-4
    one, seed = exported(name), torch.from_numpy(weights_like(2)).double()
    (found,) = one.explain("gradient")
    double = replace(one, network=one.network.double(), feed={"pixel_values": one.feed["pixel_values"].astype("f8")})
    network = by_autograd(CLASSIFIERS[name], double)

    def score(position: int, change: float) -> Tensor:
        factor = torch.ones(found.shape[1], 1, dtype=torch.float64)
        factor[position] += change
        return (network.watched(change=lambda embedded: embedded * factor).made * seed).sum(-1)

    try:
        slopes = [(score(n, step) - score(n, -step)) / (2 * step) for n in range(found.shape[1])]
    finally:
        one.network.float()
    assert_equal(found, torch.stack(slopes, 1).detach())


TOWERS = {
    name: (text, image)
    for name, text, image in (("clip", "clip, text", "clip, vision"), ("siglip", "siglip, text", "siglip, vision"))
}


def embedding(network: Any, part: str, tensors: dict[str, Tensor]) -> Tensor:
    """A tower's vector, of length 1."""
    tower = network.text_model if part == "text" else network.vision_model
    made = tower(**tensors).pooler_output
    if projection := getattr(network, {"text": "text_projection", "vision": "visual_projection"}[part], None):
        made = projection(made)
    return functional.normalize(made, dim=-1)  # the length is held


def parts_by_autograd(one: Exported, part: str) -> Floats:
    """What each position, and what belongs to none, adds to the first row's vector, [N + 1, D]."""
    tensors = {name: tensor[:1] for name, tensor in one.tensors().items()}
    tower = one.network.text_model if part == "text" else one.network.vision_model
    network = Network(lambda: embedding(one.network, part, tensors), [*tower.encoder.layers], 2)
    dim = network.watched().made.shape[1]
    columns = [network.libra(row[None]) for row in torch.eye(dim)]
    return np.stack([np.append(positions, rest) for positions, rest in columns], axis=1)


@pytest.mark.parametrize("name", TOWERS)
def test_pairs_of_two_towers_are_those_of_autograd(name: str, tmp_path: Path) -> None:
    """The cosine of a text and an image, by token and patch: each one's part of its vector times the other's."""
    found, expected = list[Floats](), list[Floats]()
    for part, family in zip(("text", "vision"), TOWERS[name], strict=True):
        one = export(FAMILIES[family], tmp_path / part, "embedding")
        graph, _ = add_parts(one.graph, Path(), "embedding")
        expected.append(parts_by_autograd(one, part))
        rows = len(expected[-1])
        feed = {key: np.repeat(array[:1], rows, axis=0) for key, array in one.feed.items()}
        taken = {value.name for value in graph.graph.input}
        given = {key: array for key, array in feed.items() if key in taken}
        (made,) = run_graph(graph, [PART], {**given, CHOSEN: np.array([*range(rows - 1), -1])})
        found.append(made / np.linalg.norm(made.sum(0)))  # together they are the vector
    pairs = found[0] @ found[1].T
    assert_equal(pairs, expected[0] @ expected[1].T)
    assert -1 <= pairs.sum() <= 1
