"""Blocking calls of a study: numbers of heads over a data set."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regard import checks, decoding, encoding
from regard.attention import Rectangle, Span, Statistic
from regard.bulk import iterate, read_kind
from regard.inputs import ImageSource
from regard.many import ManyCalls

if TYPE_CHECKING:
    from regard.study import Study


class StudyCalls(ManyCalls):
    """What a client asks of a data set."""

    def study(
        self,
        folder: Path | str,
        *,
        images: Iterable[ImageSource] | None = None,
        texts: Iterable[str] | None = None,
        pairs: Iterable[tuple[str, str]] | None = None,
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
            model: May be empty where only one is served.
            version: Empty means the newest.
            statistics: Which, see `AttentionRequest`; none for all that the model and its inputs have.
            layers: Which; none for all that have these.
            value_weighted: Count weights times the lengths of value vectors.
            contributions: Count the contributions of all heads together, one number a layer.
            drop_special: Leave special tokens of texts and prefix tokens of images out.
            cls_only: Only the row of the class token.
            spans: Of "region" in texts: (start, end) in code points, the same of all.
            boxes: Of "region" in images: (left, top, right, bottom) in pixels, the same of all.
            truncate: Cut texts that have more tokens than the model takes; else they have errors.
            examples: How many inputs are kept that excite a head most, of each head and statistic.
            resume: Go on with what the folder holds, which must be of the same inputs and options.

        Returns:
            What was found: means and variances of each layer, head and statistic.

        Raises:
            InvalidArgument: An argument has no such value, or the model has no attention to show.
            ValueError: The folder holds something else.
            FailedPrecondition: The model does not have a statistic that was asked for.
            RegardError: Every further call would fail too.
        """
        from regard.study.asking import StudyOptions
        from regard.study.running import Run

        kind, inputs = read_kind(images=images, texts=texts, pairs=pairs)
        options = StudyOptions(
            tuple(checks.items("statistics", statistics, "names of statistics")),
            tuple(checks.integers("layers", layers)),
            checks.flag("value_weighted", value_weighted),
            checks.flag("contributions", contributions),
            checks.flag("drop_special", drop_special),
            checks.flag("cls_only", cls_only),
            tuple(checks.items("spans", spans, "pairs of a start and an end")),
            tuple(checks.items("boxes", boxes, "left, top, right and bottom of each")),
        )
        modality: Literal["image", "text"] = "image" if kind == "images" else "text"
        asked = encoding.get_model_request(model, version)
        run = Run(
            self,
            decoding.read_model(self._call(self._stub.GetModel, asked, None).model).of(modality),
            kind,
            options,
            Path(folder),
            checks.flag("resume", resume),
            checks.flag("truncate", truncate),
            checks.integer("examples", examples, 0, 1000),
        )
        return run.run(_named(kind, iterate(kind, inputs)))


def _named(kind: str, inputs: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    """Name paths and texts by themselves, pairs by both texts, bytes by their SHA-256, anything else by its place.

    Two studies are of the same inputs where the names are the same.
    """
    for number, value in enumerate(inputs):
        if isinstance(value, str):
            yield value, value
        elif isinstance(value, os.PathLike):
            yield os.fspath(value), value
        elif isinstance(value, bytes):
            yield f"{kind}[{number}] {hashlib.sha256(value).hexdigest()[:16]}", value
        elif kind == "pairs" and isinstance(value, tuple | list) and all(isinstance(one, str) for one in value):
            yield " · ".join(value), value
        else:
            yield f"{kind}[{number}]", value
