"""Calls of a study: numbers of heads over a data set."""

import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from regard import checks, decoding, encoding
from regard.aio_many import AsyncManyCalls
from regard.attention import Rectangle, Span, Statistic
from regard.bulk import Kind, iterate, read_kind
from regard.inputs import ImageSource
from regard.many import ManyCalls
from regard.options import StudyArguments
from regard.v1 import regard_pb2 as rpc

if TYPE_CHECKING:
    from regard.study import Study
    from regard.study.running import Run


class StudyCalls(ManyCalls):
    """What a client asks of a data set."""

    def study(
        self,
        folder: Path | str,
        *,
        images: Iterable[ImageSource] | None = None,
        texts: Iterable[str] | None = None,
        pairs: Iterable[tuple[str, str]] | None = None,
        **options: Unpack[StudyArguments],
    ) -> "Study":
        """Count what every head does over a data set, made on the server, and keep it in a folder.

        Inputs go out as `classify_many` sends them, in order and bounded; of each come 4 bytes a statistic and head.
        Whatever ends the run, what was written stays, and `resume` goes on after it with the same inputs and options.

        Args:
            folder: Of the study: values.zarr, tables/ (Parquet, where pyarrow is installed), heads.csv, report.html.
            images: JPEG, PNG or WebP files, each as bytes or as a path. Exactly one of images, texts and pairs; read a
                few hundred at a time.
            texts: Exactly one of images, texts and pairs.
            pairs: Each two texts as one input, likewise.
            **options: See `StudyArguments`.

        Returns:
            What was found: means and variances of each layer, head and statistic.

        Raises:
            InvalidArgument: An argument has no such value, or the model has no attention to show.
            ValueError: The folder holds something else.
            FailedPrecondition: The model does not have a statistic that was asked for.
            RegardError: Every further call would fail too.
        """
        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        asked, make = _prepared(kind, folder, **options)
        run = make(self, self._call(self._stub.GetModel, asked, None))
        return run.run((_name(kind, number, value), value) for number, value in enumerate(iterate(kind, inputs)))


class AsyncStudyCalls(AsyncManyCalls):
    """What a client for asyncio asks of a data set."""

    async def study(
        self,
        folder: Path | str,
        *,
        images: Iterable[ImageSource] | AsyncIterable[ImageSource] | None = None,
        texts: Iterable[str] | AsyncIterable[str] | None = None,
        pairs: Iterable[tuple[str, str]] | AsyncIterable[tuple[str, str]] | None = None,
        **options: Unpack[StudyArguments],
    ) -> "Study":
        """As `Client.study`; what is given may be asynchronous too.

        Where it is cancelled, what was answered is written first, and `resume` goes on after it.
        """
        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        asked, make = _prepared(kind, folder, **options)
        run = make(self, await self._call(self._stub.GetModel, asked, None))
        return await run.run_async(_named(kind, inputs))


def _prepared(
    kind: Kind,
    folder: Path | str,
    *,
    model: str = "",
    version: str = "",
    statistics: Iterable[Statistic] = (),
    layers: Iterable[int] = (),
    value_weighted: bool = False,
    contributions: bool = False,
    drop_special: bool = False,
    cls_only: bool = False,
    spans: Iterable[Span] = (),
    boxes: Iterable[Rectangle] = (),
    truncate: bool = False,
    examples: int = 8,
    resume: bool = False,
    retry_errors: bool = False,
) -> tuple[rpc.GetModelRequest, Callable[[Any, rpc.GetModelResponse], "Run"]]:
    """Check all that can be before the model is known; returns what asks for that, and what makes a run of the answer.

    Raises:
        InvalidArgument: An argument has no such value.
    """
    from regard.study.asking import StudyOptions
    from regard.study.running import Run

    modality: Literal["image", "text"] = "image" if kind == "images" else "text"
    chosen = StudyOptions(
        tuple(checks.items("statistics", statistics, "names of statistics")),
        tuple(checks.integers("layers", layers)),
        checks.flag("value_weighted", value_weighted),
        checks.flag("contributions", contributions),
        checks.flag("drop_special", drop_special),
        checks.flag("cls_only", cls_only),
        tuple(checks.items("spans", spans, "pairs of a start and an end")),
        tuple(checks.items("boxes", boxes, "left, top, right and bottom of each")),
    )
    goes_on, cuts = checks.flag("resume", resume), checks.flag("truncate", truncate)
    kept, retries = checks.integer("examples", examples, 0, 1000), checks.flag("retry_errors", retry_errors)

    def make(client: Any, found: rpc.GetModelResponse) -> Run:
        served = decoding.read_model(found.model).of(modality)
        return Run(client, served, kind, chosen, Path(folder), goes_on, cuts, kept, retry_errors=retries)

    return encoding.get_model_request(model, version), make


async def _named(kind: Kind, inputs: Any) -> AsyncIterator[tuple[str, Any]]:
    number = 0
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield _name(kind, number, value), value
            number += 1
    else:
        for number, value in enumerate(iterate(kind, inputs)):
            yield _name(kind, number, value), value


def _name(kind: str, number: int, value: Any) -> str:
    """Name paths and texts by themselves, pairs by both texts, bytes by their SHA-256, anything else by its place.

    Two studies are of the same inputs where the names are the same.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, bytes):
        return f"{kind}[{number}] {hashlib.sha256(value).hexdigest()[:16]}"
    if kind == "pairs" and isinstance(value, tuple | list) and all(isinstance(one, str) for one in value):
        return " · ".join(value)
    return f"{kind}[{number}]"
