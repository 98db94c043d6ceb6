// Rows of attention and what is made of them in the page. Pure.

/** @import { Head, Layer, Query, Reduction, Unit } from "../types.d.ts" */

import { keyCells } from "./windows.js";

/** @type {Float32Array | null} */
let halves = null;

/** The value of every float16, by its bits: [65536]; made once, at the first look. */
export function halfTable() {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction
            ? NaN
            : Infinity
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    halves[bits] = bits & 0x8000 ? -size : size;
  }
  return halves;
}

/**
 * How many positions a row of a layer is about: its keys, or where it attends in windows the cells of its grid.
 * @param {Layer} layer
 */
const lengthOf = (layer) => (layer.window ? layer.window.rows * layer.window.cols : layer.shape[2]);

/**
 * What one head's query attends to: Float32Array [K], in windows one for each cell of the layer's grid. `head` is its
 * place in the layer.
 * @param {Layer} layer
 * @param {number} head
 * @param {number} query
 */
export function rowOf(layer, head, query) {
  const [, queries, keys] = layer.shape;
  const start = (head * queries + query) * keys;
  const packed = layer.data.subarray(start, start + keys);
  const row = new Float32Array(packed);
  if (layer.half) for (let key = 0; key < keys; key++) row[key] = halfTable()[packed[key]];
  if (!layer.window) return row;
  const spread = new Float32Array(lengthOf(layer));
  keyCells(layer.window, query).forEach((cell, key) => {
    if (cell >= 0) spread[cell] = row[key];
  });
  return spread;
}

/**
 * Rows of all heads, or those of one, as one: "mean", "max" or "min" weight by weight, or the place of a head.
 * @param {Layer} layer
 * @param {Head} head
 * @param {Query} query
 * @returns {Float32Array}
 */
export function look(layer, head, query) {
  if (query === "all") return meanOfRows(layer, head);
  if (typeof head === "number") return rowOf(layer, Math.min(head, layer.shape[0] - 1), query);
  return reduce(
    Array.from({ length: layer.shape[0] }, (_, place) => rowOf(layer, place, query)),
    head,
  );
}

/**
 * Several rows as one, weight by weight.
 * @param {Float32Array[]} rows
 * @param {Reduction} how
 */
export function reduce(rows, how) {
  const result = Float32Array.from(rows[0]);
  for (const row of rows.slice(1)) {
    for (let key = 0; key < row.length; key++) {
      if (how === "mean") result[key] += row[key];
      else if (how === "max" ? row[key] > result[key] : row[key] < result[key]) result[key] = row[key];
    }
  }
  return how === "mean" ? result.map((weight) => weight / rows.length) : result;
}

/**
 * How much each key is attended to by all queries on average: [K]; kept with the layer, since it reads all of it.
 * @param {Layer} layer
 * @param {Head} head
 */
export function meanOfRows(layer, head) {
  layer.means ??= new Map();
  let means = layer.means.get(head);
  if (!means) {
    const [queries, keys] = [layer.shape[1], lengthOf(layer)];
    const sums = new Float64Array(keys);
    for (let query = 0; query < queries; query++) {
      const row = look(layer, head, query);
      for (let key = 0; key < keys; key++) sums[key] += row[key];
    }
    means = Float32Array.from(sums, (sum) => sum / queries);
    layer.means.set(head, means);
  }
  return means;
}

/**
 * Every query's row: Float32Array [Q * K]; kept with the layer.
 * @param {Layer} layer
 * @param {Head} head
 */
export function matrixOf(layer, head) {
  layer.matrices ??= new Map();
  let matrix = layer.matrices.get(head);
  if (!matrix) {
    const [, queries, keys] = layer.shape;
    matrix = new Float32Array(queries * keys);
    for (let query = 0; query < queries; query++) matrix.set(look(layer, head, query), query * keys);
    layer.matrices.set(head, matrix);
  }
  return matrix;
}

/** @type {WeakMap<Float32Array, number>} */
const known = new WeakMap();
let lastKnown = 0;

/**
 * What a list of numbers is known by where something is kept that was made of it.
 * @param {Float32Array} list
 */
export function numberOf(list) {
  const number = known.get(list) ?? ++lastKnown;
  known.set(list, number);
  return number;
}

/**
 * The largest of some numbers, at least 0.
 * @param {Float32Array} numbers
 */
export function largestOf(numbers) {
  let largest = 0;
  for (const number of numbers) if (number > largest) largest = number;
  return largest;
}

/**
 * Several lists of numbers as one.
 * @param {Float32Array[]} lists
 */
export function joined(lists) {
  const all = new Float32Array(lists.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const list of lists) {
    all.set(list, at);
    at += list.length;
  }
  return all;
}

/**
 * The places of the largest weights, the largest first.
 * @param {Float32Array} row
 * @param {number} count
 */
export function topOf(row, count) {
  /** @type {number[]} */
  const top = [];
  for (let key = 0; key < row.length; key++) {
    if (top.length === count && row[key] <= row[top[count - 1]]) continue;
    let place = top.length;
    while (place > 0 && row[key] > row[top[place - 1]]) place--;
    top.splice(place, 0, key);
    top.length = Math.min(count, top.length);
  }
  return top;
}

/**
 * How much two rows share: the sum of the smaller of each pair of weights, 1 for equal rows that sum to 1.
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
export const overlap = (a, b) => a.reduce((sum, weight, key) => sum + Math.min(weight, b[key]), 0);

/**
 * The mean over a head's queries: [H].
 * @param {Layer} layer
 */
export function meansByHead(layer) {
  const [heads, queries, keys] = layer.shape;
  const each = queries * keys;
  return Array.from({ length: heads }, (_, head) => {
    const part = Float32Array.from(layer.data.subarray(head * each, (head + 1) * each));
    return part.reduce((sum, value) => sum + value, 0) / each;
  });
}

/**
 * A weight as people read it: four digits that count.
 * @param {number} weight
 */
export const exact = (weight) => (weight === 0 ? "0" : String(Number(weight.toPrecision(4))));

/**
 * A weight in percent: "12 %", "1.2 %", "0.12 %".
 * @param {number} weight
 */
export function percent(weight) {
  const sign = weight < 0 ? "−" : ""; // of mixed heads
  const value = 100 * Math.abs(weight);
  if (value !== 0 && value < 0.01) return sign ? "≈ 0 %" : "< 0.01 %";
  return `${sign}${value >= 9.95 ? value.toFixed(0) : value >= 0.995 ? value.toFixed(1) : value.toFixed(2)} %`;
}

/**
 * A weight in its unit: in percent, in multiples of 1/N, or as it is.
 * @param {number} weight
 * @param {Unit} unit
 */
export function said(weight, { count, mixed }) {
  if (mixed) return exact(Number(weight.toPrecision(3)));
  return count ? `${exact(Number((weight * count).toPrecision(3)))} / N` : percent(weight);
}
