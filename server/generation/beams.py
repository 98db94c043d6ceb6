"""Beam search, as the transformers library does it: the likeliest beginnings are kept, and the best that have ended.

One row is written for each beginning. At each step the 2 K likeliest continuations of all K are looked at; of these
the first K that go on are kept. One that has ended is a result if it was among the first K (Wu et al. 2016, "Google's
Neural Machine Translation System", section 7, without its coverage penalty).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from artifact.generation import EarlyStopping

_NEVER = -1e9  # below every sum of log-probabilities


@dataclass(frozen=True)
class Beginning:
    """What was written, and each token's log-probability."""

    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()

    def followed_by(self, token: int, log_probability: float) -> "Beginning":
        """Return it with one token more."""
        return Beginning((*self.tokens, token), (*self.log_probabilities, log_probability))


@dataclass
class Beams:
    """The search of one request.

    Attributes:
        size: K.
        max_tokens: At which what has not ended is cut.
        end_tokens: End a result.
        length_penalty: Results are ranked by log-probability / length ^ length_penalty, the end token counted.
        early_stopping: See GenerationContract.
        forced_end_token: Is the last of what is cut, whatever its log-probability, which does not count then.
        begun: Tokens that it begins with and that count in lengths.
        live: The K beginnings that go on, the likeliest first.
        ended: Results with their scores, the best first; K at most.
    """

    size: int
    max_tokens: int
    end_tokens: tuple[int, ...]
    length_penalty: float
    early_stopping: EarlyStopping = False
    forced_end_token: int | None = None
    begun: int = 0
    live: list[Beginning] = field(init=False)
    ended: list[tuple[float, Beginning]] = field(init=False, default_factory=list)
    is_over: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.live = [Beginning()] * self.size
        self._sums = np.full(self.size, _NEVER)  # at first all beginnings are the same
        self._sums[0] = 0.0
        self._length = 0

    def advance(self, log_probabilities: NDArray[np.float32]) -> list[int]:
        """Take the next step.

        Args:
            log_probabilities: Of each beginning's next token, float32 [K, V]; -inf for what must not be written.

        Returns:
            Which of the K rows each new beginning goes on from.
        """
        self._length += 1
        is_last, vocabulary = self._length == self.max_tokens, log_probabilities.shape[1]
        ranked = log_probabilities if not is_last or self.forced_end_token is None else self._force_end(vocabulary)
        totals = (self._sums[:, None] + ranked).ravel()
        looked_at = min((1 + len(self.end_tokens)) * self.size, len(totals))
        places = np.argpartition(-totals, looked_at - 1)[:looked_at]
        places = places[np.lexsort((places, -totals[places]))]
        parents, live, sums = list[int](), list[Beginning](), list[float]()
        for rank, place in enumerate(places.tolist()):
            parent, token = divmod(place, vocabulary)
            if totals[place] <= _NEVER:
                break
            beginning = self.live[parent].followed_by(token, float(log_probabilities[parent, token]))
            if token in self.end_tokens or is_last:
                if rank < self.size:
                    self._end(float(totals[place]), beginning)
            elif len(live) < self.size:
                parents.append(parent)
                live.append(beginning)
                sums.append(float(totals[place]))
        missing = self.size - len(live)  # where the vocabulary is small, or hardly anything may follow
        self.live = live + [Beginning()] * missing
        self._sums = np.array(sums + [_NEVER] * missing)
        self.is_over = is_last or not live or self._cannot_improve()
        return parents + [0] * missing

    @property
    def next_tokens(self) -> list[int]:
        """The last token of each beginning."""
        return [beginning.tokens[-1] if beginning.tokens else self.end_tokens[0] for beginning in self.live]

    def _force_end(self, vocabulary: int) -> NDArray[np.float32]:
        ranked = np.full((self.size, vocabulary), -np.inf, np.float32)
        ranked[:, self.forced_end_token] = 0.0
        return ranked

    def _score(self, total: float, length: int) -> float:
        return float(total / (length + self.begun) ** self.length_penalty)

    def _end(self, total: float, beginning: Beginning) -> None:
        self.ended.append((self._score(total, self._length), beginning))
        self.ended.sort(key=lambda result: -result[0])
        del self.ended[self.size :]

    def _cannot_improve(self) -> bool:
        """Whether the best that goes on is worse than the worst of K results; see GenerationContract.early_stopping."""
        if len(self.ended) < self.size or self.early_stopping is True:
            return len(self.ended) == self.size
        grows = self.early_stopping == "never" and self.length_penalty > 0  # its score, with its length
        return self._score(self._sums[0], self.max_tokens if grows else self._length) <= self.ended[-1][0]
