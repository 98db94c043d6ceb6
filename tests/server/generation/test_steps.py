"""Texts that are written together: each as if it were alone, whoever comes and goes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from server.auth.clients import Client
from server.context import RpcContext
from server.errors import DeadlinePassed, InternalFault, InvalidInput
from server.generation import caches, steps
from server.generation.caches import Caches
from server.generation.plan import AttentionPlan, GenerationPlan
from server.generation.request import GeneratedToken, Sampling
from server.generation.steps import Steps
from server.generation.turn import make_turn
from server.generation.writing import BeamWriting, StraightWriting, Writing
from tests.server.fakes import CONTRACT
from tests.server.generation.fakes import (
    END,
    GENERATION,
    START,
    FakeDecoder,
    bias_of,
    letters,
    logits_after,
    source_of,
)

MAX_TOKENS = 16
KEPT_BYTES = 16 << 20
SMALL_BYTES = 100  # tokens and lengths of a few rows
PATIENT = GENERATION.model_copy(update={"max_tokens": 60, "suppressed_tokens": (END,)})


class Room:
    """Steps of a fake decoder, and what they tell."""

    def __init__(self, max_rows: int = 8, *, is_wanted: bool = True) -> None:
        self.decoder = FakeDecoder()
        self.told = list[Writing]()
        self.steps = Steps(self.decoder, max_rows, lambda: is_wanted, self.told.extend)  # type: ignore[arg-type]
        self.writer = letters()

    def straight(self, source: Sequence[float], **given: object) -> StraightWriting:
        """Make a text of one row."""
        plan = plan_of(**given)
        return StraightWriting(plan, source_of(source), self.writer, RpcContext(), streams=True)

    def beams(self, source: Sequence[float], num_beams: int, **given: object) -> BeamWriting:
        """Make a text of several rows."""
        return BeamWriting(plan_of(num_beams=num_beams, **given), source_of(source), self.writer, RpcContext())

    def more_bytes(self, writing: Writing) -> int:
        """Say what a text may add to the caches."""
        return self.steps.more_bytes(writing.num_rows, writing.max_length, writing.source_length)

    def turns(self) -> Iterator[None]:
        """Take turns until nothing is left."""
        while self.steps.all:
            self.steps.run({}, [])
            yield

    def finish(self) -> None:
        """Take all turns."""
        for _ in self.turns():
            pass


def plan_of(**given: object) -> GenerationPlan:
    """Return a plan of the fake decoder's."""
    return GenerationPlan(**{"generation": GENERATION, "starts": {"": (START,)}, "max_tokens": MAX_TOKENS, **given})  # type: ignore[arg-type]


def tokens_of(writing: Writing) -> list[int]:
    """Tokens of the best result."""
    return [one.token for one in writing.results[0].tokens]


def greedy(source: Sequence[float], start: tuple[int, ...] = (START,)) -> list[int]:
    """Write what is likeliest at each step, without caches."""
    written = list[int]()
    while len(written) < MAX_TOKENS and END not in written:
        written.append(int(logits_after(source, [*start, *written]).argmax()))
    return written


def alone(make: str, *arguments: object, **given: object) -> Writing:
    """Write a text by itself."""
    room = Room()
    writing: Writing = getattr(room, make)(*arguments, **given)
    room.steps.join(writing)
    room.finish()
    return writing


def test_the_likeliest_token_is_written_at_each_step() -> None:
    """With its log-probability; the tokens that it begins with are read and not told."""
    for start in ((START,), (START, 5, 6)):
        writing = alone("straight", [1.0, 2.0], starts={"": start})
        assert tokens_of(writing) == greedy([1.0, 2.0], start)
        logits = logits_after([1.0, 2.0], start).astype(np.float64)
        expected = logits[tokens_of(writing)[0]] - np.log(np.exp(logits).sum())
        assert writing.results[0].tokens[0].log_probability == pytest.approx(expected, abs=1e-5)


def test_tokens_are_told_as_they_are_written() -> None:
    """Each once, in their order."""
    room = Room()
    writing = room.straight([3.0])
    room.steps.join(writing)
    told = list[GeneratedToken]()
    for _ in room.turns():
        assert len(writing.fresh) <= 1
        told += writing.fetch()
    assert [one.token for one in told] == tokens_of(writing) == greedy([3.0])
    assert "".join(one.text for one in told) == writing.results[0].text


def test_no_token_is_lost_that_is_written_while_others_are_fetched() -> None:
    """One thread writes, another fetches, as an instance and the event loop do."""
    writing, written = Room().straight([1.0]), 20_000
    tokens = [GeneratedToken(number, "", 0.0) for number in range(written)]

    def write() -> None:
        for token in tokens:
            writing.fresh.append(token)

    writer = threading.Thread(target=write)
    writer.start()
    fetched = list[GeneratedToken]()
    while writer.is_alive() or writing.fresh:
        fetched += writing.fetch()
    assert [token.token for token in fetched] == list(range(written))


def test_two_hundred_texts_that_come_and_go_are_what_they_are_alone() -> None:
    """Of one row and several, drawn and likeliest, some given up on their way; and all memory is given back."""
    random = np.random.default_rng(7)
    room, joined = Room(max_rows=16), list[tuple[Writing, Writing]]()
    left = 200
    while left or room.steps.all:
        for _ in range(min(left, int(random.integers(4)))):
            left -= 1
            source = random.random(int(random.integers(1, 40))).tolist()
            kind = int(random.integers(3))
            if kind == 0:
                arguments: tuple[object, ...] = ("beams", source, int(random.choice([2, 3, 5])))
                given: dict[str, object] = {"num_results": 2}
            else:
                arguments = ("straight", source)
                given = {"sampling": Sampling(seed=left, top_k=5, temperature=1.3)} if kind == 1 else {}
            writing = getattr(room, str(arguments[0]))(*arguments[1:], **given)
            room.steps.join(writing)
            if random.random() < 0.2:
                writing.cancel()
            else:
                joined.append((writing, alone(*arguments, **given)))  # type: ignore[arg-type]
        room.steps.run({}, [])
        if random.random() < 0.3 and (others := [one for one in room.steps.all if not one.is_over]):
            gone = others[int(random.integers(len(others)))]
            gone.cancel()
            joined = [pair for pair in joined if pair[0] is not gone]
    assert len(joined) > 50
    for writing, expected in joined:
        assert [tuple(one.token for one in result.tokens) for result in writing.results] == [
            tuple(one.token for one in result.tokens) for result in expected.results
        ]
        for one, other in zip(writing.results, expected.results, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
    assert max(room.decoder.batches) > 8
    assert 0 < room.steps.cache_bytes <= KEPT_BYTES


def test_attention_is_that_of_the_step_that_wrote_the_token() -> None:
    """Computed from queries and keys of this row, and of the chosen heads."""
    plan = (AttentionPlan("cross", 0, (0,), None), AttentionPlan("self", 0, (0,), "mean"))
    room = Room()
    first, second = room.straight([0.5] * 9), room.straight([1.0, 2.0, 3.0], attention=plan)
    room.steps.join(first)
    room.steps.join(second)
    room.finish()
    keys = np.array([1.0, 2.0, 3.0]) * 0.5
    read = [START, *tokens_of(second)]
    for place, one in enumerate(second.fetch()):
        cross, own = one.attention
        np.testing.assert_allclose(cross.weights, [np.exp(keys) / np.exp(keys).sum()], atol=1e-6)
        scores = np.exp(np.array(read[: place + 1]) * 0.5)
        np.testing.assert_allclose(own.weights, scores / scores.sum(), atol=1e-6)
    assert all(not one.attention for one in first.fetch())


@pytest.mark.parametrize(("biases", "of_layer"), [(1, [0, 0]), (2, [0, 1])])
def test_a_bias_is_added_where_the_decoder_has_one(biases: int, of_layer: list[int]) -> None:
    """That of this row and layer, to self attention alone; rows are at different steps, and change places."""
    shape = {"num_layers": 2, "self_biases": biases}
    generation = GENERATION.model_copy(update=shape)
    room, plan = Room(), tuple(AttentionPlan(kind, layer, (0,), None) for kind in ("self", "cross") for layer in (0, 1))
    room.decoder.generation = generation
    room.steps = Steps(room.decoder, 8, lambda: True, room.told.extend)  # type: ignore[arg-type]
    given = {"generation": generation, "attention": plan}
    writings = list[StraightWriting]()
    for number in range(5):
        plan_of_one = plan_of(**given, max_tokens=3 + 2 * number)
        source = source_of([float(number), number + 1.0]) * 2
        writings.append(StraightWriting(plan_of_one, source, room.writer, RpcContext()))
        room.steps.join(writings[-1])
        room.steps.run({}, [])
    room.finish()
    for writing in writings:
        assert len(tokens_of(writing)) > 1
        read = np.array([START, *tokens_of(writing)])
        for place, one in enumerate(writing.results[0].tokens):
            *own, cross, other = one.attention
            for layer, look in enumerate(own):
                keys = 0.5 * (read[: place + 1] if layer == 0 else np.zeros(place + 1))  # the fake writes one layer's
                scores = np.exp(keys + bias_of(of_layer[layer], place, place - np.arange(place + 1)))
                np.testing.assert_allclose(look.weights, [scores / scores.sum()], atol=1e-6)
            for look in (cross, other):
                np.testing.assert_allclose(look.weights, [[1 / (1 + np.exp(0.5)), 1 / (1 + np.exp(-0.5))]], atol=1e-6)


def test_a_target_is_scored_token_by_token() -> None:
    """As if it had been written."""
    room, target = Room(), [4, 5, 4, END]
    writing = StraightWriting(plan_of(), source_of([1.5]), room.writer, RpcContext(), target=target)
    room.steps.join(writing)
    room.finish()
    assert (tokens_of(writing), writing.results[0].finish_reason) == (target, "target")
    for place, one in enumerate(writing.results[0].tokens):
        logits = logits_after([1.5], [START, *target[:place]]).astype(np.float64)
        assert one.log_probability == pytest.approx(logits[target[place]] - np.log(np.exp(logits).sum()), abs=1e-5)


def test_it_ends_at_a_stop_text_or_where_it_is_long_enough() -> None:
    """And says which."""
    whole = alone("straight", [8.0])
    text = whole.results[0].text
    assert whole.results[0].finish_reason == "end"
    stopped = alone("straight", [8.0], stop=(text[2:5],))
    assert stopped.results[0].text == text[: text.index(text[2:5]) + 3]
    assert stopped.results[0].finish_reason == "stop"
    cut = alone("straight", [8.0], max_tokens=2)
    assert (tokens_of(cut), cut.results[0].finish_reason) == (greedy([8.0])[:2], "length")


FORCED = {"generation": GENERATION.model_copy(update={"forced_end_token": END}), "max_tokens": 3}


def test_an_end_is_forced_where_the_model_says_so() -> None:
    """Of what is as long as may be; it says that it is, and how likely the end was. A target is scored as it is."""
    greedy_start = greedy([8.0])[:2]
    for given in ({}, {"sampling": Sampling(top_k=1, seed=1)}):
        cut = alone("straight", [8.0], **FORCED, **given)
        assert (tokens_of(cut), cut.results[0].finish_reason) == ([*greedy_start, END], "length")
    logits = logits_after([8.0], [START, *greedy_start]).astype(np.float64)
    expected = logits[END] - np.log(np.exp(logits).sum())
    assert cut.results[0].tokens[-1].log_probability == pytest.approx(expected, abs=1e-5)
    suppressed = {"suppressed_tokens": (END,)}  # never on the way, and told by its own log-probability at the end
    never = {**FORCED, "generation": FORCED["generation"].model_copy(update=suppressed)}  # type: ignore[attr-defined]
    for result in alone("beams", [8.0], 3, **never, num_results=3).results:
        assert (len(result.tokens), result.tokens[-1].token) == (3, END)
        assert result.log_probability > -100
    for result in alone("beams", [8.0], 3, **FORCED, num_results=3).results:
        assert result.tokens[-1].token == END
        assert result.finish_reason == ("length" if len(result.tokens) == 3 else "end")
    room, target = Room(), [4, 5, 6]
    scored = StraightWriting(plan_of(**FORCED), source_of([8.0]), room.writer, RpcContext(), target=target)
    room.steps.join(scored)
    room.finish()
    assert tokens_of(scored) == target


@pytest.mark.parametrize("num_beams", [1, 3])
def test_of_several_starts_the_likeliest_is_read(num_beams: int) -> None:
    """Token by token, where they differ; whoever shares the steps."""
    starts = [(START, 5, 6, 3), (START, 7, 6, 3), (START, 5, 8, 3), (START, 9, 6, 3)]
    found, room = set[tuple[int, ...]](), Room(32)
    writings = {}
    for number in range(6):
        source, plan = [float(number), 2.0], {"starts": dict(zip("abcd", starts, strict=True))}
        writings[number] = room.beams(source, 3, **plan) if num_beams > 1 else room.straight(source, **plan)
        room.steps.join(writings[number])
    room.finish()
    for number, writing in writings.items():
        source = [float(number), 2.0]
        first = max((5, 7, 9), key=lambda token: logits_after(source, [START])[token])
        second = max((6, 8), key=lambda token: logits_after(source, [START, 5])[token]) if first == 5 else 6
        assert writing.start == (START, first, second, 3)
        expected = alone("beams", source, 3, starts={"": writing.start}) if num_beams > 1 else None
        assert tokens_of(writing) == (tokens_of(expected) if expected else greedy(source, writing.start))
        found.add(writing.start)
    assert len(found) > 1


def test_suppressed_tokens_are_never_written() -> None:
    """Nor some as the first."""
    first, second, *_ = greedy([2.5])
    plan = {"generation": GENERATION.model_copy(update={"first_suppressed_tokens": (first,)})}
    assert tokens_of(alone("straight", [2.5], **plan))[0] != first
    plan = {"generation": GENERATION.model_copy(update={"suppressed_tokens": (second,)})}
    assert second not in tokens_of(alone("straight", [2.5], **plan))
    assert second not in tokens_of(alone("beams", [2.5], 3, **plan))


def test_who_is_too_late_is_told_so_and_others_go_on() -> None:
    """Their rows are free at the next step."""
    room = Room()
    late, other = room.straight([1.0]), room.straight([2.0])
    late.context.deadline = 0.0
    for writing in (late, other):
        room.steps.join(writing)
    room.finish()
    assert isinstance(late.error, DeadlinePassed)
    assert late in room.told
    assert tokens_of(other) == greedy([2.0])


def test_one_that_cannot_be_written_on_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fault of ours; what shares its steps goes on."""
    room = Room()
    broken, other = room.straight([1.0]), room.straight([2.0])

    def fail(*given: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(broken, "_choose", fail)
    for writing in (broken, other):
        room.steps.join(writing)
    room.finish()
    assert isinstance(broken.error, InternalFault)
    assert tokens_of(other) == greedy([2.0])


def test_no_more_rows_are_written_than_there_may_be_and_clients_take_turns() -> None:
    """Who has fewest rows goes first; a request that needs many is not starved."""
    room = Room(max_rows=4)
    for number in range(6):
        room.steps.join(room.straight([float(number)]))
    other = room.straight([9.0])
    other.context.address = "another"
    wide = room.beams([7.0], 4)
    room.steps.join(other)
    room.steps.join(wide)
    room.steps.run({}, [])
    assert other.rows
    room.finish()
    assert max(room.decoder.batches) == 4
    assert wide.results


def test_where_the_engine_fails_all_are_told() -> None:
    """And nothing is left."""
    room = Room()
    writing = room.straight([1.0])
    room.steps.join(writing)
    room.steps.run({}, [])
    assert room.steps.fail_all(InternalFault()) == [writing]
    assert isinstance(writing.error, InternalFault)
    assert (room.steps.all, room.steps.cache_bytes) == ([], 0)


def test_a_turn_ends_when_others_wait() -> None:
    """After one step; otherwise it goes on for a while."""
    for is_wanted in (True, False):
        room = Room(is_wanted=is_wanted)
        room.steps.join(room.straight([8.0]))
        room.steps.run({}, [])
        assert (room.steps.steps == 1) is is_wanted


def test_what_a_step_took_is_shared_by_rows_and_what_a_text_took_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the clients whose rows they are; to choose, or to look at attention, may take longer than the step."""
    now = [0.0]
    monkeypatch.setattr(steps, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: 0.0))

    def taking(seconds: float, run: Callable[..., object]) -> Callable[..., object]:
        def take(*given: object, **named: object) -> object:
            now[0] += seconds
            return run(*given, **named)

        return take

    room = Room()
    one, two = room.straight([1.0]), room.beams([2.0], 3)
    monkeypatch.setattr(room.steps._caches, "step", taking(4.0, room.steps._caches.step))
    monkeypatch.setattr(one, "advance", taking(10.0, one.advance))
    one.context.caller, two.context.caller = Client("one"), Client("two")
    one.reserved_seconds, two.reserved_seconds = 20.0, 2.0
    for writing in (one, two):
        room.steps.join(writing)
    room.steps.run({}, [])
    assert room.steps.spent == {one.context.caller: 1.0 + 10.0, two.context.caller: 3.0}
    assert room.steps.released == {one.context.caller: 11.0, two.context.caller: 2.0}
    assert (one.release(), two.release()) == (9.0, 0.0)


def of_client(writing: Writing, name: str, weight: float = 1.0) -> Writing:
    """Let a text be a client's."""
    writing.context.caller = Client(name, weight=weight)
    return writing


def test_a_client_that_has_all_rows_leaves_some_to_others() -> None:
    """A quarter more, of which it gets none itself and each of the others a part; who writes so writes as alone."""
    room = Room(max_rows=16)
    patient = {"generation": PATIENT, "max_tokens": 60}
    flood = [of_client(room.straight([float(number)], **patient), "flood") for number in range(20)]
    for writing in flood:
        room.steps.join(writing)
    room.steps.run({}, [])
    assert room.decoder.batches[-1] == 16
    beams = of_client(room.beams([1.0], 4), "beams")
    modest = [of_client(room.straight([float(number)]), "modest") for number in range(4)]
    room.steps.join(beams)
    room.steps.run({}, [])
    assert room.decoder.batches[-1] == 16  # four are free beside the flood, and one client has three of them
    beams.cancel()
    for writing in modest:
        room.steps.join(writing)
    room.steps.run({}, [])
    assert room.decoder.batches[-1] == 19
    assert [len(writing.rows) for writing in (*flood, *modest)] == [1] * 16 + [0] * 4 + [1, 1, 1, 0]
    room.finish()
    for number, writing in enumerate(modest):
        assert tokens_of(writing) == greedy([float(number)])


def test_a_heavy_client_that_has_all_rows_leaves_as_many_to_others() -> None:
    """Though it is first by its weight; who is first among the others and needs more is overtaken by nobody."""
    for wanted, rows in ((1, 19), (4, 16)):
        room = Room(max_rows=16)
        for number in range(20):
            room.steps.join(of_client(room.straight([float(number)], generation=PATIENT), "heavy", 100.0))
        room.steps.run({}, [])
        if wanted > 1:
            room.steps.join(of_client(room.beams([1.0], wanted), "light", 2.0))
        for number in range(4):
            room.steps.join(of_client(room.straight([float(number)]), "light"))
        room.steps.run({}, [])
        assert room.decoder.batches[-1] == rows


def test_rows_that_wait_for_a_place_are_no_part_of_a_turn() -> None:
    """Others are told how long it takes, and the watchdog how long it may."""
    room = Room(max_rows=4)
    for number in range(50):
        room.steps.join(room.straight([float(number)]))
    assert room.steps.turn_rows == make_turn(room.steps, CONTRACT).rows == 5
    assert Room().steps.turn_rows == 1


def test_texts_given_up_while_they_wait_are_let_go_of() -> None:
    """Every second of them; the others are written."""
    room = Room(max_rows=2)
    writings = [room.straight([float(number)]) for number in range(20)]
    for writing in writings:
        room.steps.join(writing)
    for writing in writings[1::2]:
        writing.cancel()
    room.steps.run({}, [])
    assert len(room.steps.all) == 10
    room.finish()
    assert [bool(writing.results) for writing in writings] == [True, False] * 10


def test_attention_of_a_stream_is_handed_out_and_not_kept() -> None:
    """How much there was is; of the whole it is a part, and ends it where it is more than an answer holds."""
    look = (AttentionPlan("self", 0, (0,), None),)
    streamed = alone("straight", [1.0], attention=look)
    told = [len(one.attention) for one in streamed.fresh]
    assert told == [1] * len(streamed.results[0].tokens)
    assert [one.attention for one in streamed.results[0].tokens] == [()] * len(told)
    assert streamed.attention_bytes == sum(4 * (1 + place) for place in range(len(told)))
    for max_bytes, fails in ((streamed.attention_bytes, False), (streamed.attention_bytes - 1, True)):
        room = Room()
        whole = StraightWriting(
            plan_of(attention=look), source_of([1.0]), room.writer, RpcContext(), max_told_bytes=max_bytes
        )
        room.steps.join(whole)
        room.finish()
        assert bool(whole.results) is not fails
        if fails:
            assert isinstance(whole.error, InvalidInput)
            assert str(whole.error).startswith("self_attention: an answer of more than")
            assert room.steps.all == []


def test_who_comes_is_told_how_long_a_place_takes() -> None:
    """Nothing while there are places; then by who waits, how long texts are, and what a step costs."""
    room = Room(max_rows=4)
    flood, modest = (RpcContext(caller=Client(name)).share for name in ("flood", "modest"))
    for number in range(4):
        room.steps.join(of_client(room.straight([float(number)], max_tokens=8), "flood"))
    room.steps.run({}, [])
    assert room.steps.wait_seconds(flood) == room.steps.wait_seconds(modest) == 0
    for number in range(8):
        room.steps.join(of_client(room.straight([float(number)], max_tokens=8), "flood"))
    step_seconds = room.decoder.cost.seconds(4, 1)
    assert room.steps.wait_seconds(flood) == pytest.approx(2 * 16 * step_seconds, rel=0.3)
    assert room.steps.wait_seconds(modest) == 0  # it goes first
    for number in range(8):
        room.steps.join(of_client(room.straight([float(number)], max_tokens=8), "many"))
    assert room.steps.wait_seconds(flood) == pytest.approx((8 + 8) / 4 * 16 * step_seconds, rel=0.3)
    assert room.steps.wait_seconds(modest) == pytest.approx(1 / 4 * 16 * step_seconds, rel=0.3)  # one of many's


def test_urgency_counts_among_texts_of_one_client() -> None:
    """Another client's turn comes all the same."""
    room = Room(max_rows=2)
    texts = {}
    for name, client, priority in (
        ("late", Client("one"), 2), ("urgent", Client("one"), 1), ("more urgent", Client("one"), 1),
        ("another's", Client("two"), 3),
    ):  # fmt: skip
        texts[name] = room.straight([1.0])
        texts[name].context.caller, texts[name].context.priority = client, priority
        room.steps.join(texts[name])
    room.steps.run({}, [])
    assert [name for name, text in texts.items() if text.rows] == ["urgent", "another's"]


def test_a_client_of_more_weight_has_more_rows() -> None:
    """Twice as many for twice as much."""
    room = Room(max_rows=6)
    texts = [room.straight([1.0]) for _ in range(12)]
    for number, text in enumerate(texts):
        text.context.caller = Client("heavy", weight=2.0) if number % 2 else Client("light")
        room.steps.join(text)
    room.steps.run({}, [])
    assert [sum(bool(text.rows) for text in texts[first::2]) for first in (0, 1)] == [2, 4]


def test_one_for_whom_there_are_no_rows_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are written go on, and those who come with it are written."""
    room = Room()
    first, broken, last = (room.straight([float(number)]) for number in range(3))
    room.steps.join(first)
    room.steps.run({}, [])
    broken.source = [np.zeros((1, 1, 3, 7), np.float32)] * 2  # of another shape
    room.steps.join(broken)
    room.steps.join(last)
    room.finish()
    assert isinstance(broken.error, InternalFault)
    assert broken in room.told
    assert (tokens_of(first), tokens_of(last)) == (greedy([0.0]), greedy([2.0]))


def test_memory_of_a_long_text_is_given_back_while_others_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it was foreseen: no array grows beyond what was said when its text came."""
    monkeypatch.setattr(caches, "_KEPT_BYTES", 100)
    room, foreseen = Room(), 0
    long = room.straight([0.25] * 500, generation=PATIENT, max_tokens=60)
    short = room.straight([3.0], generation=PATIENT, max_tokens=60)
    for writing in (short, long):
        foreseen += room.more_bytes(writing)
        room.steps.join(writing)
    sizes = list[int]()
    for _ in room.turns():
        sizes.append(room.steps.cache_bytes)
        if len(sizes) == 3:
            long.cancel()
    assert max(sizes) > 20 * sizes[4] > 0
    assert max(sizes) <= foreseen + SMALL_BYTES
    assert len(short.results[0].tokens) == 60
    assert room.steps.cache_bytes == 0


@pytest.mark.parametrize("beside", [True, False])
def test_a_long_text_slows_no_later_one(beside: bool) -> None:
    """However little its caches are: a step takes the longer, the more places there are."""
    room, sizes = Room(), list[int]()
    short = room.straight([3.0], generation=PATIENT, max_tokens=60)
    long = room.straight([0.25] * 500, generation=PATIENT, max_tokens=60)
    for writing in (short, long) if beside else (long,):
        room.steps.join(writing)
    for _ in room.turns():
        sizes.append(room.steps.cache_bytes)
        if len(sizes) == 3:
            long.cancel()
    largest = sizes[2]
    if not beside:
        room.steps.join(short)
        room.finish()
        room.steps.join(room.straight([2.0]))
        room.steps.run({}, [])
        sizes = [room.steps.cache_bytes] * 5
    assert KEPT_BYTES > largest > 3 * sizes[4] > 0


def test_logits_are_counted() -> None:
    """Of a large vocabulary they are more than the caches."""
    large = GENERATION.model_copy(update={"vocab_size": 100_000})
    caches = Caches(Room().decoder, large)  # type: ignore[arg-type]
    assert caches.row_bytes(1, 1) == GENERATION.row_bytes(1, 1) + 400_000


def test_beams_never_overflow() -> None:
    """Whatever the lengths are raised to, within what is taken."""
    for length_penalty in (-16.0, 16.0):
        assert alone("beams", [1.0], 3, length_penalty=length_penalty).results


def test_a_very_low_temperature_takes_the_likeliest() -> None:
    """And divides nothing by nothing."""
    written = alone("straight", [2.0], sampling=Sampling(temperature=1e-310, seed=0))
    assert tokens_of(written) == greedy([2.0])


def test_sources_all_of_one_size_take_no_more_room_than_that() -> None:
    """Others grow by doubling: half a minute of sound would take a third more than it has."""
    fixed = GENERATION.model_copy(update={"source_positions": 50})
    room = Room()
    room.decoder.generation = fixed
    room.steps = Steps(room.decoder, 8, lambda: True, room.told.extend)  # type: ignore[arg-type]
    writing = room.straight([0.5] * 50, generation=fixed)
    foreseen = room.more_bytes(writing)
    room.steps.join(writing)
    next(room.turns())
    assert foreseen - fixed.row_bytes(32, 50) <= SMALL_BYTES
    assert room.steps.cache_bytes <= fixed.row_bytes(16, 50) + SMALL_BYTES
    room.finish()
    assert tokens_of(writing) == greedy([0.5] * 50)
