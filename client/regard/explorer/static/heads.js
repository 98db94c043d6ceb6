// Every head of a layer in small, for the query that looks; clicking one chooses it.

/** @import { PictureView } from "../types.d.ts" */

import { make, setText } from "./dom.js";
import { IdleSteps } from "./idle.js";
import { exact, look } from "./numbers.js";
import { paintPhoto } from "./photo.js";
import { isPhoto, prefixOf, seenOf } from "./places.js";
import { endOf, scaleOfOne, toldMatrix } from "./scales.js";
import { paintMatrix } from "./text.js";

const SMALL_PIXELS = 168;

/**
 * The grid, drawn head after head while the page has nothing else to do. `choose(head)` is called with the number of the
 * head that was clicked.
 * @param {(head: number) => void} choose
 */
export function headGrid(choose) {
  const grid = make("div", { class: "heads" });
  /** @type {ReturnType<typeof cellOf>[]} */
  let cells = [];
  /** @type {PictureView | null} */
  let shown = null;
  const steps = new IdleSteps(
    (head) => shown && drawCell(cells[head], head, shown),
    (busy) => grid.setAttribute("aria-busy", String(busy)),
  );
  return {
    node: grid,
    /** @param {PictureView} view */
    draw(view) {
      const count = view.layer.shape[0];
      if (cells.length !== count) {
        cells = Array.from({ length: count }, (_, head) => cellOf(head, choose));
        grid.replaceChildren(...cells.map((cell) => cell.node));
      }
      for (const [head, { node }] of cells.entries()) node.setAttribute("aria-pressed", String(view.head === head));
      shown = view;
      steps.begin(count);
    },
  };
}

/**
 * @param {number} head
 * @param {(head: number) => void} choose
 */
function cellOf(head, choose) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const label = make("span", { text: `head ${head}` });
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
function drawCell({ canvas, label }, head, view) {
  const { layer, reply, query, unit } = view;
  const row = reply.patches ? look(layer, head, query) : toldMatrix(layer, head, unit);
  const seen = reply.patches ? row.subarray(prefixOf(reply)) : row;
  const { largest } = endOf(layer, seen, view.scale.chosen);
  const scale = scaleOfOne(view.scale, layer, seen);
  setText(label, `head ${layer.heads[head]} · max ${exact(Number(largest.toPrecision(2)))}`);
  if (isPhoto(view)) {
    const { left, top, right, bottom } = seenOf(view.reply.patches);
    resize(canvas, SMALL_PIXELS, Math.round((SMALL_PIXELS * (bottom - top)) / (right - left)));
    paintPhoto(canvas, {
      ...view,
      bare: null,
      row,
      scale,
      part: { x: left, y: top, width: right - left, height: bottom - top },
    });
  } else {
    resize(canvas, SMALL_PIXELS, Math.round((SMALL_PIXELS * layer.shape[1]) / layer.shape[2]));
    paintMatrix(canvas, { layer, head, query, scale, unit });
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
