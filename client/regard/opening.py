"""Opens what `regard attend` would draw on the explorer's page: one that runs, or one that this starts."""

import dataclasses
import hashlib
import http.client
import json
import webbrowser
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import typer

from regard.answers import Model
from regard.explorer import Settings, read_address, serve
from regard.explorer.photos import PhotoStore
from regard.explorer.serve import Address, url_of_address
from regard.sources import InputError, Source
from regard.views import CHARTS, PictureStyle, View, ViewOptions, step_kind

_TIMEOUT_SECONDS = 10.0
_PAGE_CONTOUR = 60.0
_NOT_ON_PAGE = {
    "residual_share": "--residual-share",
    "value_weighted": "--value-weighted",
    "top_k": "--top-k",
    "rows_of_text": "--rows-of",
    "keys_of_text": "--keys-of",
    "size": "--size",
    "theme": "--theme",
    "width_cm": "--width-cm",
    "dpi": "--dpi",
}


def open_on_page(
    page: str,
    settings: Settings,
    source: Source,
    models: Sequence[Model],
    view: View,
    options: ViewOptions,
    style: PictureStyle,
    *,
    truncate: bool,
) -> None:
    """Open a browser on a link to an input, its models and what is to be seen of them; prints the link.

    Args:
        page: HOST:PORT of the explorer. Where none answers, one is started there, and serves until Ctrl-C.
        settings: Of one that is started.
        source: The input; a photo is handed over.
        models: The one that is asked, and the one beside it if any.
        view: How it is to be seen.
        options: What is to be seen.
        style: Scales.
        truncate: Cut a text that is too long.

    Raises:
        InputError: The page has no such view, something else answers there, or it has another server without the model.
        OSError: The page cannot be started there.
    """
    fragment = urlencode(fields_of(source, models, view, options, style, truncate=truncate))
    address = read_address(page, allow_remote=True, flag="--page")
    served = _ask(address, "GET", "/api/models")
    if served is None:
        address, photos = read_address(page, allow_remote=False, flag="--page"), PhotoStore()
        if source.image is not None:
            photos.put(source.image)
        serve(settings, address, open_page=True, fragment=fragment, photos=photos)
        return
    for model in models:
        if not any((one["name"], one["version"]) == (model.name, model.version) for one in served["models"]):
            raise InputError(
                f"--page {page}: that page asks {served['server']}, which does not serve {model.name} {model.version}; "
                f"expected a page that asks {settings.server}, or an address where none runs"
            )
    if source.image is not None:
        _ask(address, "POST", "/api/photos", source.image)
    url = f"{url_of_address(address.host, address.port)}#{fragment}"
    typer.echo(url)
    webbrowser.open(url)


def fields_of(
    source: Source, models: Sequence[Model], view: View, options: ViewOptions, style: PictureStyle, *, truncate: bool
) -> dict[str, str]:
    """Return the fields of a link to what is to be seen: `explorer/static/state.js` reads them.

    Raises:
        InputError: The page does not show this.
    """
    _refuse_what_is_not_there(options, style, is_photo=source.image is not None)
    model, beside = models[0], models[1:]
    photo = source.image and hashlib.sha256(source.image).hexdigest()  # as the page names it
    fields: dict[str, Any] = {"model": model.name, "version": model.version, "photo": photo}
    fields |= {"text": source.text, "second": source.second, "truncate": truncate}
    for one in beside:
        fields |= {"beside_model": one.name, "beside_version": one.version}
    fields |= _parts(model, view, options)
    fields |= {
        "query": _one("--row", options.rows),
        "words_only": options.drop_special,
        "arcs": view == "arcs",
        "charts": view in CHARTS,
        "multiples": style.multiples,
        "common": style.common_scale,
        "curve": style.curve,
        "clip": style.percentile,
        "opacity": style.opacity,
        "rough": not style.smooth,
        "contour": style.contour is not None,
    }
    return {name: _said(value) for name, value in fields.items() if value is not None and value is not False}


def _said(value: object) -> str:
    return "true" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _refuse_what_is_not_there(options: ViewOptions, style: PictureStyle, *, is_photo: bool) -> None:
    for given in (options, style):
        for field in dataclasses.fields(given):
            if field.name in _NOT_ON_PAGE and getattr(given, field.name) != field.default:
                raise InputError(f"{_NOT_ON_PAGE[field.name]}: the page has no such thing; expected none with --open")
    if style.contour not in (None, _PAGE_CONTOUR):
        raise InputError(f"--contour {style.contour:g}: the page draws it around 60 percent; expected 60 with --open")
    if options.drop_special and is_photo:
        raise InputError("--drop-special: the page has that for texts; expected none with --open")
    if options.measure == "contribution":
        raise InputError("--measure contribution: the page has contribution_rollout; expected that with --open")


def _parts(model: Model, view: View, options: ViewOptions) -> dict[str, Any]:
    """Name layers and heads: of two of either the second stands beside, and arcs are of as many heads as there are."""
    layers = [_layer(model, layer, options) for layer in options.layers or (-1,)]
    heads: list[Any] = [options.reduce] if options.reduce else list(options.heads) or [None]
    if any(isinstance(head, int) and head < 0 for head in heads):
        raise InputError(f"--head {min(options.heads)}: expected a number from 0 with --open")
    fields: dict[str, Any] = {"layer": layers[0], "head": heads[0]}
    if options.kind is None and options.measure in ("rollout", "contribution_rollout"):
        fields["measure"] = options.measure
    elif options.kind or (model.generation and options.measure):
        fields["measure"] = step_kind(options, model) or options.measure or "weights"
    if view == "arcs" and len(heads) > 1:
        fields |= {"head": None, "arc_heads": ".".join(map(str, heads))}
        heads = [None]
    if len(layers) == 1 and len(heads) == 1:
        return fields
    if len(layers) > 2 or len(heads) > 2 or len(layers) == len(heads):
        raise InputError("--layer, --head: the page shows two pictures; expected two layers or two heads with --open")
    second = f"{layers[1]}." if len(layers) == 2 else f".{heads[1]}"
    return fields | {"beside": second}


def _layer(model: Model, number: int, options: ViewOptions) -> int:
    if step_kind(options, model) and model.generation:
        layers = list(range(model.generation.num_layers))
    else:
        layers = [layer.layer for layer in model.attention_layers]
    try:
        return layers[number]
    except IndexError as error:
        raise InputError(f"--layer {number}: expected from {-len(layers)} to {len(layers) - 1}") from error


def _one(option: str, numbers: Sequence[int]) -> int | None:
    if len(numbers) > 1 or any(number < 0 for number in numbers):
        raise InputError(
            f"{option} {', '.join(map(str, numbers))}: the page shows one; expected one from 0 with --open"
        )
    return numbers[0] if numbers else None


def _ask(address: Address, method: str, path: str, body: bytes | None = None) -> dict[str, Any] | None:
    """Ask a page that runs; None where nothing answers.

    Raises:
        InputError: What answers is no explorer, or it refuses.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_SECONDS)
    where = f"--page {address.host}:{address.port}"
    try:
        connection.request(method, path, body)
        told = json.loads(connection.getresponse().read())
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{where}: what answers there is no page of regard ({error}); expected one or none") from error
    finally:
        connection.close()
    if not isinstance(told, dict) or not ({"models", "photo", "message"} & told.keys()):
        raise InputError(f"{where}: what answers there is no page of regard; expected one or none")
    if "message" in told:
        raise InputError(f"{where}: {told['message']}")
    return told
