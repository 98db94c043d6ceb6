"""The rows that are written: caches and sources of all of them in arrays that the decoder's step takes as they are.

Rows stand without gaps, so that a step of n rows takes the first n: where one leaves, the last takes its place.
"""

import math
from collections.abc import Sequence

import numpy as np

from artifact.contract import NUMBER_BYTES
from artifact.dtypes import Array
from artifact.generation import (
    CROSS_KEY,
    CROSS_QUERY,
    CROSS_VALUE,
    LENGTHS,
    LOGITS,
    NEXT_KEY,
    NEXT_VALUE,
    SELF_KEY,
    SELF_QUERY,
    SELF_VALUE,
    SOURCE_LENGTHS,
    TOKENS,
    GenerationContract,
    names_of_layers,
)
from server.engine.decoder import BoundStep, Decoder, Held, attention_weights, step_arrays

_MIN_PLACES = 16
_SPARE = 4  # times what is used, before memory is given back: to copy it takes time, too
_KEPT_BYTES = 16 << 20  # whose rows are never given back: a model of small rows would make them anew with each text


class Caches:
    """Arrays for rows, which grow by doubling; `rows` says how many are used."""

    def __init__(self, decoder: Decoder, generation: GenerationContract) -> None:
        self._decoder, self._generation = decoder, generation
        layers = generation.num_layers
        self._own = names_of_layers((SELF_KEY, SELF_VALUE), layers)
        self._source = names_of_layers((CROSS_KEY, CROSS_VALUE), layers)
        self.clear()

    def clear(self) -> None:
        """Forget all rows, and give their memory back."""
        self.rows = self._longest = self._longest_source = 0
        self._places = (0, 0, 0)  # rows, tokens, tokens of the source
        self._given: dict[str, Array] = {}
        self._made: dict[str, Array] = {}
        self._steps: dict[tuple[int, bool, bool, int], BoundStep] = {}
        self._held: dict[int, Held | None] = {}  # by device

    @property
    def size_bytes(self) -> int:
        """Bytes of all arrays; what a step writes in place is one."""
        arrays = {id(array): array.nbytes for array in (*self._given.values(), *self._made.values())}
        return sum(arrays.values())

    def add(self, source: Sequence[Array], rows: int) -> list[int]:
        """Add rows that have written nothing yet.

        Args:
            source: Keys and values of the source, in the order of GenerationContract.source_names; each float32
                [1, num_heads, S, head_dim].
            rows: How many, all of the same source.

        Returns:
            Where they stand.
        """
        length = source[0].shape[2]
        self._longest_source = max(self._longest_source, length)
        self._reserve(self.rows + rows, 1, length)
        added = slice(self.rows, self.rows + rows)
        self._given[LENGTHS][added] = 0
        self._given[SOURCE_LENGTHS][added] = length
        for name, array in zip(self._source, source, strict=True):
            self._given[name][added, :, :length] = array
        self._sources_changed()
        self.rows += rows
        return list(range(added.start, added.stop))

    def remove(self, row: int) -> int:
        """Take a row out; returns which stood last, and now stands in its place."""
        last = self.rows = self.rows - 1
        if row != last:
            length, source_length = (int(self._given[name][last]) for name in (LENGTHS, SOURCE_LENGTHS))
            for names, used in ((self._own, length), (self._source, source_length)):
                for name in names:
                    self._given[name][row, :, :used] = self._given[name][last, :, :used]
            for name in (TOKENS, LENGTHS, SOURCE_LENGTHS):
                self._given[name][row] = self._given[name][last]
            self._sources_changed()
        return last

    def reorder(self, rows: Sequence[int], parents: Sequence[int]) -> None:
        """Let rows go on from what others have written, all of the same source and length."""
        moves = [(row, parent) for row, parent in zip(rows, parents, strict=True) if row != parent]
        if not moves:
            return
        to, since = (list(places) for places in zip(*moves, strict=True))
        length = int(self._given[LENGTHS][rows[0]])
        for name in self._own:
            self._given[name][to, :, :length] = self._given[name][since, :, :length]

    def set_token(self, row: int, token: int) -> None:
        """Say which token a row reads next."""
        self._given[TOKENS][row, 0] = token

    def step(self, *, looks: bool = False, all_threads: bool = False, device: int = 0) -> Array:
        """Let every row read its token; returns logits, float32 [rows, vocab_size], which the next step overwrites.

        Args:
            looks: Whether `attention` will be asked for.
            all_threads: Whether all of the device may be used, since nothing else runs there.
            device: Where it is computed; the rows lie in the host's memory, which every device reaches.
        """
        if self._longest >= self._places[1]:  # it may be that who was that long has left
            self._longest = int(self._given[LENGTHS][: self.rows].max())
            self._reserve(self.rows, self._longest + 1, 1)
        self._longest += 1
        key = (self.rows, looks, all_threads, device)
        bound = self._steps.get(key)
        if bound is None:
            kinds = (NEXT_KEY, NEXT_VALUE, *((SELF_QUERY, CROSS_QUERY) if looks else ()))
            names = [LOGITS, *names_of_layers(kinds, self._generation.num_layers)]
            names += self._generation.bias_names if looks else ()
            given = {name: array[: self.rows] for name, array in self._given.items()}
            made = {name: self._output(name)[: self.rows] for name in names}
            if device not in self._held:
                self._held[device] = self._decoder.hold(self._given, device)
            bound = self._steps[key] = self._decoder.bind(
                given, made, all_threads=all_threads, device=device, held=self._held[device]
            )
        bound.run()
        self._given[LENGTHS][: self.rows] += 1
        return self._made[LOGITS][: self.rows]

    def attention(self, row: int, kind: str, layer: int) -> Array:
        """Return the weights of the last step, float32 [num_heads, keys], whose queries it gave.

        They are over the tokens that the row has read, or those of its source.
        """
        query, keys, lengths = (
            (CROSS_QUERY, CROSS_KEY, SOURCE_LENGTHS) if kind == "cross" else (SELF_QUERY, SELF_KEY, LENGTHS)
        )
        length = int(self._given[lengths][row])
        key = self._given[f"{keys}.{layer}"][row, :, :length]  # [H, L, d]
        name = self._generation.bias_name(kind, layer)
        bias = self._made[name][row, :, :length] if name else None  # [H, L]
        return attention_weights(self._made[f"{query}.{layer}"][row], key, self._generation.scale, bias)

    def _output(self, name: str) -> Array:
        if name not in self._made:  # queries and biases, which hardly anybody asks for
            rows, length, _ = self._places
            is_bias = name in self._generation.bias_names
            sizes = (length,) if is_bias else (1, self._generation.head_dim)
            self._made[name] = np.zeros((rows, self._generation.num_heads, *sizes), np.float32)
        return self._made[name]

    def fit(self) -> None:
        """Give back what those needed who have left, where that is most of it.

        Rows of little stay. Lengths do not: a step takes the longer, the more places there are, whoever used them.
        """
        is_little = self.size_bytes <= _KEPT_BYTES
        longest, longest_source = self._lengths() if self.rows else (self._longest, self._longest_source)
        fitting = self._fitting(self._places[0] if is_little else self.rows, longest + 1, longest_source)
        is_spare = _SPARE * math.prod(fitting) <= math.prod(self._places)
        if self.rows and is_spare:
            self._resize(fitting)
            self._longest, self._longest_source = longest, longest_source
        elif not self.rows and (is_spare or not is_little):
            self.clear()
        elif not self.rows:
            self._longest = self._longest_source = 0

    def _lengths(self) -> tuple[int, int]:
        """The most tokens of a row, and of its source."""
        longest, longest_source = (int(self._given[name][: self.rows].max()) for name in (LENGTHS, SOURCE_LENGTHS))
        return longest, longest_source

    def bytes_for(self, rows: int, length: int, source_length: int) -> int:
        """Bytes of caches with room for so many rows, and for so many tokens of each."""
        if not rows:
            return 0
        rows, length, source_length = self._fitting(rows, length, source_length)
        return rows * self.row_bytes(length, source_length)

    def row_bytes(self, length: int, source_length: int) -> int:
        """Bytes of a row with room for so many tokens, and its logits."""
        return self._generation.row_bytes(length, source_length) + NUMBER_BYTES * self._generation.vocab_size

    def _reserve(self, rows: int, length: int, source_length: int) -> None:
        """Make room for so many; what is there is copied."""
        wanted = self._fitting(rows, length, source_length)
        places = tuple(map(max, self._places, wanted))
        if places != self._places:
            self._resize((places[0], places[1], places[2]))

    def _fitting(self, rows: int, length: int, source_length: int) -> tuple[int, int, int]:
        """Room for so many and, since it grows by doubling, some more; but not for sources all of one size."""
        of_sources = self._generation.source_positions or max(_double(source_length), _MIN_PLACES)
        return _double(rows), max(_double(length), _MIN_PLACES), of_sources

    def _resize(self, places: tuple[int, int, int]) -> None:
        given, made = step_arrays(self._generation, *places)
        for name, array in self._given.items():
            part = (slice(self.rows), *map(slice, map(min, array.shape[1:], given[name].shape[1:])))
            given[name][part] = array[part]
        self._given, self._made, self._places = given, made, places
        self._steps.clear()
        self._held.clear()

    def _sources_changed(self) -> None:
        for held in self._held.values():
            if held:
                held.is_stale = True


def _double(number: int) -> int:
    """The smallest power of 2 that is no less."""
    return 1 << (number - 1).bit_length()
