"""From answers to the file that `regard attend` writes: the picture of a view, or several side by side."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from regard import pictures
from regard.answers import Classification
from regard.matrices import counted, head_names, layer_name
from regard.pictures import Drawing, Page
from regard.sources import InputError, Source
from regard.views import CHARTS, Answered, PictureStyle, View

_MAX_PICTURES = 4
_UNPLACED = "the server did not say what the positions stand for"
_OF_PHOTOS = {"overlay": pictures.overlay, "heads": pictures.head_grid, "queries": pictures.query_maps}
_OF_TEXTS = {"matrix": pictures.token_heatmap, "heads": pictures.token_heads, "arcs": pictures.token_arcs}


def write(path: Path, view: View, style: PictureStyle, source: Source, answers: Sequence[Answered]) -> None:
    """Draw what was answered and write it, in the format that the suffix says.

    Raises:
        InputError: More pictures than stand beside each other, or an answer that cannot be drawn.
        OSError: The file cannot be written.
    """
    parts = [part for answered in answers for part in _parts(view, answered)]
    if len(parts) > _MAX_PICTURES:
        raise InputError(f"{len(parts)} pictures side by side; expected at most {_MAX_PICTURES}: fewer --layer")
    measures = _style(style, answers)
    drawing = _together([_drawing(view, source, part) for part in parts], stacked=_is_wide(view, source))
    if path.suffix.lower() == ".html":
        pictures.write_page(path, _page(drawing, view, source, answers), measures, style.theme)
    else:
        pictures.save(drawing(style=measures), path)


def write_sheet(path: Path, style: PictureStyle, photos: Sequence[Source], answers: Sequence[Answered]) -> None:
    """Draw what was answered about several photos on one sheet, and write it, in the format that the suffix says.

    Raises:
        InputError: An answer that cannot be drawn.
        OSError: The file cannot be written.
    """
    entries = []
    for photo, answered in zip(photos, answers, strict=True):
        if photo.image is None or answered.attention.patches is None:
            raise InputError(f"{photo.name}: {_UNPLACED}")
        opened = pictures.open_photo(photo.image)
        entries.append(
            pictures.SheetPhoto(photo.name, opened, answered.attention.layers[0], answered.attention.patches)
        )
    first = answers[0]
    drawn = pictures.contact_sheet(entries, model=first.answer.model, asked=first.asked, style=_style(style, answers))
    pictures.save(drawn, path)


def _style(chosen: PictureStyle, answers: Sequence[Answered]) -> pictures.Style:
    mixed = {layer.layer for one in answers for layer in one.attention.layers if layer.layer in one.mixed}
    if chosen.multiples and mixed:
        which = f"layer {min(mixed)} mixes its heads"
        raise InputError(f"--multiples: {which}, so that rows need not sum to 1; expected none")
    base = pictures.make_style(chosen.size, chosen.theme, chosen.width_cm, chosen.dpi)
    return dataclasses.replace(
        base,
        scale=pictures.Scale(chosen.curve, chosen.percentile, None, chosen.common_scale, chosen.multiples),
        opacity=base.opacity if chosen.opacity is None else chosen.opacity,
        smooth=chosen.smooth,
        contour=chosen.contour and chosen.contour / 100,
    )


def _parts(view: View, answered: Answered) -> list[Answered]:
    """One picture a layer; a chart holds all layers, and a rollout is one."""
    if view in CHARTS:
        return [answered]
    layers = ((layer,) for layer in answered.attention.layers)
    return [
        dataclasses.replace(answered, attention=dataclasses.replace(answered.attention, layers=layer))
        for layer in layers
    ]


def _drawing(view: View, source: Source, part: Answered) -> Drawing:
    attention, model = part.attention, part.answer.model
    if view in CHARTS:
        return partial(pictures.head_chart, attention, model=model, asked=part.asked)
    layer = attention.layers[0]
    if attention.tokens is not None and view in _OF_TEXTS:
        draw, keys = _OF_TEXTS[view], attention.key_tokens
        return partial(draw, layer, attention.tokens, key_tokens=keys, model=model, asked=part.asked)
    if attention.patches is not None and source.image is not None and view in _OF_PHOTOS:
        photo = pictures.open_photo(source.image)
        return partial(_OF_PHOTOS[view], photo, layer, attention.patches, model=model, asked=part.asked)
    raise InputError(_UNPLACED)


def _is_wide(view: View, source: Source) -> bool:
    """Tell of panels over a photo, whose details are lost where two of them share a width."""
    return source.image is not None and view in ("heads", "queries")


def _together(drawings: Sequence[Drawing], *, stacked: bool) -> Drawing:
    """Return one drawing of all, beside or below each other."""
    if len(drawings) == 1:
        return drawings[0]
    return partial(pictures.side_by_side, drawings, columns=1 if stacked else 2)


def _page(drawing: Drawing, view: View, source: Source, answers: Sequence[Answered]) -> Page:
    names = " and ".join(answered.answer.model for answered in answers)
    facts = [fact for answered in answers for fact in _facts(answered)]
    return Page(
        title=f"What {names} attends to" if len(answers) == 1 else f"What {names} attend to",
        facts=[("Input", source.title), *facts, ("View", view)],
        alt=" ".join(pictures.in_words(each.attention, model=each.answer.model, asked=each.asked) for each in answers),
        drawing=drawing,
        vector=source.image is None or view in CHARTS,
        tables=[table for answered in answers for table in _tables(answered)],
    )


def _tables(answered: Answered) -> list[pictures.Table]:
    return pictures.tables(answered.attention, model=answered.answer.model, asked=answered.asked)


def _facts(answered: Answered) -> list[tuple[str, str]]:
    """Say which model in which version showed what, and what it answered."""
    answer, first = answered.answer, answered.attention.layers[0]
    numbers = [layer.layer for layer in answered.attention.layers]
    layers = layer_name(first) if len(numbers) == 1 else counted("layer", numbers)
    heads = counted("head", first.heads) if "head" in first.axes else head_names(first, answered.asked)[0]
    if len({layer.heads for layer in answered.attention.layers}) > 1:
        heads = f"{', '.join(str(len(layer.heads)) for layer in answered.attention.layers)} heads"
    facts = [("Model", f"{answer.model}, version {answer.version}: {layers}, {heads}")]
    if isinstance(answer, Classification):
        labels = ", ".join(f"{label.name} {100 * label.probability:.1f} %" for label in answer.labels[:3])
        facts.append(("Answer", labels))
    return facts
