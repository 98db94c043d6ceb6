// How weights become shares of a scale, and what lies between the patches of a map: as regard/scales.py. Pure.

/** @import { Curve, End, Head, Layer, Query, Scale, Unit } from "../types.d.ts" */

import { joined, largestOf, matrixOf, numberOf } from "./numbers.js";

/** @type {Curve[]} */
export const CURVES = ["linear", "sqrt", "log"];
/** A logarithmic scale begins at its end divided by 10 to this. */
const DECADES = 3;
const PRODUCT_PERCENTILE = 99;

/**
 * Where the scale of some numbers ends: at a percentile of them, and at the largest where nearly all are 0.
 * `chosen`: null for 99 of a rollout, which gathers on very few positions, and 100 of all else.
 * @param {Layer} layer
 * @param {Float32Array} numbers
 * @param {number | null} chosen
 * @returns {End}
 */
export const endOf = (layer, numbers, chosen) => endOfAll(layer, [numbers], chosen);

/**
 * Where one scale of several lists of numbers ends, each told times its own count. Kept with the first list, since
 * matrices are asked for at every move of the pointer.
 * @param {Layer} layer
 * @param {Float32Array[]} lists
 * @param {number | null} chosen
 * @param {number[]} times
 * @returns {End}
 */
export function endOfAll(layer, lists, chosen, times = lists.map(() => 1)) {
  const percentile = chosen ?? (layer.measure.endsWith("rollout") ? PRODUCT_PERCENTILE : 100);
  const key = [percentile, ...lists.map(numberOf), ...times].join();
  const kept = ends.get(lists[0]) ?? new Map();
  const known = kept.get(key);
  if (known) return known;
  const told = lists.map((list, at) => (times[at] === 1 ? list : list.map((number) => number * times[at])));
  const end = endAt(told.length > 1 ? joined(told) : told[0], percentile);
  ends.set(lists[0], kept.set(key, end));
  return end;
}

/**
 * Where a scale ends: at a percentile of numbers that are not below 0, and at the largest where nearly all are 0.
 * @param {Float32Array} numbers
 * @param {number} percentile
 * @returns {End}
 */
export function endAt(numbers, percentile) {
  const largest = largestOf(numbers);
  const value = percentile < 100 ? percentileOf(numbers, percentile) : largest;
  return value > 0 ? { end: value, largest, percentile } : { end: largest || 1, largest, percentile: 100 };
}

/** @type {WeakMap<Float32Array, Map<string, End>>} */
const ends = new WeakMap();
/** @type {WeakMap<Float32Array, Float32Array>} Matrices as they are told, made once for each */
const told = new WeakMap();

/**
 * The furthest of some ends.
 * @param {End[]} ends
 */
export const widest = (ends) => ends.toSorted((a, b) => b.end - a.end)[0];

/**
 * An end of numbers that are told times a count.
 * @param {End} end
 * @param {number} count
 * @returns {End}
 */
export const endTimes = ({ end, largest, percentile }, count) => ({
  end: end * count,
  largest: largest * count,
  percentile,
});

/**
 * A percentile, between two numbers on the line from one to the other.
 * @param {Float32Array} numbers
 * @param {number} percentile
 */
function percentileOf(numbers, percentile) {
  const sorted = Float32Array.from(numbers).sort();
  const place = (percentile / 100) * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(sorted.length - 1, below + 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/**
 * The share of a scale that a weight gets, from 0 to 1.
 * @param {{ curve: Curve, end: number }} scale
 * @param {number} weight
 */
function shareOf({ curve, end }, weight) {
  const share = Math.min(1, Math.max(0, weight / end));
  if (curve === "log") return Math.max(0, 1 + Math.log10(share) / DECADES);
  return curve === "sqrt" ? Math.sqrt(share) : share;
}

/**
 * The place of a weight in a table of 256 colours.
 * @param {{ curve: Curve, end: number }} scale
 * @returns {(weight: number) => number}
 */
export function placer({ curve, end }) {
  const most = 255 / end;
  if (curve === "linear") return (weight) => (weight <= 0 ? 0 : weight >= end ? 255 : (weight * most + 0.5) | 0);
  return (weight) => Math.round(255 * shareOf({ curve, end }, weight));
}

/**
 * The weight at a share of a scale.
 * @param {{ curve: Curve, end: number }} scale
 * @param {number} share
 */
export function weightAt({ curve, end }, share) {
  if (curve === "log") return end * 10 ** (DECADES * (share - 1));
  return end * (curve === "sqrt" ? share * share : share);
}

/**
 * How a weight is told: in multiples of 1/N, in percent, or as it is where rows are no shares of 1.
 * @param {Layer} layer
 * @param {Query} query
 * @param {{ multiples: boolean, mixed: boolean }} how
 * @returns {Unit}
 */
export function unitOf({ kind, window, shape }, query, { multiples, mixed }) {
  const [, queries, keys] = shape;
  const all = window ? window.height * window.width : keys;
  const before = typeof query === "number" ? keys - queries + query + 1 : null; // whoever writes sees no further
  const told = multiples && !mixed;
  return { count: told ? (kind === "causal" ? before : all) : null, mixed, byRow: told && kind === "causal" };
}

/**
 * The matrix of a head as it is told: in multiples of uniform attention where each row divides itself over keys of its
 * own number, [Q * K].
 * @param {Layer} layer
 * @param {Head} head
 * @param {Unit} unit
 */
export function toldMatrix(layer, head, { byRow }) {
  const matrix = matrixOf(layer, head);
  const made = byRow ? told.get(matrix) : matrix;
  if (made) return made;
  const [, queries, keys] = layer.shape;
  const multiples = matrix.map((weight, at) => weight * (keys - queries + Math.floor(at / keys) + 1));
  told.set(matrix, multiples);
  return multiples;
}

/**
 * A map with `times` x `times` numbers a patch, which has each patch's own at its centre: monotone cubics along rows,
 * then along columns (Fritsch and Butland 1984). Nothing rises above the largest. `times` is odd.
 * @param {Float32Array} numbers
 * @param {number} cols
 * @param {number} rows
 * @param {number} times
 */
export function smoothed(numbers, cols, rows, times) {
  const across = stretched(turned(numbers, rows, cols), cols, rows, times);
  return stretched(turned(across, cols * times, rows), rows, cols * times, times);
}

/**
 * Interpolate from line to line: [count, width] becomes [count * times, width]; level beyond the outer lines.
 * @param {Float32Array} lines
 * @param {number} count
 * @param {number} width
 * @param {number} times
 */
function stretched(lines, count, width, times) {
  const slopes = slopesOf(lines, count, width);
  const fine = new Float32Array(count * times * width);
  for (let at = 0; at < count * times; at++) {
    const place = (at - (times - 1) / 2) / times;
    const left = Math.floor(place);
    const t = place - left;
    const [first, second] = [Math.max(0, left) * width, Math.min(count - 1, left + 1) * width];
    const [start, end] = [(1 + 2 * t) * (1 - t) ** 2, t * t * (3 - 2 * t)];
    // Beyond the outer lines both are the same line, whose slope is 0.
    const [leaving, arriving] = [t * (1 - t) ** 2, t * t * (t - 1)];
    for (let x = 0; x < width; x++) {
      fine[at * width + x] =
        start * lines[first + x] +
        end * lines[second + x] +
        leaving * slopes[first + x] +
        arriving * slopes[second + x];
    }
  }
  return fine;
}

/**
 * The harmonic mean of the differences before and after each line, 0 where these differ in sign: [count, width].
 * @param {Float32Array} lines
 * @param {number} count
 * @param {number} width
 */
function slopesOf(lines, count, width) {
  const slopes = new Float32Array(lines.length);
  for (let at = width; at < (count - 1) * width; at++) {
    const [before, after] = [lines[at] - lines[at - width], lines[at + width] - lines[at]];
    if (before * after > 0) slopes[at] = (2 * before * after) / (before + after);
  }
  return slopes;
}

/**
 * Rows become columns.
 * @param {Float32Array} numbers
 * @param {number} rows
 * @param {number} cols
 */
function turned(numbers, rows, cols) {
  const result = new Float32Array(numbers.length);
  for (let row = 0; row < rows; row++)
    for (let col = 0; col < cols; col++) result[col * rows + row] = numbers[row * cols + col];
  return result;
}

/**
 * The scale of one head among others: its own end, unless all have one.
 * @param {Scale} scale
 * @param {Layer} layer
 * @param {Float32Array} numbers
 * @returns {Scale}
 */
export const scaleOfOne = (scale, layer, numbers) =>
  scale.common ? { ...scale, ...scale.common } : { ...scale, ...endOf(layer, numbers, scale.chosen) };
