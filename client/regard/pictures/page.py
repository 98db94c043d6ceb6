"""A page of its own for a picture: one HTML file with the picture, what it shows, and its numbers; no script."""

import base64
import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regard.html_page import html_page
from regard.pictures.files import to_bytes
from regard.pictures.style import Drawing, Style
from regard.tables import Table
from regard.views import Theme

_MEDIA_TYPES = {"svg": "image/svg+xml", "webp": "image/webp"}
_MAX_CELLS = 20_000

_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --faint: #c4c4c4; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #101014; --faint: #4a4a52; } }
:root.light { color-scheme: light; --ink: #1a1a1a; --paper: #ffffff; --faint: #c4c4c4; }
:root.dark { color-scheme: dark; --ink: #e6e6e6; --paper: #101014; --faint: #4a4a52; }
body { margin: 0 auto; padding: 1rem; max-width: 90rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1rem; }
dt { opacity: .75; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0 0 1rem; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
summary { cursor: pointer; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font: .8rem/1.4 ui-monospace, monospace; }
caption { text-align: left; font: 1rem/1.5 system-ui, sans-serif; }
th, td { padding: .1rem .5rem; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap; }
@media print { details { display: none; } }
"""


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: Its heading.
        facts: Names and values that stand below: the model, the input, what was asked for.
        alt: The picture in words, for those who do not see it.
        drawing: Draws the picture in a style.
        vector: Whether the picture is embedded as SVG; photos are smaller as WebP.
        tables: The picture's numbers.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    alt: str
    drawing: Drawing
    vector: bool
    tables: Sequence[Table]


def write_page(path: Path | str, page: Page, style: Style, theme: Theme | None = None) -> None:
    """Write a page, which loads nothing and may be mailed or opened from a disk.

    Args:
        path: Of the file, which should end in .html.
        page: What it shows.
        style: The picture's measures.
        theme: The only one; None for both, of which the browser shows what its user prefers, and paper the light one.

    Raises:
        OSError: It cannot be written.
    """
    Path(path).write_text(page_html(page, style, theme), encoding="utf-8")


def page_html(page: Page, style: Style, theme: Theme | None = None) -> str:
    """Return the text of a page; args as `write_page`."""
    body = f"""<figure>
{_picture(page, style, theme)}
</figure>
<details>
<summary>The numbers</summary>
{_tables(page.tables)}
</details>"""
    return html_page(page.title, page.facts, body, _CSS, root=f' class="{theme}"' if theme else "")


def _picture(page: Page, style: Style, theme: Theme | None) -> str:
    image = f'<img src="{_data_uri(page, style, theme or "light")}" alt="{html.escape(page.alt)}">'
    if theme:
        return image
    dark = _data_uri(page, style, "dark")
    return f'<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">\n{image}</picture>'


def _data_uri(page: Page, style: Style, theme: Theme) -> str:
    kind = "svg" if page.vector else "webp"
    drawn = to_bytes(page.drawing(style=dataclasses.replace(style, theme=theme)), kind)
    return f"data:{_MEDIA_TYPES[kind]};base64,{base64.b64encode(drawn).decode()}"


def _tables(tables: Sequence[Table]) -> str:
    """Write as many tables as a browser shows with ease, and say what was left out."""
    cells, written = 0, list[str]()
    for table in tables:
        cells += sum(map(len, table.rows))
        if cells > _MAX_CELLS:
            left_out = len(tables) - len(written)
            written.append(f"<p>{left_out} of {len(tables)} tables are too large for a page: regard attend --json.</p>")
            break
        written.append(f'<div class="scroll">{_table(table)}</div>')
    return "\n".join(written)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ("", *table.columns))
    rows = (
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(map(_cell, row))}</tr>'
        for name, row in zip(table.names, table.rows, strict=True)
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: float | None) -> str:
    return f"<td>{'' if value is None else f'{value:.3g}'}</td>"
