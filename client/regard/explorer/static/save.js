// What a user takes away: the picture with its title, the numbers as CSV, JSON or NumPy's .npy.

/** @import { Layer, PictureView, Seen, TextView } from "../types.d.ts" */

import { heatTable, paintStrip, viridisTable } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { look } from "./numbers.js";
import { beyondOf, ticksOf } from "./panel.js";
import { cellOf, isText, lookerOf, prefixOf } from "./places.js";
import { unitOf } from "./scales.js";
import { paintLabelled, placeOf } from "./text.js";

const PICTURE_PIXELS = 1040;
const MARGIN = 24;
const TITLE_PIXELS = 64;
const STRIP_PIXELS = 16;
const SCALE_PIXELS = 64;
const WIDEST_SCALE = 420;

/** @typedef {(PictureView & { canvas: HTMLCanvasElement })[]} Pictures Each with the canvas it is drawn on */

/**
 * Save what is seen: "png", or as numbers: "npy", "csv", "json". `pictures` as view.js gives them.
 * @param {string} kind
 * @param {Seen} seen
 * @param {Pictures} pictures
 */
export async function take(kind, seen, pictures) {
  const name = fileName(seen);
  if (kind === "npy") save(`${name.replace(/-query.*/, "")}.npy`, npy(seen.main.layer));
  else if (kind === "csv") save(`${name}.csv`, new Blob([csv(seen)], { type: "text/csv" }));
  else if (kind === "json")
    save(
      `${name}.json`,
      new Blob([JSON.stringify({ ...numbersOf(seen), ...scaleOf(pictures[0]) })], { type: "application/json" }),
    );
  else save(`${name}.png`, await png(pictures));
}

/**
 * Hand a file to the browser.
 * @param {string} name
 * @param {Blob} blob
 */
function save(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/**
 * A file's name without its ending: model, layer, head, who looks.
 * @param {Seen} seen
 */
export function fileName({ model, main, query, measure }) {
  const head = typeof main.head === "number" ? `head${main.head}` : main.head;
  return `${model.name}-${measure}-layer${main.layer.layer}-${head}-query-${query}`.replace(/[^\w.-]+/g, "_");
}

/**
 * Numpy's file format, version 1.0, of all heads, queries and keys of a layer, as they came: float16 [H, Q, K].
 * @param {Layer} layer
 */
export function npy(layer) {
  const kind = layer.half ? "<f2" : "<f4";
  const head = `{'descr': '${kind}', 'fortran_order': False, 'shape': (${layer.shape.join(", ")}), }`;
  const padded = `${head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11)}\n`;
  const start = new Uint8Array([
    0x93,
    ...new TextEncoder().encode("NUMPY"),
    1,
    0,
    padded.length & 255,
    padded.length >> 8,
  ]);
  return new Blob([start, padded, layer.data], { type: "application/octet-stream" });
}

/**
 * The row that is seen, and each head's, with what the positions are.
 * @param {Seen} seen
 */
export function numbersOf({ main, query, measure }) {
  const { reply, layer, head } = main;
  const each =
    layer.shape[0] > 1
      ? Array.from({ length: layer.shape[0] }, (_, place) => ({
          head: layer.heads[place],
          weights: Array.from(look(layer, place, query)),
        }))
      : [];
  return {
    model: reply.model,
    version: reply.version,
    measure,
    layer: layer.layer,
    kind: layer.kind,
    head,
    query,
    query_name: lookerOf(reply, query),
    labels: reply.labels,
    tokens: reply.tokens,
    written: reply.writing?.tokens,
    patches: reply.patches,
    window: layer.window,
    weights: Array.from(look(layer, head, query)),
    heads: each,
  };
}

/**
 * How the numbers are drawn: the scale, and how many keys a row that attends to all alike divides itself over.
 * @param {PictureView} view
 */
function scaleOf({ layer, query, scale: { curve, end, largest, percentile } }) {
  const { count } = unitOf(layer, query, { multiples: true, mixed: false });
  return { scale: { curve, end, largest, percentile }, num_keys: count };
}

/**
 * The row that is seen as a table: one line a position.
 * @param {Seen} seen
 */
export function csv({ main, query }) {
  const { reply, layer, head } = main;
  const row = look(layer, head, query);
  /** @param {string} text */
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  /** @param {number} key */
  const where = (key) => {
    if (reply.tokens) return quoted(reply.tokens[key].text);
    if (key < prefixOf(reply)) return ",";
    const { row: line, col } = cellOf(reply.patches, key);
    return `${line},${col}`;
  };
  const first = reply.tokens ? "position,token,weight" : "position,row,column,weight";
  return `${[first, ...Array.from(row, (weight, key) => `${key},${where(key)},${weight}`)].join("\n")}\n`;
}

/**
 * The picture, or two, as a PNG with a title; `panels` are the views that are seen.
 * @param {Pictures} panels
 */
export async function png(panels) {
  const pictures = panels.map((view) => (isText(view) ? labelled(view) : view.canvas));
  const width = pictures.reduce((sum, picture) => sum + picture.width + MARGIN, MARGIN);
  const highest = Math.max(...pictures.map((picture) => picture.height));
  const height = TITLE_PIXELS + highest + SCALE_PIXELS + MARGIN;
  const canvas = new OffscreenCanvas(Math.max(width, 480), height);
  const context = contextOf(canvas);
  context.fillStyle = "#101014";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#e6e6e6";
  let left = MARGIN;
  panels.forEach((view, at) => {
    context.font = "600 20px system-ui, sans-serif";
    context.fillText(view.title, left, 28, pictures[at].width);
    context.font = "16px system-ui, sans-serif";
    context.fillText(`what ${lookerOf(view.reply, view.query)} attends to`, left, 50, pictures[at].width);
    context.drawImage(pictures[at], left, TITLE_PIXELS);
    drawScale(context, view, left, TITLE_PIXELS + highest + MARGIN / 2, Math.min(pictures[at].width, WIDEST_SCALE));
    left += pictures[at].width + MARGIN;
  });
  return canvas.convertToBlob({ type: "image/png" });
}

/**
 * Draw the scale of a picture, with what its numbers are and what lies beyond.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {PictureView} view
 * @param {number} left
 * @param {number} top
 * @param {number} width
 */
function drawScale(context, view, left, top, width) {
  const table = isText(view) ? viridisTable() : heatTable(view.scale.opacity);
  paintStrip(context, { x: left, y: top, width, height: STRIP_PIXELS }, table, !isText(view));
  context.fillStyle = "#e6e6e6";
  context.font = "14px system-ui, sans-serif";
  const unit = isText(view) && view.unit.byRow ? { ...view.unit, count: 1 } : view.unit;
  ticksOf(view.scale, unit).forEach((tick, at) => {
    context.textAlign = /** @type {const} */ (["left", "center", "right"])[at];
    context.fillText(tick, left + (at * width) / 2, top + STRIP_PIXELS + 16);
  });
  context.textAlign = "left";
  const curve = { linear: "", sqrt: ", square root", log: ", logarithm" }[view.scale.curve];
  const named = unit.cosine ? "cosine" : unit.count ? "weight, 1 / N is uniform" : "weight";
  context.fillText(`${named}${curve}. ${beyondOf(view.scale, unit)}`, left, top + STRIP_PIXELS + 36, width);
}

/** @param {TextView} view */
function labelled(view) {
  const canvas = make("canvas");
  paintLabelled(canvas, { ...view, key: null, ink: "#e6e6e6" }, placeOf(view, PICTURE_PIXELS), 2);
  return canvas;
}
