// What a user takes away: the picture with its title, the numbers as CSV, JSON or NumPy's .npy.

/** @import { Colour, Grid, Layer, PictureView, Scale, Seen, TextView, Token, Unit } from "../types.d.ts" */

import { DASHES, paintAll } from "./arcs.js";
import { css, heatTable, lineOfHead, paintStrip, viridisTable } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { linesOf, paintLines } from "./lines.js";
import { look } from "./numbers.js";
import { beyondOf, ticksOf } from "./panel.js";
import { cellOf, isText, lookerOf } from "./places.js";
import { unitOf } from "./scales.js";
import { paintLabelled, placeOf } from "./text.js";

export const PICTURE_PIXELS = 1040;
const NARROWEST = 560; // of a text
const [ARCS_PIXELS, ARCS_LINE] = [620, 22];
export const FINENESS = 2; // of a text; a photo is as fine as it is in the page
const MARGIN = 24;
const TITLE_PIXELS = 48;
const STRIP_PIXELS = 16;
export const SCALE_PIXELS = 56;
const WIDEST_SCALE = 420;
const LEGEND = { width: 96, height: 22 }; // of each head
export const INK = "#e6e6e6";
/** @type {Colour} */
export const GROUND = [16, 16, 20];

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
 * @param {string} name Letters, digits and "_.-" stay
 * @param {Blob} blob
 */
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

/**
 * A file's name without its ending: model, layer, head, who looks.
 * @param {Seen} seen
 */
function fileName({ model, main, query, measure }) {
  const head = typeof main.head === "number" ? `head${main.head}` : main.head;
  return `${model.name}-${measure}-layer${main.layer.layer}-${head}-query-${query}`;
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
 * A text as a field of CSV.
 * @param {string} text
 */
const quoted = (text) => `"${text.replaceAll('"', '""')}"`;

/**
 * The row that is seen as a table.
 * @param {Seen} seen
 */
export function csv({ main, query }) {
  const row = look(main.layer, main.head, query);
  return csvOf(main.reply, [...row.keys()], row, "weight");
}

/**
 * A table of positions: one line for each, with what or where it is and its number.
 * @param {{ tokens: Token[] | null, patches: Grid | null }} input
 * @param {number[]} positions
 * @param {ArrayLike<number>} numbers
 * @param {string} name Of the numbers
 */
export function csvOf({ tokens, patches }, positions, numbers, name) {
  /** @param {number} position */
  const where = (position) => {
    if (tokens) return quoted(tokens[position].text);
    if (!patches || position < patches.prefix_tokens) return ",";
    const { row, col } = cellOf(patches, position);
    return `${row},${col}`;
  };
  const first = `position,${tokens ? "token" : "row,column"},${name}`;
  const lines = positions.map((position, place) => `${position},${where(position)},${numbers[place]}`);
  return `${[first, ...lines].join("\n")}\n`;
}

/**
 * The picture, or two, as a PNG with what is seen of it: title, tokens as they are, matrix or arcs, or the photo, and each
 * with its scale. `panels` are the views that are seen.
 * @param {Pictures} panels
 */
export const png = (panels) =>
  pngOf(panels.map((view) => (isText(view) ? textParts(view, panels.length) : photoParts(view))));

/**
 * Columns beside each other, of parts below each other, as a PNG.
 * @param {(OffscreenCanvas | HTMLCanvasElement)[][]} columns
 */
export function pngOf(columns) {
  const widths = columns.map((parts) => Math.max(...parts.map((part) => part.width)));
  const heights = columns[0].map((_, at) => Math.max(...columns.map((parts) => parts[at].height)));
  const canvas = new OffscreenCanvas(
    Math.max(sum(widths) + MARGIN * (widths.length + 1), 480),
    sum(heights) + MARGIN * (heights.length + 1),
  );
  const context = contextOf(canvas);
  context.fillStyle = css(GROUND);
  context.fillRect(0, 0, canvas.width, canvas.height);
  let left = MARGIN;
  for (const [column, parts] of columns.entries()) {
    let top = MARGIN;
    for (const [at, part] of parts.entries()) {
      context.drawImage(part, left, top);
      top += heights[at] + MARGIN;
    }
    left += widths[column] + MARGIN;
  }
  return canvas.convertToBlob({ type: "image/png" });
}

/** @param {number[]} numbers */
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/**
 * A part of the picture, as fine as it is to be.
 * @param {number} width
 * @param {number} height
 * @param {number} fineness
 * @param {(context: OffscreenCanvasRenderingContext2D) => void} paint
 * @returns {OffscreenCanvas | HTMLCanvasElement}
 */
export function painted(width, height, fineness, paint) {
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * fineness)), Math.round(height * fineness));
  const context = contextOf(canvas);
  context.scale(fineness, fineness);
  paint(context);
  return canvas;
}

/**
 * @param {PictureView & { canvas: HTMLCanvasElement }} view
 */
function photoParts(view) {
  const { width } = view.canvas;
  const table = heatTable(view.scale.opacity);
  /** @param {OffscreenCanvasRenderingContext2D} context */
  const scale = (context) => drawScale(context, { ...view, table, overPhoto: true, of: "" }, width);
  return [titled(view, width, 1), view.canvas, painted(width, SCALE_PIXELS, 1, scale)];
}

/**
 * @param {TextView} view
 * @param {number} count How many stand beside each other
 */
function textParts(view, count) {
  const most = count > 1 ? PICTURE_PIXELS / 2 + NARROWEST / 4 : PICTURE_PIXELS;
  const seen = { ...view, key: null, ink: INK, dark: true };
  const body = make("canvas");
  if (view.arcs) paintAll(body, seen, { width: Math.min(most, ARCS_PIXELS), line: ARCS_LINE, fineness: FINENESS });
  else paintLabelled(body, seen, placeOf(seen, most), FINENESS);
  const width = Math.max(body.width / FINENESS, NARROWEST);
  const lines = linesOf(seen, width);
  const table = viridisTable();
  const ofRow = { ...seen, scale: { ...seen.scale, ...seen.rowEnd }, table, overPhoto: false, of: "tokens: " };
  const unit = seen.unit.byRow ? { ...seen.unit, count: 1 } : seen.unit;
  const ofMatrix = { ...seen, unit, table, overPhoto: false, of: "matrix: " };
  return [
    titled(seen, width, FINENESS),
    painted(width, lines.height, FINENESS, (context) => paintLines(context, seen, lines.placed)),
    painted(width, SCALE_PIXELS, FINENESS, (context) => drawScale(context, ofRow, width)),
    body,
    view.arcs
      ? painted(width, legendHeight(seen, width), FINENESS, (context) => drawLegend(context, seen, width))
      : painted(width, SCALE_PIXELS, FINENESS, (context) => drawScale(context, ofMatrix, width)),
  ];
}

/**
 * @param {PictureView} view
 * @param {number} width
 * @param {number} fineness
 */
const titled = ({ title, reply, query, unit }, width, fineness) =>
  painted(width, TITLE_PIXELS, fineness, (context) => {
    context.fillStyle = INK;
    context.font = "600 20px system-ui, sans-serif";
    context.fillText(title, 0, 18, width);
    context.font = "16px system-ui, sans-serif";
    const attends = unit.cosine ? "is like" : query === "all" && reply.tokens ? "attend to" : "attends to";
    context.fillText(`what ${lookerOf(reply, query)} ${attends}`, 0, 42, width);
  });

/**
 * Draw a scale with what its numbers are and what lies beyond; `of` names what has it.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {{ scale: Scale, unit: Unit, table: Uint8ClampedArray<ArrayBuffer>, overPhoto: boolean, of: string }} what
 * @param {number} all
 */
function drawScale(context, { scale, unit, table, overPhoto, of }, all) {
  const curve = { linear: "", sqrt: ", square root", log: ", logarithm" }[scale.curve];
  const named = unit.cosine ? "cosine" : unit.count ? "weight, 1 / N is uniform" : "weight";
  const told = `${of}${named}${curve}. ${beyondOf(scale, unit)}`;
  drawStrip(context, { table, overPhoto, ticks: ticksOf(scale, unit), told }, all);
}

/**
 * Draw the colours of a scale, what stands at its beginning, middle and end, and what is told below it.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {{ table: Uint8ClampedArray<ArrayBuffer>, overPhoto: boolean, ticks: string[], told: string }} what
 * @param {number} all The room
 */
export function drawStrip(context, { table, overPhoto, ticks, told }, all) {
  const width = Math.min(all, WIDEST_SCALE);
  paintStrip(context, { x: 0, y: 0, width, height: STRIP_PIXELS }, table, overPhoto);
  context.fillStyle = INK;
  context.font = "14px system-ui, sans-serif";
  ticks.forEach((tick, at) => {
    context.textAlign = /** @type {const} */ (["left", "center", "right"])[at];
    context.fillText(tick, (at * width) / 2, STRIP_PIXELS + 16);
  });
  context.textAlign = "left";
  context.fillText(told, 0, STRIP_PIXELS + 36, all);
}

/**
 * @param {TextView} view
 * @param {number} width
 */
const legendHeight = ({ heads }, width) =>
  (Math.ceil(heads.length / Math.floor(width / LEGEND.width)) + 1) * LEGEND.height;

/**
 * Draw whose arcs these are, and the weight of the widest.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {TextView} view
 * @param {number} width
 */
function drawLegend(context, { heads, scale, unit }, width) {
  context.font = "14px system-ui, sans-serif";
  const across = Math.floor(width / LEGEND.width);
  for (const [at, head] of heads.entries()) {
    const [left, top] = [(at % across) * LEGEND.width, Math.floor(at / across) * LEGEND.height];
    const { colour, style } = lineOfHead(head, true);
    context.setLineDash(DASHES[style]);
    Object.assign(context, { strokeStyle: colour, lineWidth: 4, fillStyle: INK });
    context.beginPath();
    context.moveTo(left, top + 8);
    context.lineTo(left + 28, top + 8);
    context.stroke();
    context.fillText(`head ${head}`, left + 34, top + 13);
  }
  context.fillStyle = INK;
  const top = Math.ceil(heads.length / across) * LEGEND.height;
  context.fillText(`the widest arcs: ${ticksOf(scale, unit)[2]}`, 0, top + 13, width);
}
