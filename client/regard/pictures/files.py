"""Writes figures to files and bytes: PNG, SVG, PDF, and WebP for pages."""

import io
import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_WITHOUT_DATE = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
_WEBP_QUALITY = 88


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure, in the format that the suffix says.

    Args:
        figure: What to write, at its own dpi.
        path: Ends in .png, .svg, .pdf or .webp.

    Raises:
        OSError: It cannot be written.
        ValueError: matplotlib knows no such format.
    """
    target = Path(path)
    target.write_bytes(to_bytes(figure, target.suffix.lower().removeprefix(".")))


def to_bytes(figure: Figure, format_name: str) -> bytes:
    """Return a figure as the bytes of a file, which hold no date, so that the same input gives the same file.

    Args:
        figure: What to draw, at its own dpi.
        format_name: "png", "svg", "pdf" or "webp".

    Returns:
        The file's content.

    Raises:
        ValueError: matplotlib knows no such format.
    """
    options: dict[str, Any] = {"metadata": _WITHOUT_DATE[format_name]} if format_name in _WITHOUT_DATE else {}
    if format_name == "webp":
        options = {"pil_kwargs": {"quality": _WEBP_QUALITY}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        figure.savefig(file, format=format_name, **options)
    return file.getvalue()
