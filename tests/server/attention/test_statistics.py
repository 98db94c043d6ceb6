"""A number a head: from maps made by hand, against definitions in float64, on the host and as on a device."""

from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from artifact.contract import Contract, PatchContract
from regard.v1 import types_pb2 as pb
from server.api.regard_v1.attention import read_attention, write_layers
from server.attention.places import Places, with_boxes, with_spans
from server.attention.plan import AttentionPlan
from server.attention.planning import AttentionLimits, plan_attention
from server.attention.positions import Positions
from server.attention.reduce import Reduced, reduce_attention
from server.attention.request import AttentionRequest, Statistic
from server.attention.statistics import head_statistics
from server.engine.device_ops import measures_on
from server.errors import InvalidInput, NotPossible
from tests.server.attention.detector import by_definition, detected
from tests.server.fakes import BOUND, CONTRACT, on_device

IDS = (2, 7, 9, 7, 9, 9, 3)  # [CLS] a b a b b [SEP]
N = len(IDS)
TEXT = Places(N, np.array(IDS), special=(0, 6))
GRID = PatchContract(prefix_tokens=2, rows=2, cols=3, patch_size=14)
LIMITS = AttentionLimits(10**6, 10**6)
RANDOM = np.random.default_rng(3).dirichlet(np.ones(N), size=(2, 4, N)).astype(np.float32)
OF_TEXT: tuple[Statistic, ...] = tuple(one for one in get_args(Statistic) if one not in ("registers", "region", "norm"))


def one_head(pairs: dict[int, int], count: int = N) -> NDArray[np.float32]:
    """A head of which each row has all its weight on one key; [1, 1, N, N]."""
    weights = np.zeros((1, 1, count, count), dtype=np.float32)
    for query, key in pairs.items():
        weights[0, 0, query, key] = 1
    return weights


def number(statistic: Statistic, weights: NDArray[np.float32], places: Places = TEXT, **how: Any) -> float:
    """One statistic of one head, the same on the host and as on a device."""
    (((here,),),) = head_statistics(weights, (statistic,), places, **how)
    there = head_statistics(on_device({"x": weights})["x"], (statistic,), places, **how, on=measures_on(BOUND))
    assert there.dtype == np.float32
    assert there[0, 0, 0] == pytest.approx(here, abs=1e-6)
    return float(here)


@pytest.mark.parametrize(
    ("statistic", "pairs", "expected"),
    [
        ("first", dict.fromkeys(range(N), 0), 1.0),
        ("first", dict.fromkeys(range(N), 6), 0.0),
        ("separator", {**dict.fromkeys(range(N), 6), 0: 0}, 6 / 7),  # position 0 is no separator
        ("special", {**dict.fromkeys(range(N), 6), 0: 0}, 1.0),
        ("special", dict.fromkeys(range(N), 3), 0.0),
        ("sink", {**dict.fromkeys(range(N), 4), 0: 1, 1: 1}, 5 / 7),
        ("previous", {query: max(query - 1, 0) for query in range(N)}, 6 / 7),  # the first has none before it
        ("next", {query: min(query + 1, N - 1) for query in range(N)}, 6 / 7),
        ("current", {query: query for query in range(N)}, 1.0),
        ("previous", {query: query for query in range(N)}, 0.0),
        ("duplicate", {**dict.fromkeys(range(N), 0), 3: 1, 4: 2, 5: 4}, 3 / 7),
        ("duplicate", {**dict.fromkeys(range(N), 0), 5: 2}, 1 / 7),
        ("duplicate", {**{query: query for query in range(N)}}, 0.0),  # a token is no repetition of itself
        ("duplicate", {**dict.fromkeys(range(N), 0), 1: 3}, 0.0),  # nor is a later one earlier
        ("induction", {**dict.fromkeys(range(N), 0), 3: 2, 4: 3, 5: 3}, 3 / 7),
        ("induction", {**dict.fromkeys(range(N), 0), 5: 5}, 1 / 7),  # behind the b before it stands itself
        ("induction", {**dict.fromkeys(range(N), 0), 3: 1}, 0.0),  # the occurrence, not what is behind it
        ("distance", {0: 3, 1: 1, 2: 1, 3: 6, 4: 4, 5: 5, 6: 0}, (3 + 0 + 1 + 3 + 0 + 0 + 6) / 7),
        ("entropy", dict.fromkeys(range(N), 2), 0.0),
    ],
)
def test_a_head_that_looks_at_one_key_a_row_has_a_known_number(
    statistic: Statistic, pairs: dict[int, int], expected: float
) -> None:
    """[CLS] a b a b b [SEP]."""
    assert number(statistic, one_head(pairs)) == pytest.approx(expected, abs=1e-6)


def test_even_attention_has_the_numbers_of_chance() -> None:
    """Ln N of entropy, 1/N for each key, and for each pair of a pattern 1/N of a row."""
    even = np.full((1, 1, N, N), 1 / N, dtype=np.float32)
    expected = {"entropy": np.log(N), "sink": 1 / N, "first": 1 / N, "special": 2 / N, "previous": 6 / N / N}
    expected |= {"duplicate": 4 / N / N, "induction": 4 / N / N}  # a a; b b, b b, b b
    for statistic, known in expected.items():
        assert number(statistic, even) == pytest.approx(known, abs=1e-6), statistic  # type: ignore[arg-type]


def test_on_an_image_registers_are_prefix_tokens_and_a_distance_is_in_pixels() -> None:
    """Two prefix tokens, then two rows of three patches of 14 pixels."""
    image = Places(8, None, range(2), GRID, region=(2, 5))
    to_register = one_head(dict.fromkeys(range(8), 1), 8)
    assert number("registers", to_register, image) == number("special", to_register, image) == 1
    assert number("first", to_register, image) == 0
    below = one_head({0: 0, 1: 1, **{2 + place: 2 + (place + 3) % 6 for place in range(6)}}, 8)
    assert number("distance", below, image) == pytest.approx(14)
    assert number("region", one_head(dict.fromkeys(range(8), 5), 8), image) == 1
    assert number("region", one_head(dict.fromkeys(range(8), 4), 8), image) == 0


def test_a_network_that_scores_heads_as_transformer_lens_does_gets_the_same() -> None:
    """Previous, current, duplicate and induction, head by head."""
    patterns: tuple[Statistic, ...] = ("previous", "current", "duplicate", "induction")
    found = head_statistics(RANDOM, patterns, TEXT)
    for text, head in np.ndindex(2, 4):
        for place, name in enumerate(patterns):
            expected = detected(name, RANDOM[text, head].astype(np.float64), IDS)
            assert found[text, head, place] == pytest.approx(expected, abs=1e-7)


NORMS = np.random.default_rng(1).uniform(0.1, 2, size=(2, 4, N)).astype(np.float32)
CONTRIBUTIONS = np.random.default_rng(2).uniform(0.1, 20, (2, N, N)).astype(np.float32)
FETCHED = {"attention.0": RANDOM, "attention.0.value_norms": NORMS, "contributions.0": CONTRIBUTIONS}
NORMED = CONTRACT.model_copy(
    update={
        "attention": (
            CONTRACT.attention[0].model_copy(
                update={"value_norms": "attention.0.value_norms", "contribution": "contributions.0"}
            ),
        )
    }
)
ON_TEXT: dict[str, Any] = {
    "token_ids": np.array(IDS),
    "special": (0, 6),
    "offsets": [(0, 0), (0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (0, 0)],
}


def plan(contract: Contract = NORMED, origin: dict[str, Any] = ON_TEXT, **request: Any) -> AttentionPlan:
    """Plan what is asked of a text of seven tokens, or of something else."""
    positions = Positions(1, {"seq_len": N}, N, **origin)
    return plan_attention(AttentionRequest(**request), contract, positions, LIMITS, layer_by_layer=False)


def reduced(contract: Contract = NORMED, **request: Any) -> Reduced:
    """Reduce the one layer, on the host and as on a device: both are the same."""
    planned = plan(contract, **request)
    (here,) = reduce_attention(planned, FETCHED)
    (there,) = reduce_attention(planned, on_device(FETCHED))
    assert (here.values.dtype, list(here.queries)) == (there.values.dtype, list(there.queries))
    np.testing.assert_allclose(there.values, here.values, rtol=1e-5, atol=1e-3 if here.values.dtype == "f2" else 1e-6)
    return here


@pytest.mark.parametrize(
    ("how", "queries", "keys"),
    [
        ({}, range(N), range(N)),
        ({"rows": (4, 1)}, (4, 1), range(N)),
        ({"cls_only": True}, (0,), range(N)),
        ({"keys": (5, 3, 0, 4)}, range(N), (5, 3, 0, 4)),
        ({"rows": (5, 3), "keys": (1, 4, 2)}, (5, 3), (1, 4, 2)),
        ({"value_weighted": True}, range(N), range(N)),
        ({"drop_special": True}, range(1, 6), range(1, 6)),
        ({"heads": (2, 0)}, range(N), range(N)),
    ],
    ids=str,
)
def test_each_statistic_equals_its_definition_on_what_was_chosen(how: dict[str, Any], queries: Any, keys: Any) -> None:
    """In float64, a row at a time: rows, keys, heads, special ones dropped, weights by values."""
    wanted = [one for one in OF_TEXT if not (how.get("drop_special") and one in ("separator", "special"))]
    wanted += ["norm"] if how.get("value_weighted") else []
    found = reduced(statistics=tuple(wanted), **how).values
    weights = RANDOM.astype(np.float64) * (NORMS[:, :, None] if how.get("value_weighted") else 1)
    heads = how.get("heads", range(4))
    assert found.shape == (2, len(heads), len(wanted))
    for text, place, head in ((text, *pair) for text in range(2) for pair in enumerate(heads)):
        rows = weights[text, head][np.ix_(queries, keys)]
        for column, name in enumerate(wanted):
            expected = by_definition(name, rows, queries, keys, special=(0, 6), ids=IDS)
            assert found[text, place, column] == pytest.approx(expected, abs=1e-5), name


def test_rows_are_divided_by_their_sums_with_renormalize_or_without() -> None:
    """Also where keys were left out, after which they do not sum to 1."""
    chosen: dict[str, Any] = {"statistics": ("entropy", "first", "induction"), "keys": (0, 3, 4)}
    np.testing.assert_array_equal(reduced(**chosen, renormalize=True).values, reduced(**chosen).values)
    even = reduced(statistics=("previous", "current", "next"), rows=(3,), keys=(2, 3, 4), renormalize=True).values
    np.testing.assert_allclose(even.sum(axis=-1), 1, atol=1e-6)


def test_contributions_are_the_rows_of_one_head() -> None:
    """Without a head axis; the norm is how much is added, before a row is divided by it."""
    statistics: tuple[Statistic, ...] = ("current", "entropy", "norm", "distance")
    found = reduced(statistics=statistics, measure="contribution", rows=(1, 3)).values
    assert plan(statistics=statistics, measure="contribution").axes == ["statistic"]
    for text, (column, name) in ((text, one) for text in range(2) for one in enumerate(statistics)):
        rows = CONTRIBUTIONS[text, [1, 3]].astype(np.float64)
        expected = by_definition(name, rows, (1, 3), range(N), special=(0, 6), ids=IDS)
        assert found[text, column] == pytest.approx(expected, rel=1e-5)


def test_heads_are_reduced_after_their_statistics() -> None:
    """The largest of the heads' numbers; half precision is what is sent."""
    each = reduced(statistics=("entropy", "first")).values
    largest = reduced(statistics=("entropy", "first"), head_reduction="max", dtype="float16").values
    assert largest.dtype == np.float16
    np.testing.assert_allclose(largest, each.max(axis=1), atol=1e-3)


def test_what_is_sent_names_its_statistics_and_is_a_few_bytes() -> None:
    """No positions where all were averaged; those that were chosen otherwise."""
    asked = pb.AttentionRequest(statistics=[pb.ATTENTION_STATISTIC_ENTROPY, pb.ATTENTION_STATISTIC_PREVIOUS])
    planned = plan(statistics=read_attention(asked).statistics)
    one = {name: values[:1] for name, values in FETCHED.items()}
    (message,) = write_layers(planned, reduce_attention(planned, one), batched=False)
    assert list(message.statistics) == list(asked.statistics)
    assert (list(message.axes), list(message.queries)) == (["head", "statistic"], [])
    assert list(message.weights.shape) == [4, 2]
    assert planned.answer_bytes(1) == 4 * 2 * 4
    (message,) = write_layers(
        chosen := plan(statistics=("sink",), rows=(3,)), reduce_attention(chosen, one), batched=False
    )
    assert list(message.queries) == [3]


def test_a_span_counts_the_tokens_that_it_touches() -> None:
    """Special ones, at 0 to 0, never."""
    found = with_spans(TEXT, ON_TEXT["offsets"], [(0, 1), (5, 8)])
    assert found.region == [1, 4]
    with pytest.raises(
        InvalidInput, match=r"attention.spans: 9 to 20; expected one that holds some of the 9 characters"
    ):
        with_spans(TEXT, ON_TEXT["offsets"], [(9, 20)])
    assert plan(statistics=("region",), spans=((2, 5),)).places.region == [2, 3]  # type: ignore[union-attr]


def test_a_box_counts_the_patches_whose_centre_it_holds() -> None:
    """In pixels of the sent image, of which the network sees a square."""
    image = Places(8, None, range(2), GRID)
    seen = (10.0, 0.0, 40.0, 20.0)  # centres at 15, 25 and 35 across, 5 and 15 down
    assert with_boxes(image, seen, [(10, 0, 20, 10)]).region == [2]
    assert with_boxes(image, seen, [(24, 0, 100, 100)]).region == [3, 4, 6, 7]
    assert with_boxes(image, seen, [(0, 0, 16, 6), (34, 14, 36, 16)]).region == [2, 7]
    wrong = (
        r"attention.boxes: \(16, 0, 24, 20\); expected one that holds the centre of a patch, within \(10, 0, 40, 20\)"
    )
    with pytest.raises(InvalidInput, match=wrong):
        with_boxes(image, seen, [(16, 0, 24, 20)])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"statistics": ("sink", "sink")}, "attention.statistics: .* expected each at most once"),
        (
            {"statistics": ("sink",), "measure": "entropy"},
            "attention.measure: ATTENTION_MEASURE_ENTROPY; expected none",
        ),
        (
            {"statistics": ("sink",), "measure": "rollout"},
            "ATTENTION_MEASURE_ROLLOUT; expected none, or .*CONTRIBUTION",
        ),
        ({"statistics": ("sink",), "top_k": 2}, "attention.top_k: 2; expected 0 beside statistics, which have no keys"),
        ({"statistics": ("sink",), "dtype": "uint8"}, "attention.dtype: UINT8; expected FLOAT32 or FLOAT16 beside"),
        ({"statistics": ("norm",)}, "ATTENTION_STATISTIC_NORM; expected it with value_weighted, or of contributions"),
        (
            {"statistics": ("sink", "norm"), "value_weighted": True, "renormalize": True},
            "attention.renormalize: true; expected false with ATTENTION_STATISTIC_NORM, which is counted before",
        ),
        (
            {"statistics": ("special",), "drop_special": True},
            "attention.drop_special: true; expected false with .*SPECIAL",
        ),
        (
            {"statistics": ("region",)},
            "ATTENTION_STATISTIC_REGION with neither of them; expected spans or boxes with it",
        ),
        (
            {"statistics": ("region",), "spans": ((0, 1),), "boxes": ((0, 0, 1, 1),)},
            "ATTENTION_STATISTIC_REGION with spans and boxes; expected spans or boxes with it",
        ),
        ({"spans": ((0, 1),)}, "attention.spans: 1 of them; expected none without ATTENTION_STATISTIC_REGION"),
        (
            {"statistics": ("region",), "spans": ((0, 1), (3, 3))},
            r"attention.spans\[1\]: 3 to 3; expected start at least",
        ),
        (
            {"statistics": ("region",), "boxes": ((4, 0, 4, 9),)},
            r"attention.boxes\[0\]: \(4, 0, 4, 9\); expected left less",
        ),
        (
            {"statistics": ("region",), "boxes": ((0, 0, 4, float("nan")),)},
            r"attention.boxes\[0\]: .*expected left less",
        ),
        (
            {"statistics": ("region",), "boxes": ((0, 0, 4, 4),)},
            "attention.boxes: 1 of them; expected none but for an image",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(asked: dict[str, Any], message: str) -> None:
    """Field, value and what was expected."""
    with pytest.raises(InvalidInput, match=message):
        plan(**asked)


@pytest.mark.parametrize("statistic", ["separator", "duplicate", "induction", "special"])
def test_of_arrays_nobody_knows_the_tokens(statistic: Statistic) -> None:
    """Not the server, at least; position 0 is always there."""
    wrong = f"attention.statistics: ATTENTION_STATISTIC_{statistic.upper()}; expected it for a text"
    with pytest.raises(InvalidInput, match=wrong):
        plan(origin={}, statistics=(statistic,))
    assert plan(origin={}, statistics=("first", "previous")).statistics == ("first", "previous")
    with pytest.raises(InvalidInput, match=r"attention.spans: 1 of them; expected none but for a text"):
        plan(origin={}, statistics=("region",), spans=((0, 1),))


def test_spans_of_a_pair_are_refused() -> None:
    """Both its texts count characters from 0: a span would be one of either."""
    pair = ON_TEXT | {"pair": ([1, 2], [4, 5])}
    wrong = r"attention.spans: 1 of them; expected none but for a text, which a pair is not"
    with pytest.raises(InvalidInput, match=wrong):
        plan(origin=pair, statistics=("region",), spans=((0, 1),))
    assert plan(origin=pair, statistics=("duplicate",)).statistics == ("duplicate",)


def test_what_a_layer_does_not_have_is_refused_with_its_number() -> None:
    """Registers of a text, heads that are mixed, positions of another sequence."""
    with pytest.raises(NotPossible, match=r"ATTENTION_STATISTIC_REGISTERS; expected a model of images with registers"):
        plan(statistics=("registers",))
    layer = NORMED.attention[0]
    mixed = NORMED.model_copy(update={"attention": (layer.model_copy(update={"mixes_heads": True}),)})
    with pytest.raises(NotPossible, match=r"attention.statistics: ATTENTION_STATISTIC_SINK; expected none of layer 0"):
        plan(mixed, statistics=("sink",))
    crossing = NORMED.model_copy(update={"attention": (layer.model_copy(update={"kind": "cross"}),)})
    wrong = "STATISTIC_FIRST; expected ENTROPY, SINK or NORM of layer 0, whose positions are not those of the input"
    with pytest.raises(NotPossible, match=wrong):
        plan(crossing, statistics=("sink", "first"))
    assert plan(crossing, statistics=("sink", "entropy")).statistics


@pytest.mark.parametrize("number", [0, 99])
def test_a_statistic_that_has_no_name_is_refused(number: Any) -> None:
    """As the wire has it."""
    wrong = f"attention.statistics: {number}; expected values of AttentionStatistic, but for UNSPECIFIED"
    with pytest.raises(InvalidInput, match=wrong):
        read_attention(pb.AttentionRequest(statistics=[number]))


def test_lists_have_bounds() -> None:
    """Of boxes, spans and statistics."""
    with pytest.raises(InvalidInput, match=r"attention.boxes: 257 entries; expected at most 256"):
        read_attention(pb.AttentionRequest(boxes=[pb.Box()] * 257))
    with pytest.raises(InvalidInput, match=r"attention.spans: 257 entries; expected at most 256"):
        read_attention(pb.AttentionRequest(spans=[pb.TextSpan()] * 257))
    with pytest.raises(InvalidInput, match=r"attention.statistics: 15 entries; expected at most 14"):
        read_attention(pb.AttentionRequest(statistics=[pb.ATTENTION_STATISTIC_SINK] * 15))
