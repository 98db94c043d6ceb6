"""Relevance as HTML for notebooks: pointing at a token or a patch tells its number."""

import html
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from regard.comparison import SimilarityRelevance
from regard.notebook_html import laid_over, matrix_html, source_of
from regard.origin import origin_of
from regard.reasons import (
    AGAINST_COLOUR,
    FOR_COLOUR,
    headline,
    names,
    on_patches,
    similarity_headline,
    unplaced,
    written,
)
from regard.relevance import Relevance


def relevance_html(why: Relevance) -> str:
    """Return it over the photo, or behind the text."""
    caption = html.escape(" · ".join(filter(None, [headline(why, origin_of(why).model), unplaced(why)])))
    image, grid, told = origin_of(why).image, why.patches, partial(written, why)
    if why.tokens is not None:
        shade = signed_shade(why.values)
        words = "".join(
            f'<span style="background:{shade(value)};padding:1px 3px;margin:1px" title="{told(value)}">{name}</span> '
            for name, value in zip(map(html.escape, names(why)), map(float, why.values), strict=True)
        )
        return f'<p style="line-height:1.8">{words}</p><p>{caption}</p>'
    if grid is None or image is None or grid.box is None:
        return f"<p>{caption}</p><pre>{html.escape(repr(why))}</pre>"
    on_grid = on_patches(why)
    shade = signed_shade(on_grid)
    cells = "".join(
        f'<div style="background:{shade(float(value))}" title="row {line}, column {at}: {told(float(value))}"></div>'
        for (line, at), value in np.ndenumerate(on_grid)
    )
    photo = laid_over(grid, grid.box, source_of(image), cells)
    return f'<figure style="margin:0;width:360px">{photo}<figcaption>{caption}</figcaption></figure>'


def pairs_html(why: SimilarityRelevance) -> str:
    """Return the pairs as a table, the first's positions by the second's; without pairs, both inputs."""
    caption = html.escape(similarity_headline(why, origin_of(why.first).model))
    if why.pairs is None:
        return f"<p>{caption}</p>{relevance_html(why.first)}{relevance_html(why.second)}"
    shade = signed_shade(why.pairs)
    return matrix_html(names(why.first), names(why.second), why.pairs, caption, shade)


def signed_shade(values: NDArray[np.floating]) -> Callable[[float], str]:
    """Return what makes a colour of a number: one for those above 0, one for those below, clear at 0."""
    most = max(float(np.abs(values).max(initial=0)), 1e-9)

    def shade(value: float) -> str:
        return f"{FOR_COLOUR if value > 0 else AGAINST_COLOUR}{round(255 * abs(value) / most):02x}"

    return shade
