// Everything that shows an answer: title, who looks, one or two panels, every head.

/** @import { Head, Measure, Model, Picture, PictureEvents, PictureView, Places, Query, Scale, Seen } from "../types.d.ts" */
/** @import { Side, SidePicture, State, Unit, ViewEvents } from "../types.d.ts" */

import { HEAT_OPACITY } from "./colour.js";
import { byId, choice, make, setText } from "./dom.js";
import { headGrid } from "./heads.js";
import { isWritten, layerOf, layersOf } from "./measures.js";
import { exact, look, overlap, said, topOf } from "./numbers.js";
import { Panel } from "./panel.js";
import { isPinned, lookerOf, nameOf, prefixOf } from "./places.js";
import { endOf, endOfAll, endTimes, toldMatrix, unitOf, widest } from "./scales.js";
import { headOf, REDUCTIONS } from "./state.js";

/**
 * A head or a reduction in words.
 * @param {Head} head
 * @param {number} count
 */
const headName = (head, count) => (typeof head === "number" ? `head ${head}` : `${head} of ${count} heads`);

/**
 * Whether rows of a layer are no shares of 1.
 * @param {Model} model
 * @param {{ layer: number }} layer
 * @param {Measure} measure
 */
export const isMixed = (model, { layer }, measure) =>
  measure === "similarity" || (measure === "weights" && Boolean(model.layers[layer]?.mixes_heads));

/**
 * What is shown of whom, as a heading.
 * @param {Seen} shown
 */
function looksOf({ main, query, measure }) {
  const looker = lookerOf(main.reply, query);
  if (measure === "similarity") return `What is like ${looker}`;
  return `What ${looker} ${query === "all" && main.reply.tokens ? "attend" : "attends"} to`;
}

const darkness = window.matchMedia("(prefers-color-scheme: dark)");
const touch = window.matchMedia("(hover: none)");
/** What is said of these before the layer. */
const PARTS = { cross: ["alignment"], causal: ["decoder"], weights: ["encoder"] };

/**
 * The title of a picture.
 * @param {SidePicture} picture
 */
function titleOf({ side: { model, measure }, layer: { layer }, head }) {
  if (measure === "similarity") return `${model.name} · similarity after layer ${layer}`;
  if (measure === "contribution_rollout") return `${model.name} · contributions to layer ${layer} · all heads`;
  const what = measure === "rollout" ? `rollout to layer ${layer}` : `layer ${layer}`;
  const part = model.writer && measure !== "rollout" ? PARTS[measure] : [];
  const { num_heads } = layerOf(model, measure, layer);
  return [model.name, ...part, what, headName(head, num_heads)].join(" · ");
}

/**
 * What attends to what, for a screen reader.
 * @param {Seen} seen
 */
export function spokenOf({ main, query, model, measure, state }) {
  const row = look(main.layer, main.head, query);
  const [most] = topOf(row, 1);
  const unit = unitOf(main.layer, query, { multiples: state.multiples, mixed: isMixed(model, main.layer, measure) });
  const attends = measure === "similarity" ? "is most like" : "attends most to";
  return `${lookerOf(main.reply, query)} ${attends} ${nameOf(main.reply, most)}, ${said(row[most], unit)}`;
}

/**
 * The scale of a picture: its own end, and where every head has the same, that of all of them.
 * @param {State} state
 * @param {Picture} part
 * @param {Float32Array[]} numbers
 * @param {Query} query
 * @param {Unit} unit
 * @returns {Scale}
 */
function scaleOf(state, { layer, reply }, numbers, query, unit) {
  const isText = Boolean(reply.tokens);
  /** @type {Scale} */
  const scale = {
    ...endOfAll(layer, numbers, state.clip),
    curve: state.curve ?? (isText ? "sqrt" : "linear"),
    chosen: state.clip,
    opacity: state.opacity ?? HEAT_OPACITY,
    smooth: state.smooth,
    contour: state.contour,
    common: null,
  };
  if (!state.common) return scale;
  const heads = Array.from({ length: layer.shape[0] }, (_, head) =>
    isText ? toldMatrix(layer, head, unit) : look(layer, head, query).subarray(prefixOf(reply)),
  );
  const common = endOfAll(layer, heads, state.clip);
  return { ...scale, ...common, common };
}

/**
 * The numbers that a picture draws: a row over patches, a whole matrix between tokens, or that of each head with arcs.
 * @param {Picture & { row: Float32Array, unit: Unit, heads: number[] }} view
 */
function toldNumbers({ layer, head, heads, reply, row, unit }) {
  if (!reply.tokens) return [row.subarray(prefixOf(reply))];
  return (heads.length ? heads : [head]).map((one) => toldMatrix(layer, one, unit));
}

/** A place for the title of one of two pictures. */
const titleNode = () => make("div", { class: "title" }, make("strong"), make("span", { class: "fine" }));

/**
 * Write the title of one of two pictures, and who looks in it, where that is not who looks in the other.
 * @param {Element} node
 * @param {PictureView} view
 * @param {PictureView} beside
 */
function writeTitle({ children: [title, looks] }, view, beside) {
  const looker = lookerOf(view.reply, view.query);
  setText(title, view.title);
  setText(looks, looker === lookerOf(beside.reply, beside.query) ? "" : `of ${looker}`);
}

/**
 * What the second picture may be of; first of all the layer of the first.
 * @param {Side} side
 */
const layerOptions = ({ model, measure }) => [
  { value: "", text: "same layer" },
  ...layersOf(model, measure).map(({ layer }) => ({ value: String(layer), text: `layer ${layer}` })),
];

/** @param {number} count */
const headOptions = (count) => [
  { value: "", text: "same heads" },
  ...[...REDUCTIONS, ...Array(count).keys()].map((head) => ({
    value: String(head),
    text: typeof head === "number" ? `head ${head}` : `${head} of heads`,
  })),
];

/**
 * How much two rows share, or why that cannot be said.
 * @param {PictureView} first
 * @param {PictureView} second
 */
function overlapOf(first, second) {
  const [one, two] = [first.side, second.side];
  if (one.measure !== two.measure)
    return `${two.model.name} has no such measure: it shows another, on a scale of its own.`;
  const input = one.state.input === "photo" ? "photo" : "text";
  if (one.state[input] !== two.state[input]) return "Both have one scale. What is pointed at in one is shown in both.";
  if (one.measure === "similarity") return "Cosines are no shares of 1 to compare.";
  if (first.unit.mixed || second.unit.mixed)
    return "Heads of these layers are mixed: their rows are no shares of 1 to compare.";
  if (first.row.length !== second.row.length)
    return one.model === two.model
      ? "The two layers have grids of their own: their rows have no weights to compare."
      : `The two models divide the ${input} in their own ways: their rows have no weights to compare.`;
  const shared = exact(Number(overlap(first.row, second.row).toPrecision(3)));
  return `The two rows share ${shared} of their weight (1: they are the same; 0: they attend to different places).`;
}

/** Shows one answer, or two side by side. `events`: those of a panel; head(n), query(q), release(), other(fields). */
export class View {
  /** @param {ViewEvents} events */
  constructor(events) {
    this.events = events;
    /** @type {PictureEvents} */
    const ofSecond = {
      point: (position, first) => events.point(position, first, true),
      scrub: (position, first) => events.scrub(position, first, true),
      cell: (query, key) => events.cell(query, key, true),
      pin: (position, first) => events.pin(position, first, true),
      key: events.key,
      release: events.release,
      arcHead: events.arcHead,
    };
    this.panels = [new Panel(events, "First picture"), new Panel(ofSecond, "Second picture")];
    this.panels[0].caption.append(titleNode());
    this.grid = headGrid(events.head);
    byId("panels").append(...this.panels.map((panel) => panel.node));
    byId("heads").append(this.grid.node);
  }

  /**
   * Draw what is seen.
   * @param {Seen} shown
   */
  draw(shown) {
    byId("shown").hidden = false;
    byId("empty").hidden = true;
    const { main, measure } = shown;
    const [first, second = null] = this.viewsOf(shown); // asks for a style, which is known as long as nothing is written
    setText(byId("title"), titleOf(main));
    setText(byId("looks"), looksOf(shown));
    setText(byId("written"), main.reply.writing?.text.trim() ?? "");
    this.panels[0].draw(first);
    const { caption } = this.panels[0];
    caption.hidden = !second;
    if (second) writeTitle(/** @type {Element} */ (caption.firstElementChild), first, second);
    this.panels[1].node.hidden = !second;
    byId("panels").classList.toggle("two", Boolean(second));
    if (second) this.drawSecond(first, second, shown);
    byId("overlap").hidden = !second;
    byId("on-photo").hidden = Boolean(main.reply.tokens);
    byId("on-text").hidden = !main.reply.tokens || Boolean(main.reply.writing);
    this.drawQueries(shown);
    const hasHeads = measure === "weights" || isWritten(measure);
    byId("every-head").hidden = !hasHeads;
    if (hasHeads) this.grid.draw(first);
  }

  /**
   * The views that are seen, with the canvases they are drawn on, for a download.
   * @param {Seen} shown
   */
  pictures(shown) {
    return this.viewsOf(shown).map((view, at) => ({ ...view, canvas: this.panels[at].photo.node }));
  }

  /**
   * The views of what is seen; two beside each other have one scale, unless they show different things.
   * @param {Seen} seen
   */
  viewsOf(seen) {
    const { main, other, beside, state } = seen;
    const first = this.viewOf(main, seen, seen);
    if (!other || !beside) return [first];
    const isSamePhoto = main.side.state.photo === other.side.state.photo;
    const views = [first, { ...this.viewOf(other, beside, seen), home: isSamePhoto ? main.reply.patches : null }];
    if (main.side.measure !== other.side.measure) return views;
    // In multiples of 1/N colours are those of multiples: of two models each has its own N.
    const counts = views.map(({ unit }) => unit.count ?? 1);
    const told = views.map(({ unit }, at) => (unit.byRow ? 1 : counts[at]));
    const numbers = views.map(toldNumbers);
    const times = numbers.flatMap((lists, at) => lists.map(() => told[at]));
    const end = first.scale.common
      ? widest(views.map(({ scale }, at) => endTimes(scale, told[at])))
      : endOfAll(main.layer, numbers.flat(), state.clip, times);
    const rows = views.map(({ row }) => row);
    const rowEnd = endOfAll(main.layer, rows, state.clip, counts);
    return views.map((view, at) => ({
      ...view,
      rowEnd: endTimes(rowEnd, 1 / counts[at]),
      scale: { ...view.scale, ...endTimes(end, 1 / told[at]) },
    }));
  }

  /**
   * @param {SidePicture} part
   * @param {Places} places
   * @param {Seen} seen
   * @returns {PictureView}
   */
  viewOf(part, { query: looker, key }, { state, query: first }) {
    const { model, measure } = part.side;
    const query = part.layer.class_attention ? 0 : looker;
    const row = look(part.layer, part.head, query);
    const mixed = isMixed(model, part.layer, measure);
    const unit = {
      ...unitOf(part.layer, query, { multiples: state.multiples, mixed }),
      cosine: measure === "similarity",
    };
    const [count] = part.layer.shape;
    const heads = state.arcs && part.reply.tokens && count > 1 ? state.arc_heads.filter((head) => head < count) : [];
    const numbers = toldNumbers({ ...part, row, unit, heads });
    return {
      ...part,
      home: null,
      query,
      key,
      row,
      rowEnd: endOf(part.layer, row, state.clip),
      scale: scaleOf(state, part, numbers, query, unit),
      unit,
      pinned: isPinned(part.reply, query) && state.query === first,
      title: titleOf(part),
      ink: getComputedStyle(document.body).color,
      text: state.reading && part.reply.tokens && !part.reply.writing ? part.side.state.text : null,
      arcs: state.arcs,
      heads,
      dark: darkness.matches,
    };
  }

  /**
   * @param {PictureView} first
   * @param {PictureView} second
   * @param {Seen} seen
   */
  drawSecond(first, second, { state }) {
    const { model, measure } = second.side;
    const [layer, head] = [state.other?.layer ?? null, state.other?.head ?? null];
    const signature = JSON.stringify([model.name, model.version, layer, head, measure, second.layer.layer]);
    const { caption } = this.panels[1];
    if (caption.dataset.signature !== signature) {
      caption.dataset.signature = signature;
      const count = layerOf(model, measure, second.layer.layer).num_heads;
      caption.replaceChildren(
        titleNode(),
        choice("Layer of the second picture", layerOptions(second.side), layer ?? "", (value) =>
          this.events.other({ layer: value ? Number(value) : null }),
        ),
        choice("Head of the second picture", headOptions(count), head ?? "", (value) =>
          this.events.other({ head: value ? headOf(value) : null }),
        ),
      );
    }
    writeTitle(/** @type {Element} */ (caption.firstElementChild), second, first);
    this.panels[1].draw(second);
    setText(byId("overlap"), overlapOf(first, second));
  }

  /** @param {Seen} shown */
  drawQueries({ main, state, query }) {
    const { reply } = main;
    /** @type {Query[]} */
    const fixed = [...Array(prefixOf(reply)).keys(), "all"];
    const signature = JSON.stringify([fixed, Boolean(reply.tokens)]);
    const host = byId("queries");
    if (host.dataset.signature !== signature) {
      host.dataset.signature = signature;
      /** @param {Query} position */
      const words = (position) =>
        position === "all" ? (reply.tokens ? "all tokens" : "whole picture") : nameOf(reply, position);
      host.replaceChildren(
        ...fixed.map((position) =>
          make("button", {
            type: "button",
            class: "chip",
            value: String(position),
            text: words(position),
            click: () => this.events.query(position),
          }),
        ),
      );
    }
    for (const button of host.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === String(query)));
    const pinned = isPinned(reply, state.query);
    byId("release").classList.toggle("pinned", pinned);
    const hint = pinned
      ? "Pinned. “Release” or the Escape key lets the pointer choose again."
      : reply.tokens
        ? `${touch.matches ? "Tap" : "Point at"} a ${reply.writing ? "written token" : "token"}${touch.matches ? "" : " or use the arrow keys; click or Enter pins"}.`
        : `${touch.matches ? "Tap a patch, or drag sideways over the picture" : "Point at a patch or use the arrow keys; click or Enter pins"}.`;
    setText(byId("hint"), hint);
  }
}
