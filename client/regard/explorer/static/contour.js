// A line around the fewest patches that hold a share of a map's sum, as in the pictures (DINO, Caron et al. 2021). Pure.

/** @import { Grid } from "../types.d.ts" */

export const CONTOUR_SHARE = 0.6;

/**
 * The fewest patches that hold a share of a map's sum, 1 for each of them: [patches]; none where numbers are below 0.
 * @param {Float32Array} numbers
 * @param {number} share
 */
export function holdingMass(numbers, share) {
  const held = new Uint8Array(numbers.length);
  if (numbers.some((number) => number < 0)) return held;
  const wanted = share * numbers.reduce((sum, number) => sum + number, 0);
  const order = Array.from(numbers.keys()).sort((a, b) => numbers[b] - numbers[a] || a - b);
  let before = 0;
  for (const patch of order) {
    if (before >= wanted) break;
    held[patch] = 1;
    before += numbers[patch];
  }
  return held;
}

/**
 * The lines between patches that are held and those that are not, in the photo's pixels.
 * @param {Uint8Array} held
 * @param {Pick<Grid, "rows" | "cols" | "box">} patches
 * @returns {[x: number, y: number, toX: number, toY: number][]}
 */
export function edgesOf(held, { rows, cols, box: { left, top, right, bottom } }) {
  const [width, height] = [(right - left) / cols, (bottom - top) / rows];
  /** @type {(row: number, col: number) => number} */
  const at = (row, col) => (row >= 0 && col >= 0 && row < rows && col < cols ? held[row * cols + col] : 0);
  /** @type {[number, number, number, number][]} */
  const edges = [];
  for (let row = 0; row <= rows; row++) {
    for (let col = 0; col <= cols; col++) {
      const [x, y] = [left + col * width, top + row * height];
      if (at(row, col) !== at(row, col - 1)) edges.push([x, y, x, y + height]);
      if (at(row, col) !== at(row - 1, col)) edges.push([x, y, x + width, y]);
    }
  }
  return edges;
}
