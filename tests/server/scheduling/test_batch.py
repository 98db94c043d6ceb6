import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artifact.contract import Contract
from server.scheduling.batch import BatchItem, Load
from server.scheduling.collate import collate, split
from tests.server.fakes import CONTRACT, EchoGraph, make_item

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
        hidden, (name,) = results.outputs["last_hidden_state"], item.attentions
        assert hidden.shape == (item.rows, item.length, 3)
        assert (hidden == value).all()
        assert results.attentions[name].shape == (item.rows, 4, item.length, item.length)
        np.testing.assert_array_equal(results.attentions[name], value * 1001)
        assert list(results.attentions) == [name]


def test_a_single_request_is_passed_on_without_a_copy() -> None:
    """Collating one request costs nothing."""
    item = make_text(5)
    assert collate([item])["input_ids"] is item.inputs["input_ids"]


def test_padding_is_masked_and_filled_with_the_pad_value() -> None:
    """The shorter row's mask is 0 where its tokens end."""
    collated = collate([make_text(2), make_text(4)])
    assert collated["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert collated["input_ids"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_the_golden_contract_has_what_these_tests_rely_on() -> None:
    """Two layers of four heads."""
    assert isinstance(CONTRACT, Contract)
    assert [layer.num_heads for layer in CONTRACT.attention] == [4, 4]
