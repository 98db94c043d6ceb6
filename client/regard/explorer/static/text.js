// The matrix of which tokens attend to which.

/** @import { Head, Layer, PictureEvents, Query, Scale, TextReply, TextView, Unit } from "../types.d.ts" */

import { paint, viridisTable } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { matrixOf } from "./numbers.js";
import { lookersOf } from "./places.js";
import { shareOf, toldMatrix } from "./scales.js";

const LARGEST_CELL = 26;
const SMALLEST_LABELLED = 10;
const AXIS = 20; // pixels for the name of an axis
const MAX_PIXELS = 8192; // of a matrix that is zoomed into
const MOST_LABEL_PIXELS = 110;
const FONT = "12px ui-monospace, Menlo, Consolas, monospace";
const table = viridisTable();

/** @typedef {{ band: number, cell: number, width: number, height: number }} Place Where a matrix lies, in CSS pixels */

const MAX_IMAGES = 32;
/** @type {Map<string, OffscreenCanvas>} */
const images = new Map();
/** @type {WeakMap<Float32Array, number>} */
const numbers = new WeakMap();
let lastNumber = 0;

/** @param {Float32Array} matrix */
function numberOf(matrix) {
  const number = numbers.get(matrix) ?? ++lastNumber;
  numbers.set(matrix, number);
  return number;
}

/**
 * The matrix as colours, one pixel a weight; those last drawn are kept, since pointing changes none of them.
 * @param {Layer} layer
 * @param {Head} head
 * @param {Scale} scale
 * @param {Unit} unit
 */
function imageOf(layer, head, scale, unit) {
  const [, queries, keys] = layer.shape;
  const matrix = matrixOf(layer, head);
  const { curve, end } = scale;
  const key = [numberOf(matrix), curve, end, Boolean(unit.byRow)].join();
  const kept = images.get(key);
  if (kept) {
    images.delete(key);
    images.set(key, kept);
    return kept;
  }
  const canvas = new OffscreenCanvas(keys, queries);
  contextOf(canvas).putImageData(
    paint(toldMatrix(layer, head, unit), keys, queries, table, (weight) => shareOf(scale, weight)),
    0,
    0,
  );
  images.set(key, canvas);
  for (const oldest of images.keys()) {
    if (images.size <= MAX_IMAGES) break;
    images.delete(oldest);
  }
  return canvas;
}

/**
 * Draw the matrix alone, and a line around the row that looks.
 * @param {HTMLCanvasElement} canvas
 * @param {{ layer: Layer, head: Head, query: Query, scale: Scale, unit: Unit }} view
 */
export function paintMatrix(canvas, { layer, head, query, scale, unit }) {
  const [, queries] = layer.shape;
  const context = contextOf(canvas);
  context.imageSmoothingEnabled = false;
  context.drawImage(imageOf(layer, head, scale, unit), 0, 0, canvas.width, canvas.height);
  if (typeof query === "number")
    frame(context, 0, (query * canvas.height) / queries, canvas.width, canvas.height / queries);
}

/**
 * The matrix with the tokens along its sides; where cells are small, buttons make them larger. `events`: cell(query, key)
 * or cell(null, null), pin(query).
 * @param {PictureEvents} events
 */
export function matrixView(events) {
  const canvas = make("canvas", { class: "matrix", role: "img" });
  const scroll = make("div", { class: "zoomed", role: "group", "aria-label": "Matrix", tabindex: "0" }, canvas);
  let zoom = 1;
  /** @param {number} factor */
  const zoomBy = (factor) => {
    zoom *= factor;
    if (view) draw(view);
  };
  const smaller = make("button", { type: "button", text: "−", "aria-label": "Smaller", click: () => zoomBy(1 / 2) });
  const larger = make("button", { type: "button", text: "+", "aria-label": "Larger", click: () => zoomBy(2) });
  const buttons = make("div", { class: "zoom" }, smaller, larger);
  const node = make("div", {}, buttons, scroll);
  /** @type {TextView | null} */
  let view = null;
  /** @type {Place | null} */
  let place = null;
  /**
   * @param {MouseEvent} event
   * @returns {[query: number, key: number] | [null, null]}
   */
  const at = (event) => {
    if (!view || !place) return [null, null];
    const box = canvas.getBoundingClientRect();
    const [, queries, keys] = view.layer.shape;
    const key = Math.floor((event.clientX - box.left - place.band) / place.cell);
    const query = Math.floor((event.clientY - box.top - place.band) / place.cell);
    return key >= 0 && query >= 0 && key < keys && query < queries ? [query, key] : [null, null];
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
  /** @param {TextView} next */
  const draw = (next) => {
    view = next;
    const available = node.clientWidth;
    const fits = placeOf(next, available).cell;
    const largest = Math.min(LARGEST_CELL / fits, MAX_PIXELS / (window.devicePixelRatio || 1) / (available || 1));
    zoom = Math.max(1, Math.min(zoom, 2 ** Math.floor(Math.log2(largest))));
    buttons.hidden = largest < 2;
    smaller.disabled = zoom <= 1;
    larger.disabled = zoom * 2 > largest;
    place = placeOf(next, available, zoom);
    canvas.setAttribute(
      "aria-label",
      `Which positions attend to which: ${next.title}; rows attend to columns. The same numbers stand on the tokens.`,
    );
    paintLabelled(canvas, next, place);
  };
  return { node, draw };
}

/**
 * Where labels and cells lie in a given width: cells as large as fit, labels only where they can be read.
 * @param {{ layer: Layer, reply: TextReply }} view
 * @param {number} available
 * @param {number} zoom How many times as wide the matrix may be
 */
export function placeOf({ layer, reply }, available, zoom = 1) {
  const [, queries, keys] = layer.shape;
  const context = contextOf(new OffscreenCanvas(1, 1));
  context.font = FONT;
  const longest = Math.max(
    ...[...lookersOf(reply), ...reply.tokens].map((token) => context.measureText(token.text).width),
  );
  const labels = AXIS + Math.min(MOST_LABEL_PIXELS, Math.ceil(longest) + 12);
  /** @param {number} band */
  const fits = (band) => Math.min(LARGEST_CELL, (available * zoom - band) / keys);
  const band = fits(labels) >= SMALLEST_LABELLED ? labels : AXIS;
  const cell = fits(band);
  return { band, cell, width: band + keys * cell, height: band + queries * cell };
}

/**
 * Draw matrix and labels at a place, as fine as the screen is; save.js draws the same for a download.
 * @param {HTMLCanvasElement} canvas
 * @param {TextView} view
 * @param {Place} place
 * @param {number} fineness
 */
export function paintLabelled(canvas, view, { band, cell, width, height }, fineness = window.devicePixelRatio || 1) {
  const [, queries, keys] = view.layer.shape;
  Object.assign(canvas, { width: Math.round(width * fineness), height: Math.round(height * fineness) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = contextOf(canvas);
  context.scale(fineness, fineness);
  context.imageSmoothingEnabled = false;
  context.drawImage(imageOf(view.layer, view.head, view.scale, view.unit), band, band, keys * cell, queries * cell);
  nameAxes(context, view.ink, band, width, height);
  if (band > AXIS) paintLabels(context, view, band, cell);
  if (typeof view.query === "number") frame(context, band, band + view.query * cell, keys * cell, cell);
  if (view.key !== null) frame(context, band + view.key * cell, band, cell, queries * cell);
}

/**
 * Say along which side lie the tokens that attend, and along which those that are attended to.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {string} ink
 * @param {number} band
 * @param {number} width
 * @param {number} height
 */
function nameAxes(context, ink, band, width, height) {
  Object.assign(context, { fillStyle: ink, font: "12px system-ui, sans-serif", textBaseline: "middle" });
  context.textAlign = "left";
  context.fillText("attended to →", band, AXIS / 2, width - band);
  context.save();
  context.translate(AXIS / 2, band);
  context.rotate(-Math.PI / 2);
  context.textAlign = "right";
  context.fillText("← attends", 0, 0, height - band);
  context.restore();
}

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {TextView} view
 * @param {number} band
 * @param {number} cell
 */
function paintLabels(context, { reply, query, key, ink }, band, cell) {
  context.font = FONT;
  context.textBaseline = "middle";
  context.fillStyle = ink;
  context.textAlign = "right";
  lookersOf(reply).forEach((token, at) => {
    context.globalAlpha = at === query || query === "all" ? 1 : 0.7;
    context.fillText(fitted(context, token.text, band - AXIS - 10), band - 6, band + (at + 0.5) * cell);
  });
  context.textAlign = "left";
  reply.tokens.forEach((token, at) => {
    context.globalAlpha = at === key ? 1 : 0.7;
    context.save();
    context.translate(band + (at + 0.5) * cell, band - 6);
    context.rotate(-Math.PI / 2);
    context.fillText(fitted(context, token.text, band - AXIS - 10), 0, 0);
    context.restore();
  });
  context.globalAlpha = 1;
}

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {string} word
 * @param {number} pixels
 */
export function fitted(context, word, pixels) {
  if (context.measureText(word).width <= pixels) return word;
  let kept = word;
  while (kept && context.measureText(`${kept}…`).width > pixels) kept = kept.slice(0, -1);
  return `${kept}…`;
}

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
function frame(context, x, y, width, height) {
  context.strokeStyle = "#fff";
  context.lineWidth = 1.5;
  context.strokeRect(x, y, width, height);
}
