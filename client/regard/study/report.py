"""The page of a study: heat maps of layers and heads, heads by rank, inputs that excite them, and drift; no script."""

import html
import math
from string import Template

import numpy as np

from regard.attention import Statistic
from regard.html_page import html_page
from regard.study.drift import Change, Drift
from regard.study.folder import put
from regard.study.heatmaps import diverging, head_name, heat_map, number_text, sequential
from regard.study.results import RankedHead, Study
from regard.study.thumbnails import Thumbnails

_RANKED, _SHOWN_HEADS, _SHOWN_EXAMPLES, _CHANGES = 3, 3, 6, 12
MEANINGS: dict[Statistic, str] = {
    "entropy": "Entropy of a row: 0 for one key, ln(keys) for all alike",
    "distance": "Distance between query and key, weighted by the attention",
    "first": "Attention to position 0, the class token or the first token",
    "separator": "Attention to special tokens behind position 0",
    "registers": "Attention to prefix tokens behind the class token",
    "special": "Attention to special or prefix tokens",
    "sink": "Attention to the one key that gets most",
    "previous": "Attention to the position before",
    "next": "Attention to the position behind",
    "current": "Attention to the position itself",
    "duplicate": "Attention to earlier occurrences of the same token",
    "induction": "Attention to tokens behind earlier occurrences of the same token",
    "region": "Attention to the given spans or boxes",
    "norm": "Length of what is added",
}
_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --faint: #d4d4d4; --card: #f7f7f8; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #101014; --faint: #3a3a42; --card: #18181d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 92rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0; }
h4 { font-size: .9rem; margin: .75rem 0 .25rem; }
p { margin: .25rem 0; max-width: 70ch; }
a { color: inherit; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1rem; }
dt { opacity: .75; }
dd { margin: 0; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--faint); border-radius: .5rem; padding: .75rem 1rem;
  min-width: 0; }
.what { opacity: .8; font-size: .85rem; min-height: 3em; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; fill: var(--ink); font: 11px system-ui, sans-serif; }
ol, ul { margin: .25rem 0; padding-left: 1.25rem; font-size: .85rem; }
.examples { display: flex; flex-wrap: wrap; gap: .5rem; padding: 0; margin: 0; list-style: none; }
.examples li { width: 6.5rem; font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere; }
.examples.texts { display: block; padding-left: 0; }
.examples.texts li { width: auto; font-size: .85rem; padding: .15rem 0; border-bottom: 1px solid var(--faint); }
.examples img { display: block; width: 6.5rem; height: 6.5rem; object-fit: cover; border-radius: .25rem; }
.number { opacity: .75; font-variant-numeric: tabular-nums; }
summary { cursor: pointer; padding: .35rem 0; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font: .8rem/1.4 ui-monospace, monospace; }
th, td { padding: .1rem .5rem; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap; }
td.text { text-align: left; }
@media print { details { display: none; } }
"""
_BODY = Template("""$drift
<h2>Layers and heads</h2>
<p>Means over the inputs. The colours of each statistic run from 0 to its largest mean; pointing at a cell tells mean,
standard deviation and number of inputs. What each number can and cannot tell: the documentation's page on studies.</p>
<div class="cards">
$maps
</div>
<h2>Inputs that excite a head most</h2>
<p>Of the three heads with the largest mean, the inputs on which the number is largest.</p>
$examples
<h2>All means</h2>
<p>heads.csv beside this page has them with standard deviations; values.zarr and tables the number of each input.</p>
$tables""")


def write_report(study: Study, drift: Drift | None = None) -> None:
    """Write report.html into a study's folder: one file that loads nothing and may be mailed.

    Args:
        study: What it shows.
        drift: How it differs from another; None to compare with none.

    Raises:
        OSError: It cannot be written.
    """
    put(study.path / "report.html", report_html(study, drift).encode())


def report_html(study: Study, drift: Drift | None = None) -> str:
    """Return the text of the page; see `write_report`."""
    thumbnails = Thumbnails()
    body = _BODY.substitute(
        drift=_drift(drift) if drift else "",
        maps="\n".join(_card(study, statistic) for statistic in study.statistics),
        examples="\n".join(_examples(study, statistic, thumbnails) for statistic in study.statistics),
        tables="\n".join(_table(study, statistic) for statistic in study.statistics),
    )
    return html_page(f"Heads of {study.model} over {study.num_inputs:,} inputs", _facts(study), body, _CSS)


def _facts(study: Study) -> list[tuple[str, str]]:
    asked, errors = study.folder.asked, study.folder.num_errors
    counted = [
        "contributions of all heads together" if asked["contributions"] else "attention weights",
        *(["times the lengths of values"] if asked["value_weighted"] else []),
        *(["without special positions"] if asked["drop_special"] else []),
        *(["the class token's row alone"] if asked["cls_only"] else []),
    ]
    inputs = f"{study.num_inputs:,} {asked['kind']}" + (
        f", {errors:,} with errors, which do not count" if errors else ""
    )
    found = [("model", f"{study.model} {study.version}"), ("inputs", inputs), ("counted", ", ".join(counted))]
    regions = [f"{start} to {end}" for start, end in asked["spans"]]
    regions += ["({:g}, {:g}, {:g}, {:g})".format(*box) for box in asked["boxes"]]
    return [*found, *([("region", "; ".join(regions))] if regions else [])]


def _name(head: RankedHead | Change) -> str:
    return head_name(head.layer, head.head)


def _card(study: Study, statistic: Statistic) -> str:
    column, ranked, unit = study.column(statistic), study.rank(statistic), study.unit(statistic)
    moments, deviations = study.moments, study.moments.variance**0.5
    end = max((head.mean for head in ranked), default=0.0)
    cells = heat_map(
        study.layers,
        lambda at, place: None if not moments.count[at, place, column] else float(moments.mean[at, place, column]),
        lambda value: sequential(value / end if end else 0),
        lambda at, place: (
            f"{number_text(moments.mean[at, place, column])} ± {number_text(deviations[at, place, column])}, "
            f"{moments.count[at, place, column]} inputs"
        ),
        (0.0, end),
        f"{statistic}: means of layers and heads, from 0 to {number_text(end)}",
    )
    top = "".join(f"<li>{_name(one)}: {_mean(one)}</li>" for one in ranked[:_RANKED])
    least = f"<p class='what'>Least: {_name(ranked[-1])}, {_mean(ranked[-1])}</p>" if ranked else ""
    what = f"{MEANINGS[statistic]} ({unit})."
    return f'<section class="card"><h3>{statistic}</h3><p class="what">{what}</p>{cells}<ol>{top}</ol>{least}</section>'


def _mean(head: RankedHead) -> str:
    return f'<span class="number">{number_text(head.mean)} ± {number_text(head.sd)}</span>'


def _examples(study: Study, statistic: Statistic, thumbnails: Thumbnails) -> str:
    parts = list[str]()
    for head in study.rank(statistic)[:_SHOWN_HEADS]:
        examples = study.examples(statistic, head.layer, head.head)[:_SHOWN_EXAMPLES]
        pictures = [thumbnails.image(one.name) for one in examples]
        items = "".join(
            f'<li>{picture}{html.escape(_short(one.name))} <span class="number">{number_text(one.value)}</span></li>'
            for one, picture in zip(examples, pictures, strict=True)
        )
        kind = "examples" if any(pictures) else "examples texts"
        parts.append(f'<h4>{_name(head)}</h4><ul class="{kind}">{items}</ul>')
    return f"<details><summary>{statistic}</summary>{''.join(parts)}</details>"


def _short(name: str) -> str:
    name = name.rsplit("/", 1)[-1] if "\n" not in name and " " not in name else name
    return name if len(name) <= 160 else f"{name[:159]}…"


def _table(study: Study, statistic: Statistic) -> str:
    column, most = study.column(statistic), max(len(heads) for _, heads in study.layers)
    means = np.where(study.moments.count > 0, study.moments.mean, np.nan)
    head = "".join(f'<th scope="col">head {number}</th>' for number in range(most))
    rows = "".join(
        f'<tr><th scope="row">layer {layer}</th>'
        + "".join(f"<td>{number_text(means[at, place, column])}</td>" for place in range(len(heads)))
        + "</tr>"
        for at, (layer, heads) in enumerate(study.layers)
    )
    table = f"<table><tr><td></td>{head}</tr>{rows}</table>"
    return f'<details><summary>{statistic}</summary><div class="scroll">{table}</div></details>'


def _drift(drift: Drift) -> str:
    before, changes = drift.before, drift.changes()
    clear = sum(one.is_clear for one in changes)
    rows = "".join(
        f'<tr><td class="text">{one.statistic}</td><td class="text">{_name(one)}</td>'
        f"<td>{one.before:.3g} to {one.after:.3g}</td><td>{_effect(one.effect, one.low, one.high)}</td>"
        f"<td>{'yes' if one.is_clear else 'no'}</td></tr>"
        for one in changes[:_CHANGES]
    )
    how = "the same inputs, compared one by one" if drift.is_paired else "other inputs"
    end = max((abs(one.effect) for one in changes if math.isfinite(one.effect)), default=0.0) or 1.0
    maps = "".join(_drift_card(drift, statistic, end) for statistic in drift.after.statistics)
    against = html.escape(f"{before.model} {before.version} over {before.num_inputs:,} inputs ({before.path.name})")
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("statistic", "where", "means", "effect", "clear"))
    return f"""<h2>Drift</h2>
<p>Against {against}: {how}. Effects are differences of means in standard deviations (Hedges' g) with 95 % intervals.
{clear:,} of {len(changes):,} are clear: their intervals, widened for that many comparisons, leave out 0; others are
pale. Of thousands of inputs a small effect is clear, too: its size says whether it matters (0.2 is called small, 0.8
large).</p>
<div class="scroll"><table><tr>{heads}</tr>{rows}</table></div>
<div class="cards">{maps}</div>"""


def _effect(effect: float, low: float, high: float) -> str:
    if math.isinf(effect):
        return f"{'+' if effect > 0 else '-'}∞ (constant in both)"
    return f"{effect:+.2f} [{low:+.2f}, {high:+.2f}]"


def _drift_card(drift: Drift, statistic: Statistic, end: float) -> str:
    column = drift.after.column(statistic)

    def value(at: int, place: int) -> float | None:
        found = float(drift.effect[at, place, column])
        return None if found != found else found

    cells = heat_map(
        drift.after.layers,
        value,
        lambda found: diverging(found / end),
        lambda at, place: _effect(*(one[at, place, column] for one in (drift.effect, drift.low, drift.high))),
        (-end, end),
        f"{statistic}: effects of layers and heads, from {-end:.2f} to {end:.2f}",
        is_pale=lambda at, place: not drift.is_clear[at, place, column],
        colour_of_share=lambda share: diverging(2 * share - 1),
    )
    return f'<section class="card"><h3>{statistic}</h3>{cells}</section>'
