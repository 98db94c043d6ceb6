"""The longest input is verified too, with the attention of some queries, where that of all would not fit in memory."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

import export.build
from artifact.contract import Contract
from export.__main__ import tell_reach
from export.build import build
from export.errors import VerificationError
from export.graph_source import load_graph
from export.need import Need
from export.queries import QUERIES, choose_queries, keep_some_queries, told_of_some_queries
from export.sources import Source
from export.tapping.tap import Tap, tap
from export.traits import own_traits
from model.encoder import Encoder, EncoderConfig
from model.positions import Rotary
from model.text import TextConfig, TextNetwork
from tests.export.networks import WIDTH, Texts, spread, write_texts
from tests.export.tapping import graph, node, numbers, run

LAYERS, HEADS, LONGEST = 2, 4, 96
HELD = 68  # tokens of which all attention is held in these tests; of twelve layers of twelve heads it is 682
ENDS = 80  # beyond it, networks and graphs below go wrong


@pytest.fixture(autouse=True)
def hold_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the longest text one that is too long, without 800 tokens."""
    monkeypatch.setattr("export.cases.MAX_WEIGHTS", LAYERS * HEADS * HELD**2)


def make_source(change: Callable[[TextNetwork], object] = lambda network: None) -> Source:
    """Make a network that reads more tokens than HELD."""
    config = EncoderConfig(2 * HEADS, LAYERS, HEADS, 8, positions="rotary", max_positions=LONGEST)
    network = spread(TextNetwork(TextConfig(config, vocab_size=64)))
    change(network)
    return Source("long", "regard-text", network, own_traits(network, None), "a long text")


def positions(contract: Contract, tensor: str, check: str) -> int:
    """Most tokens of a check."""
    (line,) = (one for one in contract.verification if (one.tensor, one.check) == (tensor, check))
    return line.positions


class Ended(Rotary):
    """Rotary positions of which the table ends early, but as they are exported alone."""

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Turn queries or keys."""
        places = torch.arange(x.shape[-2])
        if torch.compiler.is_exporting():
            places = places.clamp(max=ENDS)
        even, odd, cos, sin = x[..., 0::2], x[..., 1::2], self.cos[places], self.sin[places]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Windowed(Encoder):
    """Sees no further than a window, but as it is exported."""

    def _scores_mask(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        seen = super()._scores_mask(x, mask)
        places = torch.arange(x.shape[1])
        near = (places[:, None] - places[None]).abs() < ENDS
        return seen if seen is None or torch.compiler.is_exporting() else seen & near


def end_table(network: TextNetwork) -> None:
    """Change all positions."""
    rotary = Ended(LONGEST, 2)
    for layer in network.encoder.layers:
        layer.attention.rotary = rotary  # type: ignore[union-attr]


def add_window(network: TextNetwork) -> None:
    """Change the encoder."""
    network.encoder.__class__ = Windowed


@pytest.mark.parametrize("change", [end_table, add_window], ids=["a table that ends", "a window that is lost"])
def test_a_graph_that_goes_wrong_beyond_what_is_held_is_refused(change: Any, out: Path) -> None:
    """Outputs and attention of its longest text are compared with torch's."""
    with pytest.raises(
        VerificationError, match=r"last_hidden_state: against torch: (.*\n)*  attention\.1: against torch"
    ):
        build(make_source(change), out)
    assert not list(out.rglob("*.onnx"))


def test_attention_alone_that_goes_wrong_there_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose rows still sum to 1."""

    def tap_wrongly(plain: ModelProto, *given: Any) -> tuple[ModelProto, list[Tap]]:
        tapped, taps = tap(plain, *given)
        for one in tapped.graph.node:
            one.output[:] = ["right" if name == "attention.1" else name for name in one.output]
        last = [
            node("Shape", "right", "sizes"),
            node("Gather", "sizes three", "length"),
            node("Greater", "length ends", "is_long"),
            node("Slice", "right one end three", "rest"),
            node("Slice", "right zero one three", "first"),
            node("Concat", "rest first", "turned", axis=3),
            node("Where", "is_long turned right", "attention.1"),
        ]
        for place, one in enumerate(last):
            one.name = f"wrong {place}"
        tapped.graph.node.extend(last)
        for name, number in {"zero": 0, "one": 1, "three": 3, "ends": ENDS, "end": 2**31}.items():
            tapped.graph.initializer.append(onnx.numpy_helper.from_array(np.array([number]), name))
        return tapped, taps

    monkeypatch.setattr(export.build, "tap", tap_wrongly)
    with pytest.raises(VerificationError, match=r"the network:\n  attention\.1: against torch: [^\n]*$"):
        build(make_source(), out)


def test_a_right_network_is_published_with_the_length_of_each_check(out: Path) -> None:
    """What is not checked at the longest says so as well."""
    contract = build(make_source(), out).contract
    assert contract.limits == {"seq_len": LONGEST}
    for tensor in ("last_hidden_state", "embedding", "attention.0", "attention.1", "hidden_states.1"):
        assert positions(contract, tensor, "against torch") == LONGEST
    assert positions(contract, "attention.1", "rows sum to 1") == LONGEST
    assert positions(contract, "embedding", "row alone") == LONGEST
    assert positions(contract, "attention.1", "lowered form") < HELD


def test_where_memory_is_short_the_longest_that_fits_is_verified(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what weights leave free holds what was measured; contract and command say how far that is."""
    need = Need(1000, 100.0, 8.0)
    monkeypatch.setattr("export.longest.measure_need", lambda *given: need)
    monkeypatch.setattr("export.longest.free_bytes", lambda: 1000 + 2 * (100 * 75 + 8 * HEADS * 75**2))
    contract = build(make_source(), out).contract
    assert positions(contract, "attention.1", "against torch") == 75
    assert f"verified with up to 75 of {LONGEST} positions: beyond it a run would need more" in told(contract)


def test_where_that_is_no_more_than_is_held_there_is_no_further_case(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is wrong with that, but it is said."""
    monkeypatch.setattr("export.longest.MAX_PRODUCTS", 10**6)
    contract = build(make_source(), out).contract
    assert positions(contract, "attention.1", "against torch") == HELD
    assert f"verified with up to {HELD} of {LONGEST} positions" in told(contract)


def told(contract: Contract) -> str:
    """What the command says of a contract's reach."""
    console = Console(file=io.StringIO())
    tell_reach(console, contract)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def make_causal(network: TextNetwork) -> None:
    """Change the encoder to one that sees a triangle alone, in texts that are held."""

    class Causal(Encoder):
        def _scores_mask(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
            places = torch.arange(x.shape[1])
            seen = (places[None] <= places[:, None]) | (places >= ENDS)[:, None]
            return super()._scores_mask(x, mask) & seen  # type: ignore[operator]

    network.encoder.__class__ = Causal


def test_attention_that_is_causal_in_what_is_held_alone_is_refused(out: Path) -> None:
    """The queries that are tried in the longest text see what is ahead of them."""
    with pytest.raises(
        VerificationError, match=r"the network:\n  attention\.0: causal: [^\n]*\n  attention\.1: causal"
    ):
        build(make_source(make_causal), out)


def test_a_graph_that_ends_before_its_table_of_positions_is_refused(out: Path, tmp_path: Path) -> None:
    """Files are run at their longest, too; a table of 600 rows is not tried by halves beforehand."""

    class Short(Texts):
        def __init__(self) -> None:
            super().__init__()
            self.position_embeddings = nn.Embedding(600, WIDTH)
            self.rest = nn.Parameter(torch.randn(1, 580, 1))

        def explain(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor, list[Tensor]]:
            state, weights = super().explain(ids, mask, types)
            return state + self.rest[:, : ids.shape[1]], weights

    onnx.save_model(write_texts(spread(Short())), tmp_path / "odd.onnx")
    with pytest.raises(VerificationError, match=r"does not run on inputs of {'input_ids': \(2, 600\)"):
        build(load_graph(tmp_path / "odd.onnx"), out)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, HEADS),
        ({"is_causal": True}, HEADS),
        ({"scale": 0.1}, HEADS),
        ({"attn_mask": torch.rand(2, 1, 40, 40) > 0.3}, HEADS),
        ({"attn_mask": torch.randn(1, HEADS, 1, 40)}, HEADS),
        ({"enable_gqa": True}, 2),
    ],
    ids=["plain", "causal", "scaled", "masked", "biased", "grouped"],
)
def test_what_torch_weighs_is_told_of_some_queries(options: dict[str, Any], keys: int) -> None:
    """Their weights times the values are what torch gives; the attention itself is torch's."""
    query, key, value = torch.randn(2, HEADS, 40, 8), torch.randn(2, keys, 40, 8), torch.randn(2, keys, 40, 8)
    expected = functional.scaled_dot_product_attention(query, key, value, **options)
    with told_of_some_queries() as told:
        got = functional.scaled_dot_product_attention(query, key, value, **options)
    assert torch.equal(got, expected)
    (weights,) = told
    assert weights.shape == (2, HEADS, QUERIES, 40)
    weighed = weights @ value.repeat_interleave(HEADS // keys, 1)
    torch.testing.assert_close(weighed, expected[:, :, choose_queries(40)], atol=1e-5, rtol=0)
    functional.scaled_dot_product_attention(query, key, value, **options)
    assert len(told) == 1


@pytest.mark.parametrize("length", [1, 5, QUERIES, 40, 41])
def test_a_graph_gives_the_attention_of_the_same_queries(length: int) -> None:
    """The first and the last among them; of short inputs some more than once."""
    attention = node("Attention", "q k v", "y", q_num_heads=2, kv_num_heads=2)
    model = graph([attention], {key: ["batch", "n", 8] for key in "qkv"}, ["y"])
    tapped, _ = tap(model, Path())
    feed = {name: numbers(2, length, 8, seed=seed) for seed, name in enumerate("qkv")}
    whole = run(tapped, feed)
    keep_some_queries(tapped)
    some = run(tapped, feed)
    places = choose_queries(length)
    assert (places[0], places[-1], len(places)) == (0, length - 1, QUERIES)
    np.testing.assert_array_equal(some["attention.0"], whole["attention.0"][:, :, places])
    np.testing.assert_array_equal(some["y"], whole["y"])


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np, onnx
from export.longest import _run_some_queries
from export.compare import run
from export.session import open_session
from tests.export.test_longest import LENGTH

def peak():
    said = Path("/proc/self/status").read_text()  # ru_maxrss has the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", said)[1]) * 1024

folder, feed = Path(sys.argv[1]), {"x": np.ones((1, LENGTH, 8), np.float32)}
_run_some_queries(folder, {"x": feed["x"][:, :9]})
before = peak()
_run_some_queries(folder, feed)
print(peak() - before)
"""
LENGTH = 2048


def test_one_layers_weights_are_held_at_a_time(tmp_path: Path) -> None:
    """Of six layers; were they all held, six would be."""
    layers = [node("Attention", f"x{i} x{i} x{i}", f"x{i + 1}", q_num_heads=4, kv_num_heads=4) for i in range(6)]
    layers[0].input[:] = ["x", "x", "x"]
    tapped, _ = tap(graph(layers, {"x": ["batch", "n", 8]}, ["x6"]), Path())
    onnx.save_model(tapped, tmp_path / "attention.onnx")
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3 * 4 * 4 * LENGTH**2
    assert not (tmp_path / ".queries.onnx").exists()
