"""Writes the graph that explains written tokens beside the decoder's step, and verifies it: it is left out if it fails.

Rows of a batch explain tokens of other texts at other places, behind sources of other lengths.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto

from artifact.contract import TOKEN_RELEVANCE_GRAPH, WEIGHTS_FILE
from artifact.dtypes import Array
from artifact.generation import TOKEN_RELEVANCE, GenerationContract
from export.compare import ALONE, LIMITS, run
from export.differences import Difference, above_limits, max_abs, summarize, tell
from export.encoder_decoder import Writing
from export.errors import VerificationError
from export.graph import externalize
from export.next_token import trace_next_token, traits_of_tokens
from export.probe import declare_axes
from export.randomness import check_repeatable
from export.relevance.tokens import add_token_relevance
from export.served import AsServed
from export.session import open_session
from export.traits import Feed, Traits
from export.verify_steps import SEED, StepCase, make_step_cases
from export.write_relevance import Explained, leaving_out

_WHAT, _NAME = "relevance of written tokens", "tokens."  # before what the verification calls an output
_LIMITS = LIMITS["float32"]


def write_token_relevance(
    writing: Writing, traits: Traits, weights: ModelProto, folder: Path, found: Explained, report: Callable[[str], None]
) -> None:
    """Write the graph, or say in what was found why not.

    Args:
        writing: The network.
        traits: Of the encoder's inputs.
        weights: Has all that lie in the folder's file of weights; what the graph has besides is put behind them.
        folder: Where to.
        found: Is added to.
        report: Called with a line if it is left out.
    """
    with leaving_out(folder, found, _WHAT, [TOKEN_RELEVANCE_GRAPH], report):
        own = traits_of_tokens(traits, writing.generation, writing.max_positions)
        graph = add_token_relevance(trace_next_token(writing.next_token, own), folder)
        declare_axes(graph, writing.generation.token_relevance_axes)
        onnx.save_model(externalize(graph, folder / WEIGHTS_FILE, weights), folder / TOKEN_RELEVANCE_GRAPH)


def verify_token_relevance(
    writing: Writing, traits: Traits, folder: Path, found: Explained, report: Callable[[str], None]
) -> None:
    """Compare the graph, if it is there, with the network, with its own sum, and rows with themselves alone.

    Args:
        writing: The network.
        traits: Of the encoder's inputs.
        folder: Holds the graph.
        found: Is given the table, or the line that says why the graph was left out.
        report: Called with that line.
    """
    path = folder / TOKEN_RELEVANCE_GRAPH
    if not path.exists():
        return
    with leaving_out(folder, found, _WHAT, [TOKEN_RELEVANCE_GRAPH], report):
        cases = [(case, _feed(case, writing.generation)) for case in make_step_cases(writing, traits)]
        with AsServed(folder, [feed for _, feed in cases[:2]], [path.name]) as as_served:
            session, differences = open_session(path), list[Difference]()
            check_repeatable(path, partial(run, session, cases[0][1]))
            for case, feed in cases:
                differences += _compare(writing, session, case, feed)
            for _, place, served in as_served.results():
                expected = run(session, cases[place][1])
                differences += _differ(served, expected, "as served", _LIMITS.plain)
        table = summarize(differences)
        if failed := above_limits(table):
            raise VerificationError(tell(failed, "; "))
        found.checks += table


def _feed(case: StepCase, generation: GenerationContract) -> Feed:
    """Explain any token behind all of each row but what is padding."""
    tokens = np.random.default_rng(SEED).integers(generation.vocab_size, size=case.rows)
    names = TOKEN_RELEVANCE
    given = {names.target_ids: case.targets, names.target_lengths: np.array(case.lengths), names.token: tokens}
    return {**case.source, **given}


def _compare(
    writing: Writing, session: onnxruntime.InferenceSession, case: StepCase, feed: Feed
) -> Iterator[Difference]:
    names, found, positions = TOKEN_RELEVANCE, run(session, feed), max(case.source_lengths)
    rows, last = np.arange(case.rows), np.array(case.lengths) - 1
    with torch.inference_mode():
        logits = writing.explain(*map(torch.from_numpy, (*case.source.values(), case.targets)))[0]
    expected = logits.numpy()[rows, last, feed[names.token]]
    scale = max(1.0, float(np.abs(expected).max()))
    score = _NAME + names.score
    limit = scale * (_LIMITS.torch or 0)
    yield Difference(score, "against torch", max_abs(found[names.score], expected), scale, limit, positions)
    added = [found[name].astype(np.float64) for name in (names.source, names.target)]
    total = sum((one.sum(1) for one in added), found[names.rest])
    scale = max(1.0, max(float(np.abs(one).sum(1).max()) for one in added))
    yield Difference(score, "adds up", max_abs(total, found[names.score]), scale, scale * _LIMITS.plain, positions)
    for row in range(case.rows if case.rows > 1 else 0):
        own = case.row(row)
        alone = run(session, {**_feed(own, writing.generation), names.token: feed[names.token][row : row + 1]})
        cut = {name: found[name][row : row + 1, : alone[name].shape[1]] for name in (names.source, names.target)}
        together = {**{name: found[name][row : row + 1] for name in (names.rest, names.score)}, **cut}
        yield from _differ(together, alone, ALONE, _LIMITS.alone, positions)


def _differ(
    found: dict[str, Array], expected: dict[str, Array], check: str, limit: float, positions: int = 0
) -> Iterator[Difference]:
    for name, array in expected.items():
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        yield Difference(_NAME + name, check, max_abs(found[name], array), scale, limit * scale, positions)
