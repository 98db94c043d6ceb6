// Attention between tokens as arcs, as BertViz's head view: who attends on the left, what is attended to on the right.

/** @import { PictureEvents, Query, TextView, Token } from "../types.d.ts" */

import { LINES, lineOfHead } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { numberOf } from "./numbers.js";
import { lookersOf } from "./places.js";
import { toldMatrix } from "./scales.js";
import { fitted } from "./text.js";

const [LINE, MAX_WIDTH, GAP] = [22, 620, 8];
/** @param {number} width How much of it each side's words take */
const labelOf = (width) => Math.min(130, 0.29 * width);
const MAX_PIXELS = 16000; // of a canvas, in height
const MIN_SHARE = 0.02; // of the largest; fainter arcs cannot be seen
const FAINT = 0.12;
const REST = 0.7; // of the ink, of words that are not looked at
const FONT = "13px ui-monospace, Menlo, Consolas, monospace";

/** Pixels that are drawn, and that are not, by turns. */
export const DASHES = { solid: [], dashed: [6, 4], dotted: [1.5, 3] };

/** @typedef {{ query: number, key: number, share: number }} Arc */
/** @typedef {{ width: number, line: number, fineness: number }} Place How wide all is, and a line high, in CSS pixels */

/**
 * The arcs of a matrix, the faintest first: from a query, or from all; to a key, or to all (null).
 * @param {{ matrix: Float32Array, keys: number, end: number, query: Query, key: number | null }} seen
 * @returns {Arc[]}
 */
export function arcsOf({ matrix, keys, end, query, key }) {
  /** @type {Arc[]} */
  const arcs = [];
  const [firstQuery, lastQuery] = query === "all" ? [0, matrix.length / keys - 1] : [query, query];
  const [firstKey, lastKey] = key === null ? [0, keys - 1] : [key, key];
  for (let from = firstQuery; from <= lastQuery; from++) {
    for (let to = firstKey; to <= lastKey; to++) {
      const weight = matrix[from * keys + to];
      if (weight >= MIN_SHARE * end) arcs.push({ query: from, key: to, share: Math.min(1, weight / end) });
    }
  }
  return arcs.sort(byShare);
}

/**
 * The arcs as an element. `events`: cell(query, key), of which one is null, or both, and pin(query).
 * @param {PictureEvents} events
 */
export function arcsView(events) {
  const canvas = make("canvas", { class: "arcs", role: "img" });
  const legend = legendOf(events);
  const node = make("div", {}, legend.node, canvas);
  /** @type {TextView | null} */
  let view = null;
  /** @type {Place} */
  let place = { width: 0, line: 0, fineness: 1 };
  let available = 0;
  /**
   * @param {MouseEvent} event
   * @returns {[query: number, key: null] | [query: null, key: number | null]}
   */
  const at = (event) => {
    if (!view) return [null, null];
    const box = canvas.getBoundingClientRect();
    const [row, left] = [Math.floor((event.clientY - box.top) / place.line), event.clientX - box.left];
    const [, queries, keys] = view.layer.shape;
    const label = labelOf(place.width);
    if (left < label && row < queries) return [row, null];
    return [null, left > place.width - label && row < keys ? row : null];
  };
  const paint = () => {
    if (!view) return;
    const fineness = window.devicePixelRatio || 1;
    const count = Math.max(view.layer.shape[1], view.layer.shape[2]);
    const line = Math.min(LINE, MAX_PIXELS / fineness / count);
    place = { width: Math.min(MAX_WIDTH, available || MAX_WIDTH), line, fineness };
    paintAll(canvas, view, place);
  };
  new ResizeObserver(() => {
    if (!node.clientWidth || node.clientWidth === available) return;
    available = node.clientWidth;
    paint();
  }).observe(node);
  canvas.addEventListener("pointermove", (event) => {
    const [query, key] = at(event);
    if (event.pointerType === "mouse") events.cell(query, key);
  });
  canvas.addEventListener("pointerleave", () => events.cell(null, null));
  canvas.addEventListener("click", (event) => {
    const [query] = at(event);
    if (query !== null) events.pin(query);
  });
  return {
    node,
    /** @param {TextView} next */
    draw(next) {
      view = next;
      legend.draw(next);
      const heads = next.heads.length ? ` · arcs of heads ${next.heads.join(", ")}` : "";
      const label = `Which positions attend to which: ${next.title}${heads}; from left to right. The tokens have the same numbers.`;
      if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
      available ||= node.clientWidth;
      paint();
    },
  };
}

/**
 * Draw arcs and words; save.js draws the same for a download.
 * @param {HTMLCanvasElement} canvas
 * @param {TextView} view
 * @param {Place} place
 */
export function paintAll(canvas, view, place) {
  const { width } = place;
  const sheet = sheetOf(canvas, view, place);
  if (canvas.width !== sheet.width || canvas.height !== sheet.height) {
    Object.assign(canvas, { width: sheet.width, height: sheet.height });
    canvas.style.width = `${width}px`;
  }
  const context = contextOf(canvas);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalCompositeOperation = "copy";
  context.drawImage(sheet, 0, 0);
  context.globalCompositeOperation = "source-over";
  context.scale(place.fineness, place.fineness);
  if (isOfAll(view)) return;
  paintArcs(context, view, place, true);
  paintWords(context, view, place, true);
}

/** @param {TextView} view */
const isOfAll = ({ query, key }) => query === "all" && key === null;

/** @type {WeakMap<HTMLCanvasElement, { of: string, sheets: OffscreenCanvas[] }>} What is below, of each canvas */
const below = new WeakMap();

/**
 * What stays while one points, as large as the canvas: all words, and all arcs, faint unless they are all looked at.
 * Drawn once, since there are thousands.
 * @param {HTMLCanvasElement} canvas
 * @param {TextView} view
 * @param {Place} place
 */
function sheetOf(canvas, view, place) {
  const { layer, unit, scale, ink, dark } = view;
  const matrices = headsOf(view).map(({ head }) => numberOf(toldMatrix(layer, head, unit)));
  const of = JSON.stringify([matrices, view.heads, scale.end, place, ink, dark]);
  const kept = below.get(canvas);
  const sheets = kept?.of === of ? kept.sheets : [];
  below.set(canvas, { of, sheets });
  const ofAll = isOfAll(view);
  if (sheets[Number(ofAll)]) return sheets[Number(ofAll)];
  const [, queries, keys] = layer.shape;
  const height = place.line * Math.max(queries, keys);
  const sheet = new OffscreenCanvas(Math.round(place.width * place.fineness), Math.round(height * place.fineness));
  const context = contextOf(sheet);
  context.scale(place.fineness, place.fineness);
  const all = { ...view, query: /** @type {const} */ ("all"), key: null };
  paintArcs(context, all, place, ofAll);
  paintWords(context, all, place, ofAll);
  sheets[Number(ofAll)] = sheet;
  return sheet;
}

/**
 * The heads of a layer as buttons in the colours of their arcs. A press draws a head's arcs, or no longer.
 * @param {PictureEvents} events
 */
function legendOf(events) {
  const node = make("div", { class: "arc-heads", role: "group", "aria-label": "Heads whose arcs are drawn" });
  /** @type {HTMLButtonElement[]} */
  let buttons = [];
  return {
    node,
    /** @param {TextView} view */
    draw({ layer, heads, dark }) {
      const [count] = layer.shape;
      node.hidden = count < 2;
      const signature = JSON.stringify([count, dark]);
      if (node.dataset.signature !== signature) {
        node.dataset.signature = signature;
        buttons = Array.from({ length: count }, (_, head) => {
          const line = make("i", { "aria-hidden": "true" });
          const { colour, style } = lineOfHead(head, dark);
          line.style.borderTop = `3px ${style} ${colour}`;
          const label = `Arcs of head ${head}`;
          return make(
            "button",
            { type: "button", "aria-label": label, title: label, click: () => events.arcHead(head) },
            line,
            String(head),
          );
        });
        node.replaceChildren(make("span", { class: "name", text: "Arcs of several heads" }), ...buttons);
      }
      for (const [head, button] of buttons.entries()) button.setAttribute("aria-pressed", String(heads.includes(head)));
    },
  };
}

/**
 * The heads whose arcs are drawn, or what they are reduced to, and how their lines look.
 * @param {TextView} view
 */
function headsOf({ head, heads, dark }) {
  const one = { head, colour: LINES[dark ? "dark" : "light"].one, style: /** @type {const} */ ("solid") };
  return heads.length ? heads.map((each) => ({ head: each, ...lineOfHead(each, dark) })) : [one];
}

/** @type {(a: Arc, b: Arc) => number} */
const byShare = (a, b) => a.share - b.share;

/**
 * Draw the arcs from who attends to what is pointed at, the faintest first; `strong`: so that they stand out.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {TextView} view
 * @param {Place} place
 * @param {boolean} strong
 */
function paintArcs(context, view, { width, line }, strong) {
  const { layer, unit, scale, query, key } = view;
  const lines = headsOf(view).flatMap(({ head, colour, style }) => {
    const arcs = arcsOf({ matrix: toldMatrix(layer, head, unit), keys: layer.shape[2], end: scale.end, query, key });
    return arcs.map((arc) => ({ ...arc, colour, style }));
  });
  const label = labelOf(width);
  const [left, right, middle] = [label + GAP, width - label - GAP, width / 2];
  for (const arc of view.heads.length > 1 ? lines.sort(byShare) : lines) {
    const [from, to] = [(arc.query + 0.5) * line, (arc.key + 0.5) * line];
    context.globalAlpha = strong ? 0.15 + 0.85 * arc.share : FAINT * arc.share;
    context.lineWidth = 0.5 + 5 * arc.share;
    context.strokeStyle = arc.colour;
    context.setLineDash(DASHES[arc.style]);
    context.beginPath();
    context.moveTo(left, from);
    context.bezierCurveTo(middle, from, middle, to, right, to);
    context.stroke();
  }
  context.globalAlpha = 1;
}

/**
 * Draw who attends and what is pointed at, as words; `strong`: so that they stand out.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {TextView} view
 * @param {Place} place
 * @param {boolean} strong
 */
function paintWords(context, view, { width, line }, strong) {
  const { reply, query, key, ink } = view;
  const [label, all] = [labelOf(width), isOfAll(view)];
  Object.assign(context, { font: FONT, textBaseline: "middle", fillStyle: ink, globalAlpha: strong ? 1 : REST });
  /** @type {(tokens: Token[], position: Query | null, x: number) => void} */
  const write = (tokens, position, x) => {
    for (const [at, { text }] of tokens.entries())
      if (all || position === at) context.fillText(fitted(context, text, label - 4), x, (at + 0.5) * line);
  };
  context.textAlign = "right";
  write(lookersOf(reply), query, label);
  context.textAlign = "left";
  write(reply.tokens, key, width - label);
  context.globalAlpha = 1;
}
