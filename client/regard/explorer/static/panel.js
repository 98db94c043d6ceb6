// One picture with its scale and what it says in numbers: a photo, or tokens and matrix.

/** @import { End, PictureEvents, PictureView, Scale, Unit } from "../types.d.ts" */

import { arcsView } from "./arcs.js";
import { heatTable, paintStrip, viridisTable } from "./colour.js";
import { contextOf, make, setText } from "./dom.js";
import { matrixView } from "./matrix.js";
import { exact, said, topOf } from "./numbers.js";
import { photoView } from "./photo.js";
import { isPhoto, isText, lookerOf, nameOf, prefixOf } from "./places.js";
import { weightAt } from "./scales.js";
import { readLine, tokenLine, writtenLine } from "./tokens.js";

const TOP_COUNT = 5;
const VIRIDIS_TABLE = viridisTable();
/** @type {Unit} */
const SHARE = { count: null, mixed: false };

/** A figure; `events` as photo.js and text.js name them, `label` tells two panels apart. */
export class Panel {
  /**
   * @param {PictureEvents} events
   * @param {string} label
   */
  constructor(events, label) {
    this.photo = photoView(events);
    this.lines = { text: tokenLine(events, label), read: readLine(events, label), written: writtenLine(events, label) };
    this.matrix = matrixView(events);
    this.arcs = arcsView(events);
    this.caption = make("figcaption");
    this.body = make("div", { class: "body" });
    this.scale = scale();
    this.told = make("p", { class: "told" });
    this.top = new TopList(events);
    this.instead = make("ol", { class: "top" });
    this.choices = make(
      "div",
      { class: "choices" },
      make("p", { class: "fine", text: "Likeliest here" }),
      this.instead,
    );
    const reading = make("div", { class: "reading" }, this.scale.node, this.told, this.top.node, this.choices);
    const lines = Object.values(this.lines).map((line) => line.node);
    this.node = make("figure", { class: "panel" }, this.caption, ...lines, this.body, reading);
  }

  /**
   * Draw a view.
   * @param {PictureView} view
   */
  draw(view) {
    const ofText = isText(view);
    const between = view.arcs ? this.arcs : this.matrix;
    const { node } = ofText ? between : this.photo;
    if (this.body.firstChild !== node) this.body.replaceChildren(node);
    this.node.classList.toggle("of-text", ofText);
    const writes = Boolean(view.reply.writing);
    this.lines.text.node.hidden = !ofText || writes;
    for (const line of [this.lines.read, this.lines.written]) line.node.hidden = !writes;
    if (isText(view)) {
      for (const line of writes ? [this.lines.read, this.lines.written] : [this.lines.text]) line.draw(view);
      between.draw(view);
    }
    if (isPhoto(view)) this.photo.draw(view);
    const start = prefixOf(view.reply);
    const shown = view.row.subarray(start);
    const scale = ofText ? { ...view.scale, ...view.rowEnd } : view.scale;
    this.scale.draw(scale, view.unit, ofText);
    setText(this.told, tell(view));
    this.top.draw(
      view,
      topOf(shown, TOP_COUNT).map((key) => start + key),
      scale.largest,
    );
    const might = typeof view.query === "number" ? (view.reply.writing?.tokens[view.query].alternatives ?? []) : [];
    this.choices.hidden = might.length === 0;
    this.instead.replaceChildren(
      ...might.map(({ text, log_probability }) => entry(text, Math.exp(log_probability), 1, SHARE)),
    );
  }
}

/**
 * What stands below the picture: the weight under the pointer, or how much lies on what is no patch.
 * @param {PictureView} view
 */
export function tell({ reply, row, query, key, pinned, unit, scale }) {
  if (key !== null) {
    const told = unit.mixed ? "" : ` (${said(row[key], unit)})`;
    return `${exact(row[key])}${told} from ${lookerOf(reply, query)} to ${nameOf(reply, key)}`;
  }
  if (unit.cosine)
    return "Cosines of the vectors that leave this layer: 1 points the same way, 0 has nothing in common.";
  if (unit.mixed) return "Heads of this layer are mixed: weights are no shares of 1.";
  if (prefixOf(reply) > 0) {
    const apart = row.subarray(0, prefixOf(reply)).reduce((sum, weight) => sum + weight, 0);
    const who = prefixOf(reply) > 1 ? "class token and registers" : "the class token";
    return `${said(apart, SHARE)} lies on ${who}, the rest on patches.`;
  }
  if (pinned) return `Pinned. Point at a ${reply.tokens ? "token" : "patch"} to read its weight.`;
  return reply.tokens && scale.curve === "sqrt" ? "Colours follow the square root of the weight." : "";
}

/** What is attended to most. Entries stay while others are written into them; pointing at one lights its place up. */
class TopList {
  /** @param {PictureEvents} events */
  constructor(events) {
    /** @type {number[]} */
    this.keys = [];
    const leave = () => events.cell(null, null);
    this.entries = Array.from({ length: TOP_COUNT }, (_, at) => {
      const enter = () => events.cell(null, this.keys[at]);
      return make("li", { tabindex: "0", pointerenter: enter, pointerleave: leave, focus: enter, blur: leave });
    });
    this.node = make("ol", { class: "top lit" }, ...this.entries);
  }

  /**
   * @param {PictureView} view
   * @param {number[]} keys
   * @param {number} largest
   */
  draw({ reply, row, unit, key: pointed }, keys, largest) {
    this.keys = keys;
    for (const [at, node] of this.entries.entries()) {
      const key = keys[at];
      node.hidden = key === undefined;
      if (key === undefined) continue;
      if (!node.firstChild) node.append(...entry("", 0, 1, unit).childNodes);
      write(node, nameOf(reply, key), row[key], largest, unit);
      node.classList.toggle("pointed", key === pointed);
    }
  }
}

/**
 * @param {string} name
 * @param {number} share
 * @param {number} largest
 * @param {Unit} unit
 */
function entry(name, share, largest, unit) {
  const bar = make("span", { class: "bar" }, make("i", { "aria-hidden": "true" }));
  const node = make("li", {}, make("span", { class: "name" }), bar, make("span", { class: "value" }));
  write(node, name, share, largest, unit);
  return node;
}

/**
 * @param {HTMLElement} node
 * @param {string} name
 * @param {number} share
 * @param {number} largest
 * @param {Unit} unit
 */
function write(node, name, share, largest, unit) {
  const [named, bar, value] = /** @type {HTMLElement[]} */ ([...node.children]);
  setText(named, name);
  /** @type {HTMLElement} */ (bar.firstElementChild).style.width = `${(100 * share) / (largest || 1)}%`;
  setText(value, said(share, unit));
  value.title = exact(share);
}

/** A strip of the colours from 0 to the end of the scale. */
function scale() {
  const strip = make("canvas", { class: "strip", width: "256", height: "24", "aria-hidden": "true" });
  const ticks = [make("span"), make("span"), make("span")];
  const beyond = make("p", { class: "beyond" });
  /** @type {Uint8ClampedArray<ArrayBuffer> | null} */
  let painted = null;
  return {
    node: make("div", { class: "scale" }, strip, make("div", {}, ...ticks), beyond),
    /**
     * @param {Scale} scale
     * @param {Unit} unit
     * @param {boolean} isText
     */
    draw(scale, unit, isText) {
      const table = isText ? VIRIDIS_TABLE : heatTable(scale.opacity);
      if (table !== painted)
        paintStrip(contextOf(strip), { x: 0, y: 0, width: strip.width, height: strip.height }, table, !isText);
      painted = table;
      const told = ticksOf(scale, unit);
      for (const [at, tick] of ticks.entries()) setText(tick, told[at]);
      setText(beyond, beyondOf(scale, unit));
    },
  };
}

/**
 * What stands at the beginning, the middle and the end of a scale.
 * @param {Scale} scale
 * @param {Unit} unit
 */
export function ticksOf(scale, { count }) {
  const numbers = [0, 0.5, 1].map((share, at) =>
    exact(Number((weightAt(scale, share) * (count ?? 1)).toPrecision(at === 2 ? 3 : 2))),
  );
  return [...numbers.slice(0, 2), `${numbers[2]}${count ? " / N" : ""}${scale.largest > scale.end ? " ▸" : ""}`];
}

/**
 * What lies beyond the end of a scale, or nothing.
 * @param {End} scale
 * @param {Pick<Unit, "count">} unit
 */
export function beyondOf({ end, largest, percentile }, { count }) {
  if (largest <= end) return "";
  const which = percentile < 100 ? `at the ${percentile}th percentile` : "earlier";
  return `The scale ends ${which}; the largest is ${exact(Number((largest * (count ?? 1)).toPrecision(3)))}.`;
}
