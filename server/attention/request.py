"""What a caller wants of the attention weights, in the words of both protocols."""

from dataclasses import dataclass
from typing import Literal

from server.errors import InvalidInput

Measure = Literal["weights", "rollout", "entropy", "distance", "contribution", "contribution_rollout"]
HeadReduction = Literal["mean", "max", "min"]
SentDtype = Literal["float32", "float16", "uint8"]
TextOfPair = Literal["first", "second"]
Statistic = Literal[
    "entropy",
    "distance",
    "first",
    "separator",
    "registers",
    "special",
    "sink",
    "previous",
    "next",
    "current",
    "duplicate",
    "induction",
    "region",
    "norm",
]
Span = tuple[int, int]
Rectangle = tuple[float, float, float, float]

ROLLOUTS: tuple[Measure, ...] = ("rollout", "contribution_rollout")
CONTRIBUTIONS: tuple[Measure, ...] = ("contribution", "contribution_rollout")
MAX_REGIONS = 256
_WITH_STATISTICS: tuple[Measure, ...] = ("weights", "contribution")
_OF_SPECIAL: tuple[Statistic, ...] = ("separator", "registers", "special")


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """An attention request, unchecked against any model; the fields are those of regard.v1.AttentionRequest.

    Attributes:
        layers: Which, counted from 0, from the end where negative; none for all.
        heads: Likewise.
        rows: Query positions, likewise.
        keys: Key positions, likewise.
        cls_only: Row 0 alone.
        drop_special: Leaves out positions that are no part of the input.
        rows_of_text: Query positions that are one text of a pair, its special tokens left out; None for no such choice.
        keys_of_text: Key positions, likewise.
        head_reduction: Over these heads; None sends each.
        measure: What is made of the weights.
        residual_share: Of a rollout; None for the default.
        value_weighted: Whether weights are multiplied by the lengths of the value vectors.
        top_k: How many keys of each row; 0 for all.
        renormalize: Whether rows are divided by the sum of what is left of them.
        dtype: Of what is sent.
        statistics: What is made of each head's rows and sent instead of them; none for the rows.
        spans: Of the statistic "region": [start, end) in code points of a text.
        boxes: Likewise: left, top, right and bottom in pixels of the sent image.
    """

    layers: tuple[int, ...] = ()
    heads: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    cls_only: bool = False
    drop_special: bool = False
    head_reduction: HeadReduction | None = None
    measure: Measure = "weights"
    residual_share: float | None = None
    value_weighted: bool = False
    top_k: int = 0
    renormalize: bool = False
    dtype: SentDtype = "float32"
    rows_of_text: TextOfPair | None = None
    keys_of_text: TextOfPair | None = None
    statistics: tuple[Statistic, ...] = ()
    spans: tuple[Span, ...] = ()
    boxes: tuple[Rectangle, ...] = ()

    def check(self) -> None:
        """Refuse fields that contradict each other.

        Raises:
            InvalidInput: Names the field.
        """
        self._check_positions()
        self._check_top_k()
        self._check_contribution()
        self._check_residual_share()
        self._check_statistics()
        self._check_regions()

    def _check_positions(self) -> None:
        if self.cls_only and self.rows:
            raise InvalidInput("attention.rows", list(self.rows), "no rows together with cls_only")
        if self.drop_special and (self.rows or self.cls_only or self.keys):
            raise InvalidInput("attention.drop_special", "true", "neither rows, cls_only nor keys together with it")
        if self.rows_of_text and (self.rows or self.cls_only):
            expected = "none together with rows or cls_only"
            raise InvalidInput("attention.rows_of_text", self.rows_of_text, expected)
        if self.keys_of_text and self.keys:
            raise InvalidInput("attention.keys_of_text", self.keys_of_text, "none together with keys")

    def _check_top_k(self) -> None:
        if self.top_k < 0:
            raise InvalidInput("attention.top_k", self.top_k, "0 for all keys, or a positive number")
        if self.top_k and self.measure in ("entropy", "distance"):
            raise InvalidInput("attention.top_k", self.top_k, f"0 with {shown(self.measure)}, which has no keys")

    def _check_contribution(self) -> None:
        if self.measure not in CONTRIBUTIONS:
            return
        for field in ("heads", "head_reduction", "value_weighted"):
            if value := getattr(self, field):
                given = list(value) if field == "heads" else value
                expected = f"none with {shown(self.measure)}, which sums the heads"
                raise InvalidInput(f"attention.{field}", given, expected)

    def _check_residual_share(self) -> None:
        if self.residual_share is None:
            return
        if self.measure != "rollout":
            raise InvalidInput("attention.residual_share", self.residual_share, "none but for a rollout")
        if not 0 <= self.residual_share < 1:
            raise InvalidInput("attention.residual_share", self.residual_share, "at least 0 and less than 1")

    def _check_statistics(self) -> None:
        if not self.statistics:
            return
        if len(set(self.statistics)) < len(self.statistics):
            raise InvalidInput("attention.statistics", list(map(shown_statistic, self.statistics)), "each at most once")
        if self.measure not in _WITH_STATISTICS:
            expected = "none, or ATTENTION_MEASURE_CONTRIBUTION, beside statistics"
            raise InvalidInput("attention.measure", shown(self.measure), expected)
        if self.top_k:
            raise InvalidInput("attention.top_k", self.top_k, "0 beside statistics, which have no keys")
        if self.dtype == "uint8":
            expected = "FLOAT32 or FLOAT16 beside statistics, which have no scale in common"
            raise InvalidInput("attention.dtype", "UINT8", expected)
        if "norm" in self.statistics and not (self.value_weighted or self.measure == "contribution"):
            expected = "it with value_weighted, or of contributions: other rows sum to 1"
            raise InvalidInput("attention.statistics", shown_statistic("norm"), expected)
        if "norm" in self.statistics and self.renormalize:
            expected = f"false with {shown_statistic('norm')}, which is counted before rows are divided"
            raise InvalidInput("attention.renormalize", "true", expected)
        of_special = next((one for one in self.statistics if one in _OF_SPECIAL), None)
        if of_special and self.drop_special:
            expected = f"false with {shown_statistic(of_special)}, of which nothing is left then"
            raise InvalidInput("attention.drop_special", "true", expected)

    def _check_regions(self) -> None:
        given = [name for name in ("spans", "boxes") if getattr(self, name)]
        if "region" in self.statistics and len(given) != 1:
            found = f"{shown_statistic('region')} with {' and '.join(given) or 'neither of them'}"
            raise InvalidInput("attention.statistics", found, "spans or boxes with it")
        if given and "region" not in self.statistics:
            expected = f"none without {shown_statistic('region')}"
            raise InvalidInput(f"attention.{given[0]}", f"{len(getattr(self, given[0]))} of them", expected)
        for number, (start, end) in enumerate(self.spans):
            if not 0 <= start < end:
                expected = "start at least 0, and end more than start"
                raise InvalidInput(f"attention.spans[{number}]", f"{start} to {end}", expected)
        for number, (left, top, right, bottom) in enumerate(self.boxes):
            if not (left < right and top < bottom):  # as NaN is not
                found = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
                expected = "left less than right, and top less than bottom"
                raise InvalidInput(f"attention.boxes[{number}]", found, expected)


def shown(measure: Measure) -> str:
    """A measure as regard.v1 names it, for messages."""
    return f"ATTENTION_MEASURE_{measure.upper()}"


def shown_statistic(statistic: Statistic) -> str:
    """Likewise a statistic."""
    return f"ATTENTION_STATISTIC_{statistic.upper()}"
