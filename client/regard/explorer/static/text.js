// Paints the matrix of which tokens attend to which, with their names at its sides.

/** @import { Head, Layer, Query, Scale, TextReply, TextView, Token, Unit } from "../types.d.ts" */

import { paint, viridisTable } from "./colour.js";
import { contextOf } from "./dom.js";
import { matrixOf, numberOf } from "./numbers.js";
import { lookersOf } from "./places.js";
import { placer, toldMatrix } from "./scales.js";

export const LARGEST_CELL = 26;
const SMALLEST_LABELLED = 10;
export const AXIS = 20; // pixels for the name of an axis
const MOST_LABEL_PIXELS = 110;
const FONT = "12px ui-monospace, Menlo, Consolas, monospace";
const table = viridisTable();

/** @typedef {{ left: number, top: number, width: number, height: number }} Seen Part of a matrix, in CSS pixels */
/** @typedef {{ band: number, cell: number, width: number, height: number }} Place Where a matrix lies, in CSS pixels */

const MAX_IMAGES = 32;
/** @type {Map<string, OffscreenCanvas>} */
const images = new Map();

/**
 * The matrix as colours, one pixel a weight; those last drawn are kept, since pointing changes none of them.
 * @param {Layer} layer
 * @param {Head} head
 * @param {Scale} scale
 * @param {Unit} unit
 */
export function imageOf(layer, head, scale, unit) {
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
  paint(canvas, toldMatrix(layer, head, unit), table, placer(scale));
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
 * Where labels and cells lie in a given width: cells as large as fit, labels only where they can be read.
 * @param {{ layer: Layer, reply: TextReply }} view
 * @param {number} available
 * @param {number} zoom How many times as wide the matrix may be
 */
export function placeOf({ layer, reply }, available, zoom = 1) {
  const [, queries, keys] = layer.shape;
  const longest = Math.max(widestOf(lookersOf(reply)), widestOf(reply.tokens));
  const labels = AXIS + Math.min(MOST_LABEL_PIXELS, Math.ceil(longest) + 12);
  /** @param {number} band */
  const fits = (band) => Math.min(LARGEST_CELL, (available * zoom - band) / keys);
  const band = fits(labels) >= SMALLEST_LABELLED ? labels : AXIS;
  const cell = fits(band);
  return { band, cell, width: band + keys * cell, height: band + queries * cell };
}

/** @type {WeakMap<Token[], number>} */
const widths = new WeakMap();

/**
 * How wide the widest of some tokens is, in CSS pixels.
 * @param {Token[]} tokens
 */
function widestOf(tokens) {
  const known = widths.get(tokens);
  if (known !== undefined) return known;
  const context = contextOf(new OffscreenCanvas(1, 1));
  context.font = FONT;
  const widest = Math.max(0, ...tokens.map((token) => context.measureText(token.text).width));
  widths.set(tokens, widest);
  return widest;
}

/**
 * Draw matrix and labels at a place, and lines around who looks and what is pointed at; save.js makes a download of it.
 * @param {HTMLCanvasElement} canvas
 * @param {TextView} view
 * @param {Place} place
 * @param {number} fineness
 */
export function paintLabelled(canvas, view, place, fineness) {
  const [, queries, keys] = view.layer.shape;
  const { band, cell, width, height } = place;
  paintPart(canvas, view, place, { left: 0, top: 0, width, height }, fineness);
  const context = contextOf(canvas);
  if (typeof view.query === "number") frame(context, band, band + view.query * cell, keys * cell, cell);
  if (view.key !== null) frame(context, band + view.key * cell, band, cell, queries * cell);
}

/**
 * Draw a part of matrix and labels, as fine as the screen is; the labels stay at its sides.
 * @param {HTMLCanvasElement} canvas
 * @param {TextView} view
 * @param {Place} place
 * @param {Seen} seen
 * @param {number} fineness
 */
export function paintPart(canvas, view, { band, cell }, { left, top, width, height }, fineness) {
  const [, queries, keys] = view.layer.shape;
  Object.assign(canvas, { width: Math.round(width * fineness), height: Math.round(height * fineness) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = contextOf(canvas);
  context.scale(fineness, fineness);
  context.imageSmoothingEnabled = false;
  const cols = Math.min((width - band) / cell, keys - left / cell);
  const rows = Math.min((height - band) / cell, queries - top / cell);
  const image = imageOf(view.layer, view.head, view.scale, view.unit);
  context.drawImage(image, left / cell, top / cell, cols, rows, band, band, cols * cell, rows * cell);
  nameAxes(context, view.ink, band, width, height);
  if (band > AXIS) paintLabels(context, view, { band, cell, left, top, width, height });
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
 * @param {Seen & { band: number, cell: number }} place
 */
function paintLabels(context, { reply, query, key, ink }, { band, cell, left, top, width, height }) {
  Object.assign(context, { font: FONT, textBaseline: "middle", fillStyle: ink, textAlign: "right" });
  /** @type {(token: Token) => string} */
  const short = (token) => fitted(context, token.text, band - AXIS - 10);
  context.save();
  clip(context, 0, band, band, height - band);
  for (const [at, token] of seenOf(lookersOf(reply), top, height - band, cell)) {
    context.globalAlpha = at === query || query === "all" ? 1 : 0.7;
    context.fillText(short(token), band - 6, band + (at + 0.5) * cell - top);
  }
  context.restore();
  context.save();
  clip(context, band, 0, width - band, band);
  context.textAlign = "left";
  context.translate(band - left, band - 6);
  context.rotate(-Math.PI / 2);
  for (const [at, token] of seenOf(reply.tokens, left, width - band, cell)) {
    context.globalAlpha = at === key ? 1 : 0.7;
    context.fillText(short(token), 0, (at + 0.5) * cell);
  }
  context.restore();
}

/**
 * The tokens of which something is seen, with their positions.
 * @param {Token[]} tokens
 * @param {number} start In CSS pixels from the first
 * @param {number} length
 * @param {number} cell
 */
function seenOf(tokens, start, length, cell) {
  const first = Math.floor(start / cell);
  return tokens
    .slice(first, Math.ceil((start + length) / cell))
    .map((token, at) => /** @type {const} */ ([first + at, token]));
}

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
function clip(context, x, y, width, height) {
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
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
