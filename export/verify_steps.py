"""Verifies the graphs of a decoder's step: written step by step from caches, they do what whole sequences do in torch.

Rows of a batch begin at different steps, as they do in a server, and find in their caches what others have left there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from artifact.contract import DECODER_GRAPH, LOWERED_DECODER_GRAPH, PLAIN_GRAPH
from artifact.dtypes import Array
from artifact.generation import CROSS_KEY, LOGITS, SELF_KEY, SELF_VALUE, GenerationContract, names_of_layers
from artifact.verification import Check
from export.compare import ALONE, LIMITS, run
from export.differences import Difference, above_limits, largest, max_abs, summarize, tell
from export.encoder_decoder import Writing
from export.errors import VerificationError
from export.randomness import check_repeatable
from export.served import AsServed
from export.session import open_session
from export.step import LOWERED, Flat
from export.stepper import Stepper
from export.traits import Feed, Traits, pad
from server.engine.device import ERRORS_ONLY
from server.engine.session import make_options

SEED = 0
_NAME = "decoder."  # before what the verification calls an output
# Rows by the lengths of their sources and targets, and the step at which each begins.
_ROWS = (((3,), (4,), (0,)), ((5, 17, 3, 9, 12), (6, 12, 1, 9, 16), (0, 2, 7, 1, 4)), ((33, 1), (40, 33), (3, 0)))
_TEXT_AXES = 2  # of inputs, which are as long as their texts; others are of one size
_LONGER = 5  # so much longer than needed are caches
_LIMITS = LIMITS["float32"]


@dataclass(frozen=True, eq=False)
class StepCase:
    """Rows to write.

    Attributes:
        source: Inputs of the encoder.
        source_lengths: Of each row.
        targets: int64 [B, T], what each row writes, whatever its logits are.
        lengths: Of each row, at most T.
        begins: The step at which each begins.
    """

    source: Feed
    source_lengths: tuple[int, ...]
    targets: Array
    lengths: tuple[int, ...]
    begins: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Size of the batch."""
        return len(self.targets)

    def row(self, row: int) -> "StepCase":
        """One row, alone and without padding."""
        length = self.source_lengths[row]
        source = {
            name: array[row : row + 1, :length] if array.ndim == _TEXT_AXES else array[row : row + 1]
            for name, array in self.source.items()
        }
        targets = self.targets[row : row + 1, : self.lengths[row]]
        return StepCase(source, self.source_lengths[row : row + 1], targets, self.lengths[row : row + 1], (0,))


# By name of what is compared, "logits", "self.0" and so on: of each row what each of its tokens has, [V] or [H, K].
Told = dict[str, list[list[Array]]]


def verify_steps(writing: Writing, traits: Traits, folder: Path) -> tuple[Check, ...]:
    """Write batches of rows, and rows alone, with every graph of the step; compare all with torch and each other.

    Args:
        writing: The network, of which a step in torch is compared with, and whole sequences without caches.
        traits: Of the encoder's inputs.
        folder: Holds the graphs and their weights.

    Returns:
        The table, one line for each tensor and check, the worst over all cases.

    Raises:
        VerificationError: A difference is above its limit, or is not a number.
    """
    encoder = open_session(folder / PLAIN_GRAPH, _options())
    names = [name for name in (DECODER_GRAPH, LOWERED_DECODER_GRAPH) if (folder / name).exists()]
    sessions = {name: open_session(folder / name, _options()) for name in names}
    far = _far_feed(writing, traits)
    with AsServed(folder, [far], names) as as_served:
        here = {name: run(session, far) for name, session in sessions.items()}
        differences = list(_compare_far(writing, here, far))
        for name, session in sessions.items():
            check_repeatable(folder / name, partial(run, session, far))
        for case in make_step_cases(writing, traits):
            differences += _compare_case(writing, encoder, sessions, case)
        for name, _, found in as_served.results():
            differences += _compare(here[name], found, "as served", _LIMITS.plain)
    table = summarize(differences)
    if failed := above_limits(table):
        raise VerificationError("the exported step differs from the network:\n  " + tell(failed, "\n  "))
    return table


def _options() -> onnxruntime.SessionOptions:
    """The server's, without its packed weights, which run in a process of their own; see AsServed."""
    options = make_options()
    options.log_severity_level = ERRORS_ONLY  # not that a cache is copied where none is bound in its place
    return options


def make_step_cases(writing: Writing, traits: Traits) -> list[StepCase]:
    """Make batches of several sizes, ragged on both sides."""
    random, cases = np.random.default_rng(SEED), list[StepCase]()
    start = writing.generation.beginnings()[0][0]
    for sources, targets, begins in _ROWS:
        fixed = writing.generation.source_positions
        source_lengths = tuple(fixed or min(length, traits.longest) for length in sources)
        lengths = tuple(min(length, writing.max_positions) for length in targets)
        source = pad(traits.example(len(sources), {"seq_len": max(source_lengths)}), traits, source_lengths)
        tokens = random.integers(writing.generation.vocab_size, size=(len(targets), max(lengths)))
        tokens[:, 0] = start
        cases.append(StepCase(source, source_lengths, tokens, lengths, begins))
    return cases


def _compare_case(
    writing: Writing,
    encoder: onnxruntime.InferenceSession,
    sessions: Mapping[str, onnxruntime.InferenceSession],
    case: StepCase,
) -> Iterator[Difference]:
    positions, played = max(case.source_lengths), partial(_play, writing.generation, encoder)
    fused = played(sessions[DECODER_GRAPH], case)
    yield from _differ(fused, _in_torch(writing, case), "against torch", _LIMITS.torch or 0, positions)
    if LOWERED_DECODER_GRAPH in sessions:
        lowered = played(sessions[LOWERED_DECODER_GRAPH], case)
        yield from _differ(lowered, fused, "lowered form", _LIMITS.lowered, positions)
    for row in range(case.rows if case.rows > 1 else 0):
        alone = played(sessions[DECODER_GRAPH], case.row(row))
        together = {name: rows[row : row + 1] for name, rows in fused.items()}
        yield from _differ(together, alone, ALONE, _LIMITS.alone, positions)


def _differ(found: Told, expected: Told, check: str, limit: float, positions: int) -> Iterator[Difference]:
    """Compare each token's numbers of each row."""
    for name, rows in expected.items():
        pairs = [
            (one, other) for row, tokens in enumerate(rows) for one, other in zip(found[name][row], tokens, strict=True)
        ]
        scale = largest(np.abs(other).max() for _, other in pairs)
        scaled = limit * (max(1.0, scale) if name == LOGITS else 1)
        yield Difference(_NAME + name, check, largest(max_abs(*pair) for pair in pairs), scale, scaled, positions)


def _play(
    generation: GenerationContract,
    encoder: onnxruntime.InferenceSession,
    session: onnxruntime.InferenceSession,
    case: StepCase,
) -> Told:
    """Write the targets step by step; a row that has not begun, or is over, writes its first or last token again."""
    random, lengths, begins = np.random.default_rng(SEED), np.array(case.lengths), np.array(case.begins)
    source = run(encoder, case.source)
    source = {name: _litter(source[name], case.source_lengths, random) for name in generation.source_names}
    shape = (case.rows, generation.num_heads, max(case.lengths) + _LONGER * (case.rows > 1), generation.head_dim)
    names = names_of_layers((SELF_KEY, SELF_VALUE), generation.num_layers)
    caches = {name: random.standard_normal(shape, np.float32) for name in names}
    stepper = Stepper(session, generation, source, np.array(case.source_lengths), caches)
    told: Told = {}
    for step in range(max(lengths + begins)):
        cached = np.clip(step - begins, 0, lengths - 1)
        logits = stepper.step(case.targets[np.arange(case.rows), cached], cached)
        for name, rows in {LOGITS: list(logits), **stepper.weights()}.items():
            tokens = told.setdefault(name, [[] for _ in range(case.rows)])
            for row in np.flatnonzero((begins <= step) & (step < begins + lengths)):
                tokens[row].append(rows[row])
    return told


def _litter(source: Array, lengths: Sequence[int], random: np.random.Generator) -> Array:
    """Put numbers that nothing may read behind the end of each row."""
    littered = source.copy()
    for row, length in enumerate(lengths):
        littered[row, :, length:] = random.standard_normal(littered[row, :, length:].shape)
    return littered


def _in_torch(writing: Writing, case: StepCase) -> Told:
    """What the network says of the whole sequences, without caches."""
    given = (torch.from_numpy(array) for array in (*case.source.values(), case.targets))
    with torch.inference_mode():
        logits, own, cross = writing.explain(*given)
    told: Told = {LOGITS: [list(rows[:length]) for rows, length in zip(logits.numpy(), case.lengths, strict=True)]}
    for kind, layers in (("self", own), ("cross", cross)):
        for layer, weights in enumerate(layers):
            told[f"{kind}.{layer}"] = [
                [rows[:, token, : token + 1 if kind == "self" else source_length] for token in range(length)]
                for rows, length, source_length in zip(weights.numpy(), case.lengths, case.source_lengths, strict=True)
            ]
    return told


def _far_feed(writing: Writing, traits: Traits) -> Feed:
    """Inputs of a step at the last position there is, beside one of a row that begins; caches are random."""
    generation, random = writing.generation, np.random.default_rng(SEED)
    last, longest = writing.max_positions - 1, traits.longest
    feed: Feed = {}
    for name in generation.step_inputs:
        keys = longest if name.startswith("cross") else writing.max_positions
        feed[name] = random.standard_normal((2, generation.num_heads, keys, generation.head_dim), np.float32)
    tokens, lengths, source_lengths = list(feed)[:3]
    feed[tokens] = random.integers(generation.vocab_size, size=(2, 1))
    feed[lengths], feed[source_lengths] = np.array([last, 0]), np.array([longest, 1])
    return feed


def _compare_far(writing: Writing, found: Mapping[str, dict[str, Array]], feed: Feed) -> Iterator[Difference]:
    """Compare what each graph gives with one step in torch."""
    with torch.inference_mode():
        given = Flat(writing.step, LOWERED)(*map(torch.from_numpy, feed.values()))
    expected = dict(zip(writing.generation.step_outputs, (one.numpy() for one in given), strict=True))
    positions = feed[f"{CROSS_KEY}.0"].shape[2]
    yield from _compare(expected, found[DECODER_GRAPH], "one step in torch", _LIMITS.torch or 0, positions)
    if LOWERED_DECODER_GRAPH in found:
        lowered = found[LOWERED_DECODER_GRAPH]
        yield from _compare(found[DECODER_GRAPH], lowered, "lowered form", _LIMITS.lowered, positions)


def _compare(
    expected: Mapping[str, Array], found: Mapping[str, Array], check: str, limit: float, positions: int = 0
) -> Iterator[Difference]:
    for name, array in expected.items():
        scale = float(np.abs(array).max())
        yield Difference(_NAME + name, check, max_abs(found[name], array), scale, limit * max(1.0, scale), positions)
