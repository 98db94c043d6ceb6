// Colours of weights, as matplotlib has them: viridis between tokens, inferno over photos.

/** @import { Colour } from "../types.d.ts" */

import { contextOf } from "./dom.js";

const VIRIDIS = [
  "#440154",
  "#48186a",
  "#472d7b",
  "#424086",
  "#3b528b",
  "#33638d",
  "#2c728e",
  "#26828e",
  "#21918c",
  "#1f9f88",
  "#27ad81",
  "#3dbc74",
  "#5cc863",
  "#81d34d",
  "#aadc32",
  "#d5e21a",
  "#fde725",
];
const INFERNO = [
  "#000004",
  "#0b0724",
  "#210c4a",
  "#3d0965",
  "#57106e",
  "#71196e",
  "#8a226a",
  "#a32c61",
  "#bc3754",
  "#d04545",
  "#e35933",
  "#f1711f",
  "#f98c0a",
  "#fcaa0f",
  "#f9c932",
  "#f2e865",
  "#fcffa4",
];
const HEAT_START = 0.3;
export const HEAT_OPACITY = 0.88;
/** Of the grey photo below a map: it runs from black to this. */
export const DIMMED = 0.65;

/**
 * Of lines on a light and on a dark ground: one that stands for what is chosen (as base.css has it), and of several heads
 * (after Okabe and Ito 2008). To people with protanopia, deuteranopia or tritanopia too any two of these differ, by 15 in
 * CIELAB and more.
 */
export const LINES = {
  light: { one: "#136f74", heads: ["#0072b2", "#d55e00", "#009e73", "#882255", "#1d1c1a"] },
  dark: { one: "#5ec9bb", heads: ["#56b4e9", "#d55e00", "#009e73", "#cc79a7", "#f0e442"] },
};
const STYLES = /** @type {const} */ (["solid", "dashed", "dotted"]);

/**
 * How the lines of a head are drawn: five colours, then the same dashed, and dotted.
 * @param {number} head
 * @param {boolean} dark
 */
export function lineOfHead(head, dark) {
  const { heads } = LINES[dark ? "dark" : "light"];
  return { colour: heads[head % heads.length], style: STYLES[Math.floor(head / heads.length) % STYLES.length] };
}

/**
 * The colour at a share from 0 to 1 of a list of equally spaced "#rrggbb", as [red, green, blue] from 0 to 255.
 * @param {string[]} stops
 * @param {number} share
 * @returns {Colour}
 */
function between(stops, share) {
  const place = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const first = Math.min(stops.length - 2, Math.floor(place));
  /** @type {(stop: string) => number[]} */
  const rgb = (stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16));
  const [left, right] = [rgb(stops[first]), rgb(stops[first + 1])];
  const mixed = left.map((value, channel) => Math.round(value + (right[channel] - value) * (place - first)));
  return [mixed[0], mixed[1], mixed[2]];
}

/**
 * Viridis, which colour-blind people can read.
 * @param {number} share
 */
const viridis = (share) => between(VIRIDIS, share);

/**
 * A CSS colour.
 * @param {Colour} colour
 */
export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/**
 * Black or white, whichever can be read better on this ground: by relative luminance (WCAG 2.2).
 * @param {Colour} ground
 */
export function inkOn(ground) {
  const [red, green, blue] = ground.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

/** @type {Map<number, Uint8ClampedArray<ArrayBuffer>>} */
const heats = new Map();

/**
 * 256 RGBA colours over a darkened photo: from clear to an opacity, [256 * 4] bytes; made once for each.
 * @param {number} opacity
 */
export function heatTable(opacity) {
  const made = heats.get(opacity);
  if (made) return made;
  const table = new Uint8ClampedArray(256 * 4);
  heats.set(opacity, table);
  for (let step = 0; step < 256; step++) {
    const share = step / 255;
    table.set([...between(INFERNO, HEAT_START + (1 - HEAT_START) * share), 255 * opacity * share ** 0.8], step * 4);
  }
  return table;
}

/** 256 opaque RGBA colours of viridis, [256 * 4] bytes. */
export function viridisTable() {
  const table = new Uint8ClampedArray(256 * 4);
  for (let step = 0; step < 256; step++) table.set([...viridis(step / 255), 255], step * 4);
  return table;
}

/** 256 colours of viridis as CSS, each with the ink that can be read on it. */
export const VIRIDIS_CSS = Array.from({ length: 256 }, (_, step) => {
  const ground = viridis(step / 255);
  return { ground: css(ground), ink: inkOn(ground) };
});

/**
 * Paint numbers, one a pixel, by a table of 256 colours onto a canvas.
 * @param {OffscreenCanvas} canvas
 * @param {Float32Array} numbers [height * width]
 * @param {Uint8ClampedArray<ArrayBuffer>} table
 * @param {(number: number) => number} place Of a number in the table, from 0 to 255
 */
export function paint(canvas, numbers, table, place) {
  const image = new ImageData(canvas.width, canvas.height);
  const [colours, pixels] = [new Uint32Array(table.buffer), new Uint32Array(image.data.buffer)];
  for (let at = 0; at < pixels.length; at++) pixels[at] = colours[place(numbers[at])];
  contextOf(canvas).putImageData(image, 0, 0);
}

/**
 * Draw a scale's colours from left to right; over a photo over all greys that it may have, the brightest above.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {{ x: number, y: number, width: number, height: number }} place
 * @param {Uint8ClampedArray<ArrayBuffer>} table
 * @param {boolean} overPhoto
 */
export function paintStrip(context, { x, y, width, height }, table, overPhoto) {
  const strip = new OffscreenCanvas(256, 1);
  contextOf(strip).putImageData(new ImageData(table, 256, 1), 0, 0);
  if (overPhoto) {
    const greys = context.createLinearGradient(0, y, 0, y + height);
    const brightest = Math.round(255 * DIMMED);
    greys.addColorStop(0, css([brightest, brightest, brightest]));
    greys.addColorStop(1, css([0, 0, 0]));
    context.fillStyle = greys;
    context.fillRect(x, y, width, height);
  }
  context.imageSmoothingEnabled = false;
  context.drawImage(strip, x, y, width, height);
}
