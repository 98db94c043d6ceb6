// Every head of a layer in small, for the query that looks; clicking one chooses it.

/** @import { PictureView } from "../types.d.ts" */

import { make } from "./dom.js";
import { exact, largestOf, look, matrixOf } from "./numbers.js";
import { paintPhoto } from "./photo.js";
import { isPhoto, prefixOf, seenOf } from "./places.js";
import { scaleOfOne } from "./scales.js";
import { paintMatrix } from "./text.js";

const SMALL_PIXELS = 168;

/**
 * The grid; `choose(head)` is called with the number of the head that was clicked.
 * @param {(head: number) => void} choose
 */
export function headGrid(choose) {
  const grid = make("div", { class: "heads" });
  /** @type {ReturnType<typeof cellOf>[]} */
  let cells = [];
  return {
    node: grid,
    /** @param {PictureView} view */
    draw(view) {
      const count = view.layer.shape[0];
      if (cells.length !== count) {
        cells = Array.from({ length: count }, (_, head) => cellOf(head, choose));
        grid.replaceChildren(...cells.map((cell) => cell.node));
      }
      for (const [head, cell] of cells.entries()) drawCell(cell, head, view);
    },
  };
}

/**
 * @param {number} head
 * @param {(head: number) => void} choose
 */
function cellOf(head, choose) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const label = make("span");
  return {
    canvas,
    label,
    node: make("button", { type: "button", class: "head", click: () => choose(head) }, canvas, label),
  };
}

/**
 * @param {ReturnType<typeof cellOf>} cell
 * @param {number} head
 * @param {PictureView} view
 */
function drawCell({ canvas, label, node }, head, view) {
  const { layer, reply, query } = view;
  const row = look(layer, head, query);
  const seen = reply.patches ? row.subarray(prefixOf(reply)) : matrixOf(layer, head);
  const scale = scaleOfOne(view.scale, layer, seen);
  label.textContent = `head ${layer.heads[head]} · max ${exact(Number(largestOf(seen).toPrecision(2)))}`;
  node.setAttribute("aria-pressed", String(view.head === head));
  if (isPhoto(view)) {
    const { left, top, right, bottom } = seenOf(view.reply.patches);
    resize(canvas, SMALL_PIXELS, Math.round((SMALL_PIXELS * (bottom - top)) / (right - left)));
    paintPhoto(canvas, { ...view, row, scale, part: { x: left, y: top, width: right - left, height: bottom - top } });
  } else {
    resize(canvas, SMALL_PIXELS, Math.round((SMALL_PIXELS * layer.shape[1]) / layer.shape[2]));
    paintMatrix(canvas, { layer, head, query, scale });
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {number} height
 */
function resize(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}
