// Attention between tokens as arcs, as BertViz's head view: who attends on the left, what is attended to on the right.

/** @import { PictureEvents, Query, TextView } from "../types.d.ts" */

import { LINES, lineOfHead } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { lookersOf } from "./places.js";
import { toldMatrix } from "./scales.js";
import { fitted } from "./text.js";

const [LINE, MAX_WIDTH, GAP] = [22, 620, 8];
/** @param {number} width How much of it each side's words take */
const labelOf = (width) => Math.min(130, 0.29 * width);
const MAX_PIXELS = 16000; // of a canvas, in height
const MIN_SHARE = 0.02; // of the largest; fainter arcs cannot be seen
const FAINT = 0.12;
const FONT = "13px ui-monospace, Menlo, Consolas, monospace";

/** Pixels that are drawn, and that are not, by turns. */
export const DASHES = { solid: [], dashed: [6, 4], dotted: [1.5, 3] };

/** @typedef {{ query: number, key: number, share: number, strong: boolean }} Arc */

/**
 * The arcs of a matrix, the weakest first. `strong` are those of whoever attends or is pointed at; all, where it is all.
 * @param {{ matrix: Float32Array, keys: number, end: number, query: Query, key: number | null }} seen
 * @returns {Arc[]}
 */
export function arcsOf({ matrix, keys, end, query, key }) {
  const arcs = [...matrix.keys()]
    .filter((at) => matrix[at] >= MIN_SHARE * end)
    .map((at) => {
      const [from, to] = [Math.floor(at / keys), at % keys];
      const strong = (query === "all" || query === from) && (key === null || key === to);
      return { query: from, key: to, share: Math.min(1, matrix[at] / end), strong };
    });
  return arcs.sort(byStrength);
}

/**
 * The arcs as an element. `events`: cell(query, key), of which one is null, or both, and pin(query).
 * @param {PictureEvents} events
 */
export function arcsView(events) {
  const canvas = make("canvas", { class: "arcs", role: "img" });
  const legend = legendOf(events);
  const node = make("div", {}, legend.node, canvas);
  /** @type {{ view: TextView, width: number, line: number } | null} */
  let drawn = null;
  /**
   * @param {MouseEvent} event
   * @returns {[query: number, key: null] | [query: null, key: number | null]}
   */
  const at = (event) => {
    if (!drawn) return [null, null];
    const box = canvas.getBoundingClientRect();
    const [place, left] = [Math.floor((event.clientY - box.top) / drawn.line), event.clientX - box.left];
    const [, queries, keys] = drawn.view.layer.shape;
    const label = labelOf(drawn.width);
    if (left < label && place < queries) return [place, null];
    return [null, left > drawn.width - label && place < keys ? place : null];
  };
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
    /** @param {TextView} view */
    draw(view) {
      legend.draw(view);
      const fineness = window.devicePixelRatio || 1;
      const count = Math.max(view.layer.shape[1], view.layer.shape[2]);
      const width = Math.min(MAX_WIDTH, node.clientWidth || MAX_WIDTH);
      const line = Math.min(LINE, MAX_PIXELS / fineness / count);
      drawn = { view, width, line };
      const heads = view.heads.length ? ` · arcs of heads ${view.heads.join(", ")}` : "";
      canvas.setAttribute(
        "aria-label",
        `Which positions attend to which: ${view.title}${heads}; from left to right. The tokens have the same numbers.`,
      );
      paintAll(canvas, view, { width, line, fineness });
    },
  };
}

/**
 * Draw arcs and words; save.js draws the same for a download.
 * @param {HTMLCanvasElement} canvas
 * @param {TextView} view
 * @param {{ width: number, line: number, fineness: number }} place
 */
export function paintAll(canvas, view, { width, line, fineness }) {
  const height = line * Math.max(view.layer.shape[1], view.layer.shape[2]);
  Object.assign(canvas, { width: Math.round(width * fineness), height: Math.round(height * fineness) });
  canvas.style.width = `${width}px`;
  const context = contextOf(canvas);
  context.scale(fineness, fineness);
  paintArcs(context, view, width, line);
  paintWords(context, view, width, line);
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
 * The arcs of each head, or of what several are reduced to; the faintest first, and how each is drawn.
 * @param {TextView} view
 */
function linesOf({ layer, head, heads, unit, scale, query, key, dark }) {
  const all = { colour: LINES[dark ? "dark" : "light"].one, style: /** @type {const} */ ("solid") };
  const each = heads.length ? heads.map((one) => ({ head: one, ...lineOfHead(one, dark) })) : [{ head, ...all }];
  const lines = each.flatMap(({ head, colour, style }) => {
    const arcs = arcsOf({ matrix: toldMatrix(layer, head, unit), keys: layer.shape[2], end: scale.end, query, key });
    return arcs.map((arc) => ({ ...arc, colour, style }));
  });
  return each.length > 1 ? lines.sort(byStrength) : lines;
}

/** @type {(a: Arc, b: Arc) => number} */
const byStrength = (a, b) => Number(a.strong) - Number(b.strong) || a.share - b.share;

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {TextView} view
 * @param {number} width
 * @param {number} line
 */
function paintArcs(context, view, width, line) {
  const label = labelOf(width);
  const [left, right, middle] = [label + GAP, width - label - GAP, width / 2];
  for (const arc of linesOf(view)) {
    const [from, to] = [(arc.query + 0.5) * line, (arc.key + 0.5) * line];
    context.globalAlpha = arc.strong ? 0.15 + 0.85 * arc.share : FAINT * arc.share;
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
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {TextView} view
 * @param {number} width
 * @param {number} line
 */
function paintWords(context, { reply, query, key, ink }, width, line) {
  const label = labelOf(width);
  Object.assign(context, { font: FONT, textBaseline: "middle", fillStyle: ink, textAlign: "right" });
  for (const [at, token] of lookersOf(reply).entries()) {
    context.globalAlpha = query === "all" || at === query ? 1 : 0.7;
    context.fillText(fitted(context, token.text, label - 4), label, (at + 0.5) * line);
  }
  context.textAlign = "left";
  for (const [at, token] of reply.tokens.entries()) {
    context.globalAlpha = key === null || at === key ? 1 : 0.7;
    context.fillText(fitted(context, token.text, label - 4), width - label, (at + 0.5) * line);
  }
  context.globalAlpha = 1;
}
