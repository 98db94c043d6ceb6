// What the positions of an answer are: patches on a photo, tokens of a text. Pure.

/** @import { Grid, PhotoView, PictureView, Query, Reply, TextReply, TextView } from "../types.d.ts" */

/** @type {Record<string, [rows: number, cols: number]>} */
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * Positions before the first patch; a text has none.
 * @param {Reply} reply
 */
export const prefixOf = (reply) => (reply.patches ? reply.patches.prefix_tokens : 0);

/**
 * The tokens that look: where a text is written, those of it.
 * @param {TextReply} reply
 */
export const lookersOf = ({ tokens, writing }) => writing?.tokens ?? tokens;

/**
 * How many positions of an answer look.
 * @param {Reply} reply
 */
export const lengthOf = (reply) =>
  reply.patches ? reply.patches.prefix_tokens + reply.patches.rows * reply.patches.cols : lookersOf(reply).length;

/**
 * Who looks unless told otherwise: the class token of a photo, all tokens of a text, the last while it is written.
 * @param {Reply} reply
 * @returns {Query}
 */
export function usualQuery(reply) {
  if (reply.writing && !reply.writing.end) return reply.writing.tokens.length - 1;
  return prefixOf(reply) > 0 ? 0 : "all";
}

/**
 * A patch or token was chosen, and moving the pointer does not change it.
 * @param {Reply} reply
 * @param {Query | null} query
 * @returns {query is number}
 */
export const isPinned = (reply, query) => typeof query === "number" && query >= prefixOf(reply);

/**
 * A picture of a text: its reply has tokens.
 * @param {PictureView} view
 * @returns {view is TextView}
 */
export const isText = (view) => view.reply.tokens !== null;

/**
 * A picture of a photo: its reply has patches.
 * @param {PictureView} view
 * @returns {view is PhotoView}
 */
export const isPhoto = (view) => view.reply.patches !== null;

/**
 * A position that is looked at, in words.
 * @param {Reply} reply
 * @param {number} position
 * @returns {string}
 */
export function nameOf(reply, position) {
  if (reply.tokens) return `“${reply.tokens[position].text}”`;
  if (position === 0 && prefixOf(reply) > 0) return "class token";
  if (position < prefixOf(reply)) return `register ${position}`;
  const { row, col } = cellOf(reply.patches, position);
  return `row ${row}, column ${col}`;
}

/**
 * Who looks, in words, as the subject of a sentence.
 * @param {Reply} reply
 * @param {Query} query
 */
export function lookerOf(reply, query) {
  if (query === "all") return reply.tokens ? "all tokens on average" : "all positions on average";
  if (reply.tokens) return `“${lookersOf(reply)[query].text}”`;
  return query < prefixOf(reply) ? `the ${nameOf(reply, query)}` : `the patch in ${nameOf(reply, query)}`;
}

/**
 * A patch's row and column.
 * @param {Grid} patches
 * @param {number} position
 */
export function cellOf(patches, position) {
  const patch = position - patches.prefix_tokens;
  return { row: Math.floor(patch / patches.cols), col: patch % patches.cols };
}

/**
 * The position of the patch at a point of the photo, in its pixels, or null where the network saw nothing.
 * @param {Grid} patches
 * @param {number} x
 * @param {number} y
 */
export function patchAt(patches, x, y) {
  const { left, top, right, bottom } = patches.box;
  const seen = seenOf(patches);
  const col = Math.floor(((x - left) / (right - left)) * patches.cols);
  const row = Math.floor(((y - top) / (bottom - top)) * patches.rows);
  const inside = x >= seen.left && y >= seen.top && x < seen.right && y < seen.bottom;
  return inside && col < patches.cols && row < patches.rows ? patches.prefix_tokens + row * patches.cols + col : null;
}

/**
 * What the network saw of the photo itself, over which a layer's own grid may reach, and the grid of a padded photo.
 * @param {Grid} patches
 */
export function seenOf({ seen, box, image_width: width, image_height: height }) {
  const { left, top, right, bottom } = seen ?? box;
  return { left, top, right: Math.min(right, width), bottom: Math.min(bottom, height) };
}

/**
 * Where a patch lies on the photo, in its pixels.
 * @param {Grid} patches
 * @param {number} position
 */
export function rectOf(patches, position) {
  const { left, top, right, bottom } = patches.box;
  const { row, col } = cellOf(patches, position);
  const [width, height] = [(right - left) / patches.cols, (bottom - top) / patches.rows];
  return { x: left + col * width, y: top + row * height, width, height };
}

/**
 * Where an arrow key leads from a patch, staying on the grid; null for any other key. From no patch, to the middle.
 * @param {Grid} patches
 * @param {Query} position
 * @param {string} key
 */
export function moved(patches, position, key) {
  const step = STEPS[key];
  if (!step) return null;
  const start = patches.prefix_tokens;
  if (position === "all" || position < start) {
    return start + Math.floor(patches.rows / 2) * patches.cols + Math.floor(patches.cols / 2);
  }
  const cell = cellOf(patches, position);
  const row = Math.min(patches.rows - 1, Math.max(0, cell.row + step[0]));
  const col = Math.min(patches.cols - 1, Math.max(0, cell.col + step[1]));
  return start + row * patches.cols + col;
}
