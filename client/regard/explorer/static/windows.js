// Layers on a grid of their own, and which cells a query's keys are in windows. Pure.

/** @import { Grid, Model, ModelLayer, PhotoReply, Query, Reply, Window } from "../types.d.ts" */

import { patchAt, rectOf } from "./places.js";

const BEFORE_MIDDLE = 0.499; // of a cell; its middle may be the edge of four others

/**
 * Where along one axis the keys of a query's window lie, [edge]: cells, or -1 for padding.
 * @param {number} place
 * @param {number} size
 * @param {number} edge
 * @param {number} shift
 */
function lineCells(place, size, edge, shift) {
  const whole = Math.ceil(size / edge) * edge;
  const first = Math.floor(((place - shift + whole) % whole) / edge) * edge;
  return Array.from({ length: edge }, (_, key) => {
    const cell = (first + key + shift) % whole;
    return cell < size ? cell : -1;
  });
}

/**
 * Whether a layer cuts its grid up: then it has neither distances nor rollouts. One window may be the whole grid.
 * @param {Window | null} window
 */
export const cutsUp = (window) =>
  window !== null &&
  (window.height !== window.rows || window.width !== window.cols || window.shift_rows + window.shift_cols > 0);

/**
 * Whether a layer has a distance: it neither cuts its grid up, nor mixes its heads, nor looks from the class token alone.
 * @param {ModelLayer} layer
 */
export const hasDistance = ({ window, mixes_heads, class_attention }) =>
  !cutsUp(window) && !mixes_heads && !class_attention;

/**
 * Whether layers have a rollout: each has a distance, and all are over the same grid. Without windows that is the patches.
 * @param {Model["layers"]} layers
 * @param {Model["patches"]} patches
 */
export function canRollOut(layers, patches) {
  const grids = layers.map(({ window }) => window ?? patches).map((grid) => grid && `${grid.rows} x ${grid.cols}`);
  return new Set(grids).size === 1 && layers.every(hasDistance);
}

/**
 * Which cell of the layer's grid each key of a query is, counted row by row, or -1 for padding: [height * width].
 * @param {Window} window
 * @param {number} query
 */
export function keyCells(window, query) {
  const rows = lineCells(Math.floor(query / window.cols), window.rows, window.height, window.shift_rows);
  const cols = lineCells(query % window.cols, window.cols, window.width, window.shift_cols);
  return rows.flatMap((row) => cols.map((col) => (row < 0 || col < 0 ? -1 : row * window.cols + col)));
}

/**
 * An answer of one layer, with the grid of that layer in place of the patches.
 * @param {Reply} reply
 * @returns {Reply}
 */
export function onOwnGrid(reply) {
  const [{ grid }] = reply.layers;
  return reply.patches && grid ? { .../** @type {PhotoReply} */ (reply), patches: grid } : reply;
}

/**
 * The position on another grid, of the same photo or of another, that lies at the middle of this one, or of four there
 * the first; null of a class token that the other has not, and where the network saw nothing.
 * @template {Query | null} Position
 * @param {Grid} from
 * @param {Grid} to
 * @param {Position} position
 * @returns {Position | number | null}
 */
export function carried(from, to, position) {
  const alike = from.rows === to.rows && from.cols === to.cols && from.prefix_tokens === to.prefix_tokens;
  if (alike || typeof position !== "number") return position;
  if (position < from.prefix_tokens) return position < to.prefix_tokens ? position : null;
  const { x, y, width, height } = rectOf(from, position);
  const [across, down] = [to.image_width / from.image_width, to.image_height / from.image_height];
  return patchAt(to, (x + width * BEFORE_MIDDLE) * across, (y + height * BEFORE_MIDDLE) * down);
}
