import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifact.contract import Contract, TensorContract
from server.auth.clients import Client
from server.context import RpcContext
from server.engine.cost import CostModel
from server.scheduling.batch import Batch, BatchItem, BatchLimits, Load, Result, size_of
from server.scheduling.collate import collate, run_batch, split
from tests.server.fakes import CONTRACT, EchoGraph, GatedGraph, make_item

GRAPH = EchoGraph()


def make_text(length: int, *, rows: int = 1, attentions: tuple[str, ...] = (), value: int = 1) -> BatchItem:
    """A request of some rows of `length` tokens, all `value`."""
    outputs = ("last_hidden_state", "embedding")
    return make_item(GRAPH, value, length=length, rows=rows, outputs=outputs, attentions=attentions)


def test_padding_share_counts_the_tokens_that_are_not_real() -> None:
    """4 and 8 tokens make a batch of 16, of which 4 are padding."""
    assert Load.of([make_text(4), make_text(8)]).padding_share == 0.25


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=6))
def test_each_request_gets_back_its_own_rows_at_its_own_length(sizes: list[tuple[int, int]]) -> None:
    """Collating and splitting returns to every request what it sent, and nothing of its neighbours."""
    batch = [
        make_text(length, rows=rows, value=index + 1, attentions=("attention.1",) if index % 2 else ("attention.0",))
        for index, (length, rows) in enumerate(sizes)
    ]
    fetched = GRAPH.run(collate(batch), ["last_hidden_state", "embedding", "attention.0", "attention.1"])
    for index, (item, results) in enumerate(zip(batch, split(batch, fetched), strict=True)):
        value = index + 1
        hidden, (name,) = results.outputs["last_hidden_state"], item.further
        assert hidden.shape == (item.rows, item.length, 3)
        assert (hidden == value).all()
        assert results.further[name].shape == (item.rows, 4, item.length, item.length)
        np.testing.assert_array_equal(results.further[name], value * 1001)
        assert list(results.further) == [name]


def test_a_single_request_is_passed_on_without_a_copy() -> None:
    """Collating one request costs nothing."""
    item = make_text(5)
    assert collate([item])["input_ids"] is item.inputs["input_ids"]


def test_a_row_that_is_shown_several_times_is_copied_for_its_run() -> None:
    """A device takes arrays that lie in one piece."""
    ids = np.broadcast_to(np.arange(3), (2, 3))
    collated = collate([BatchItem(GRAPH, CONTRACT, {"input_ids": ids}, 2, 3, ("embedding",))])["input_ids"]
    assert collated.flags.c_contiguous
    assert collated.tolist() == ids.tolist()


def test_padding_is_masked_and_filled_with_the_pad_value() -> None:
    """The shorter row's mask is 0 where its tokens end."""
    collated = collate([make_text(2), make_text(4)])
    assert collated["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert collated["input_ids"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_the_golden_contract_has_what_these_tests_rely_on() -> None:
    """Two layers of four heads."""
    assert isinstance(CONTRACT, Contract)
    assert [layer.num_heads for layer in CONTRACT.attention] == [4, 4]


def test_an_array_of_strings_holds_what_they_say() -> None:
    """Beside eight bytes each for where they lie."""
    strings = np.array([["ab", "c"], ["", "def"]], dtype=object)
    assert size_of(strings) == 4 * 8 + 6
    assert size_of(np.zeros((2, 3), dtype=np.int16)) == 12
    item = BatchItem(GRAPH, CONTRACT, {"x": strings, "y": np.zeros(3, dtype=np.int8)}, 1, 1, ())
    assert item.held_bytes == 4 * 8 + 6 + 3
    assert Result({"x": strings}, {"y": np.zeros(3, dtype=np.int8)}).size_bytes == item.held_bytes


def test_a_request_knows_what_it_costs_and_whose_share_it_has() -> None:
    """Of its own rows and length; a copy with other rows costs what these do."""
    graph = EchoGraph(CostModel(run_seconds=2.0, token_seconds=0.5))
    item = make_item(graph, length=4, rows=3, context=RpcContext(caller=Client("one")))
    assert (item.rows_seconds, item.alone_seconds, item.share) == (6.0, 8.0, ("one", ""))
    single = replace(item, rows=1, context=RpcContext(address="ipv4:192.0.2.1"))
    assert (single.rows_seconds, single.alone_seconds, single.share) == (2.0, 4.0, ("anyone", "ipv4:192.0.2.1"))


def test_what_was_not_admitted_or_run_took_nothing() -> None:
    """Neither of the queue's time nor of anybody's quota."""
    item, result = make_text(3), Result({}, {})
    assert (item.arrived, item.estimate_seconds, item.reserved_seconds) == (0.0, 0.0, 0.0)
    assert (item.due, item.expires, item.offered, item.begin_by, item.reply) == (*[math.inf] * 4, None)
    assert (result.queue_ns, result.compute_ns, result.batch_size) == (0, 0, 0)
    assert (Load().rows, Load().tokens, Load().longest) == (0, 0, 0)


def test_the_first_attention_wanted_says_which_graph_runs() -> None:
    """A request wants weights, contributions or hidden states, never two of them."""
    layers = CONTRACT.attention
    contributions = tuple(layer.contribution for layer in layers if layer.contribution)
    assert len(contributions) == 2
    assert make_text(3).graph_kind == "plain"
    states = tuple(state.output for state in CONTRACT.hidden_states)
    kinds = {"tapped": ("attention.0", "attention.1"), "contributions": contributions, "hidden": states}
    for kind, wanted in kinds.items():
        for attentions in (wanted, wanted[:1], wanted[1:]):
            assert make_text(3, attentions=attentions).graph_kind == kind


def test_only_requests_with_a_batch_axis_and_equal_other_axes_share() -> None:
    """The sequence is padded; nothing else can be."""
    axes = ("batch", "seq_len", "width")
    wide = CONTRACT.model_copy(update={"inputs": (TensorContract(name="x", dtype="float32", axes=axes),)})

    def item(length: int, width: int, contract: Contract = wide) -> BatchItem:
        return BatchItem(GRAPH, contract, {"x": np.zeros((1, length, width), dtype=np.float32)}, 1, length, ())

    assert item(2, 3).may_share(item(4, 3))
    assert not item(2, 3).may_share(item(2, 4))
    fixed = wide.model_copy(update={"inputs": (TensorContract(name="x", dtype="float32", axes=(1, 2, 3)),)})
    assert not item(2, 3, fixed).may_share(item(2, 3, fixed))


def test_hidden_states_count_among_what_a_batch_fetches() -> None:
    """Of 2 rows x 8 positions: 32 float32 each, of two layers."""
    load = Load.of([make_text(4, attentions=("hidden_states.1",)), make_text(8, attentions=("hidden_states.2",))])
    assert load.further_bytes == 2 * 8 * 32 * 4
    assert load.fits(BatchLimits(2, 16, 2 * 2 * 8 * 32 * 4))
    assert not load.fits(BatchLimits(2, 16, 2 * 2 * 8 * 32 * 4 - 1))


def test_a_batch_fetches_what_any_of_its_requests_wants() -> None:
    """And is as large as that makes it: 2 rows x 8 positions; 4 heads x 8 x 8 float32 a layer."""
    load = Load.of([make_text(4, attentions=("attention.0",)), make_text(8, attentions=("attention.0", "attention.1"))])
    assert (load.rows, load.tokens, load.longest, set(load.layers_fetched)) == (
        2,
        12,
        8,
        {"attention.0", "attention.1"},
    )
    weights_bytes = 2 * 2 * 4 * 8 * 8 * 4
    for rows, tokens, attention_bytes, fits in (
        (2, 16, weights_bytes, True),
        (1, 16, weights_bytes, False),
        (2, 15, weights_bytes, False),
        (2, 16, weights_bytes - 1, False),
    ):
        assert load.fits(BatchLimits(rows, tokens, attention_bytes)) == fits


def test_a_run_is_given_what_its_requests_want_and_says_how_long_it_took() -> None:
    """Of every graph the union of names; one instance's threads unless told otherwise."""
    graph = GatedGraph()
    graph.gate.set()
    results, times = run_batch([make_item(graph, 2), make_item(graph, 3)])
    assert [float(result.outputs["embedding"][0, 0]) for result in results] == [8.0, 12.0]
    run_batch([make_item(graph, 2)], all_threads=True)
    assert graph.had_all_threads == [False, True]
    for duration in (times.collate_ns, times.run_ns, times.split_ns):
        assert 0 < duration < 60 * 10**9


def test_outputs_with_other_rows_than_were_sent_are_a_fault() -> None:
    """Whose is what, nobody can say."""
    items = [make_text(2), make_text(2)]
    fetched = GRAPH.run(collate(items), ["last_hidden_state", "embedding"])
    wrong = {**fetched, "embedding": fetched["embedding"][:1]}
    with pytest.raises(ValueError, match=r"output embedding has the shape \(1, 1\) for 2 rows"):
        split(items, wrong)


def test_without_a_batch_axis_a_request_gets_everything() -> None:
    """As it came, attention as well."""
    fixed = CONTRACT.model_copy(update={"inputs": (TensorContract(name="x", dtype="float32", axes=(2,)),)})
    item = BatchItem(GRAPH, fixed, {"x": np.zeros(2, dtype=np.float32)}, 1, 1, ("embedding",), ("attention.0",))
    given = {"embedding": np.zeros(7), "attention.0": np.ones(5), "other": np.zeros(1)}
    (result,) = split([item], given)
    assert result.outputs == {"embedding": given["embedding"]}
    assert result.further == {"attention.0": given["attention.0"]}


def test_a_batch_is_expected_to_take_as_long_as_it_was_given() -> None:
    """From its begin to its end."""
    assert Batch([make_item(EchoGraph())], instances=1, started=2.0, ends=5.0).expected_seconds == 3.0
