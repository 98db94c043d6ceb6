from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.batching import Array, BatchLimits, Work, choose_companions, join, padded_tokens, padding_share, part
from server.contract import Contract, read_contract
from tests.golden import GOLDEN_MODELS

CONTRACT = read_contract(GOLDEN_MODELS / "tiny-text" / "1" / "contract.json")
LIMITS = BatchLimits(rows=8, tokens=256, attention_bytes=10**9)


class EchoEngine:
    """Gives back what it was sent: hidden states and attention that tell row and position."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str], attentions: Sequence[str]) -> dict[str, Array]:
        ids = inputs["input_ids"].astype(np.float32)
        fetched: dict[str, Array] = {
            "last_hidden_state": np.repeat(ids[:, :, None], 3, axis=2),
            "embedding": ids[:, :1],
        }
        weights = ids[:, None, :, None] + 1000 * ids[:, None, None, :]
        fetched |= dict.fromkeys(attentions, np.repeat(weights, 4, axis=1))
        return {name: fetched[name] for name in (*outputs, *attentions)}


ENGINE = EchoEngine()


def make_work(
    length: int, *, rows: int = 1, attentions: tuple[str, ...] = (), engine: EchoEngine = ENGINE, value: int = 1
) -> Work:
    """A request of some rows of `length` tokens, all `value`."""
    ids = np.full((rows, length), value, dtype=np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return Work(engine, CONTRACT, inputs, rows, length, ("last_hidden_state", "embedding"), attentions)


def test_the_first_runs_even_where_it_is_larger_than_any_limit() -> None:
    """A request that fits no batch runs alone instead of waiting for ever."""
    assert choose_companions(make_work(400), [make_work(400)], LIMITS) == []


def test_requests_of_near_length_come_before_older_ones_of_other_lengths() -> None:
    """Of five that wait, the nearest in length join until one more would make too much padding."""
    waiting = [make_work(60), make_work(3), make_work(4), make_work(12), make_work(10)]
    assert choose_companions(make_work(11), waiting, LIMITS) == [3, 4, 2]


def test_plain_and_attention_requests_never_share_a_batch() -> None:
    """A caller who wants no attention never pays for one who does."""
    waiting = [make_work(8, attentions=("attention.0",)), make_work(8)]
    assert choose_companions(make_work(8), waiting, LIMITS) == [1]


def test_requests_of_another_model_never_join() -> None:
    """A batch belongs to one engine."""
    assert choose_companions(make_work(8), [make_work(8, engine=EchoEngine())], LIMITS) == []


def test_attention_requests_are_bounded_by_what_they_fetch() -> None:
    """Two rows of 4 heads and 16 x 16 weights take 8192 bytes; a limit below that keeps them apart."""
    first, other = (make_work(16, attentions=("attention.0",)) for _ in range(2))
    assert choose_companions(first, [other], BatchLimits(8, 256, attention_bytes=8192)) == [0]
    assert choose_companions(first, [other], BatchLimits(8, 256, attention_bytes=8191)) == []


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 4)), max_size=20), st.integers(1, 64))
def test_no_batch_is_larger_than_its_limits(others: list[tuple[int, int]], length: int) -> None:
    """Whatever waits: rows, padded tokens and padding stay within bounds, and nobody is chosen twice."""
    waiting = [make_work(other, rows=rows) for other, rows in others]
    chosen = choose_companions(make_work(length), waiting, LIMITS)
    batch = [make_work(length), *(waiting[index] for index in chosen)]
    assert len(set(chosen)) == len(chosen)
    assert sum(work.rows for work in batch) <= LIMITS.rows
    assert padded_tokens(batch) <= LIMITS.tokens
    assert padding_share(batch) <= 0.25


def test_padding_share_counts_the_tokens_that_are_not_real() -> None:
    """4 and 8 tokens make a batch of 16, of which 4 are padding."""
    assert padding_share([make_work(4), make_work(8)]) == 0.25


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=6))
def test_each_request_gets_back_its_own_rows_at_its_own_length(sizes: list[tuple[int, int]]) -> None:
    """Joining and parting returns to every request what it sent, and nothing of its neighbours."""
    batch = [
        make_work(length, rows=rows, value=index + 1, attentions=("attention.1",) if index % 2 else ("attention.0",))
        for index, (length, rows) in enumerate(sizes)
    ]
    fetched = ENGINE.run(join(batch), ["last_hidden_state", "embedding"], ["attention.0", "attention.1"])
    for index, (work, results) in enumerate(zip(batch, part(batch, fetched), strict=True)):
        value = index + 1
        hidden, (name,) = results.outputs["last_hidden_state"], work.attentions
        assert hidden.shape == (work.rows, work.length, 3)
        assert (hidden == value).all()
        assert results.attentions[name].shape == (work.rows, 4, work.length, work.length)
        assert (results.attentions[name] == value * 1001).all()
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
