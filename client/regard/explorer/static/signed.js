// Colours of numbers with signs, as regard.pictures has them: orange above 0, blue below. Pure.

/** @import { Colour } from "../types.d.ts" */

/**
 * Of Okabe and Ito 2008, which colour-blind people can tell apart: on a light ground, and on a dark one or a photo.
 * @type {Record<"light" | "dark", { plus: Colour, minus: Colour }>}
 */
const HUES = {
  light: { plus: [213, 94, 0], minus: [0, 114, 178] },
  dark: { plus: [230, 159, 0], minus: [86, 180, 233] },
};
const STEPS = 256;

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
 * The end of a scale that is as long on both sides of 0: the largest number, whatever its sign.
 * @param {Float32Array} numbers
 */
export const signedEnd = (numbers) => numbers.reduce((most, each) => Math.max(most, Math.abs(each)), 0) || 1;

/**
 * A number with its sign, three digits that count.
 * @param {number} number
 */
export const signed = (number) => `${number < 0 ? "" : "+"}${Number(number.toPrecision(3))}`;
