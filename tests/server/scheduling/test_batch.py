from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artifact.contract import Contract, read_contract
from server.engine.cost import CostModel
from server.scheduling.batch import Array, Load, Work, join, part
from tests.golden import GOLDEN_MODELS

CONTRACT = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")


class EchoGraph:
    """Gives back what it was sent: hidden states and attention that tell row and position."""

    can_run_wide = False
    token = object()

    def __init__(self, cost: CostModel | None = None) -> None:
        self.cost = cost or CostModel()

    def run(self, inputs: Mapping[str, Array], names: Sequence[str], *, wide: bool = False) -> dict[str, Array]:
        del wide
        ids = inputs["input_ids"].astype(np.float32)
        fetched: dict[str, Array] = {
            "last_hidden_state": np.repeat(ids[:, :, None], 3, axis=2),
            "embedding": ids[:, :1],
        }
        weights = ids[:, None, :, None] + 1000 * ids[:, None, None, :]
        fetched |= dict.fromkeys(("attention.0", "attention.1"), np.repeat(weights, 4, axis=1))
        return {name: fetched[name] for name in names}


GRAPH = EchoGraph()


def make_work(
    length: int, *, rows: int = 1, attentions: tuple[str, ...] = (), graph: EchoGraph = GRAPH, value: int = 1
) -> Work:
    """A request of some rows of `length` tokens, all `value`."""
    ids = np.full((rows, length), value, dtype=np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return Work(graph, CONTRACT, inputs, rows, length, ("last_hidden_state", "embedding"), attentions)


def test_padding_share_counts_the_tokens_that_are_not_real() -> None:
    """4 and 8 tokens make a batch of 16, of which 4 are padding."""
    assert Load.of([make_work(4), make_work(8)]).padding_share == 0.25


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=6))
def test_each_request_gets_back_its_own_rows_at_its_own_length(sizes: list[tuple[int, int]]) -> None:
    """Joining and parting returns to every request what it sent, and nothing of its neighbours."""
    batch = [
        make_work(length, rows=rows, value=index + 1, attentions=("attention.1",) if index % 2 else ("attention.0",))
        for index, (length, rows) in enumerate(sizes)
    ]
    fetched = GRAPH.run(join(batch), ["last_hidden_state", "embedding", "attention.0", "attention.1"])
    for index, (work, results) in enumerate(zip(batch, part(batch, fetched), strict=True)):
        value = index + 1
        hidden, (name,) = results.outputs["last_hidden_state"], work.attentions
        assert hidden.shape == (work.rows, work.length, 3)
        assert (hidden == value).all()
        assert results.attentions[name].shape == (work.rows, 4, work.length, work.length)
        np.testing.assert_array_equal(results.attentions[name], value * 1001)
        assert list(results.attentions) == [name]


def test_a_single_request_is_passed_on_without_a_copy() -> None:
    """Joining one request costs nothing."""
    work = make_work(5)
    assert join([work])["input_ids"] is work.inputs["input_ids"]


def test_padding_is_masked_and_filled_with_the_pad_value() -> None:
    """The shorter row's mask is 0 where its tokens end."""
    joined = join([make_work(2), make_work(4)])
    assert joined["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert joined["input_ids"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_the_golden_contract_has_what_these_tests_rely_on() -> None:
    """Two layers of four heads."""
    assert isinstance(CONTRACT, Contract)
    assert [layer.num_heads for layer in CONTRACT.attention] == [4, 4]
