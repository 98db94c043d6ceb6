// Colours of numbers with signs, as regard.pictures has them: orange above 0, blue below. Pure.

/** @import { Colour, End } from "../types.d.ts" */

import { endAt } from "./scales.js";

/**
 * Of Okabe and Ito 2008, which colour-blind people can tell apart: on a light ground, and on a dark one or a photo.
 * @type {Record<"light" | "dark", { plus: Colour, minus: Colour }>}
 */
const HUES = {
  light: { plus: [213, 94, 0], minus: [0, 114, 178] },
  dark: { plus: [230, 159, 0], minus: [86, 180, 233] },
};
const STEPS = 256;
/** By these nothing is below 0, and numbers have no unit. */
const NEVER_BELOW_0 = ["genatt", "legrad"];

/**
 * Whether a number may be below 0 by a method.
 * @param {{ method: string }} why
 */
export const isSigned = ({ method }) => !NEVER_BELOW_0.includes(method);

/**
 * Where a number lies on a scale that is as long on both sides of 0: from 0 at -end to 1 at end, half for 0.
 * @param {number} number
 * @param {number} end
 */
export const signedShare = (number, end) => (1 + Math.min(1, Math.max(-1, number / end))) / 2;

/**
 * How strong a colour is, from 0 to 1.
 * @param {number} share
 */
const strengthOf = (share) => Math.abs(2 * share - 1) ** 0.8;

/**
 * 256 RGBA colours over a darkened photo: clear in the middle, up to an opacity at both ends, [256 * 4] bytes.
 * @param {number} opacity
 */
export function signedTable(opacity) {
  const table = new Uint8ClampedArray(STEPS * 4);
  for (let step = 0; step < STEPS; step++) {
    const share = step / (STEPS - 1);
    table.set([...HUES.dark[share > 0.5 ? "plus" : "minus"], 255 * opacity * strengthOf(share)], step * 4);
  }
  return table;
}

/**
 * The colour at a share of the scale, on paper of a colour.
 * @param {number} share
 * @param {Colour} paper
 * @param {boolean} dark
 * @returns {Colour}
 */
export function signedColour(share, paper, dark) {
  const hue = HUES[dark ? "dark" : "light"][share > 0.5 ? "plus" : "minus"];
  const [red, green, blue] = paper.map((ground, at) => Math.round(ground + (hue[at] - ground) * strengthOf(share)));
  return [red, green, blue];
}

/**
 * 256 opaque RGBA colours on paper of a colour, [256 * 4] bytes.
 * @param {Colour} paper
 * @param {boolean} dark
 */
export function signedPaperTable(paper, dark) {
  const table = new Uint8ClampedArray(STEPS * 4);
  for (let step = 0; step < STEPS; step++) table.set([...signedColour(step / (STEPS - 1), paper, dark), 255], step * 4);
  return table;
}

/**
 * The half of a table that is above 0, [256 * 4] bytes: for numbers of which none is below.
 * @param {Uint8ClampedArray<ArrayBuffer>} table
 */
export function upperHalf(table) {
  const half = new Uint8ClampedArray(table.length);
  for (let step = 0; step < STEPS; step++) {
    const from = 4 * ((STEPS + step) >> 1);
    half.set(table.subarray(from, from + 4), 4 * step);
  }
  return half;
}

/**
 * Where a scale ends that is as long on both sides of 0: at a percentile of the numbers without their signs, or at the
 * largest.
 * @param {Float32Array} numbers
 * @param {number | null} chosen
 */
export const signedEnd = (numbers, chosen) => endAt(numbers.map(Math.abs), chosen ?? 100);

/**
 * What stands at the beginning, the middle and the end of a scale of a method's numbers.
 * @param {{ method: string }} why
 * @param {End} scale
 */
export function signedTicks(why, { end, largest }) {
  const two = isSigned(why);
  const numbers = two ? [-end, 0, end] : [0, end / 2, end];
  const [first, middle, last] = numbers.map((number) => (number ? told(why, number) : "0"));
  const beyond = largest > end;
  return [beyond && two ? `◂ ${first}` : first, middle, beyond ? `${last} ▸` : last];
}

/**
 * A number with its sign, three digits that count.
 * @param {number} number
 */
export const signed = (number) => `${number < 0 ? "" : "+"}${Number(number.toPrecision(3))}`;

/**
 * A number of a method's, with its sign where one may be below 0.
 * @param {{ method: string }} why
 * @param {number} number
 */
export const told = (why, number) => (isSigned(why) ? signed(number) : `${Number(number.toPrecision(3))}`);
