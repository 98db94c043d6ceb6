// Tokens in lines on a canvas, as tokens.js shows them in the page: for pictures that are taken away.

/** @import { Rect, TextView } from "../types.d.ts" */

import { VIRIDIS_CSS } from "./colour.js";
import { contextOf } from "./dom.js";
import { percent, said } from "./numbers.js";
import { placer } from "./scales.js";
import { piecesOf } from "./tokens.js";

/** @typedef {{ ground: string, ink: string }} Colours */
/** @typedef {{ text: string, small: string, colours: Colours | null, looks: boolean }} Chip */
/** @typedef {{ placed: (Chip & Rect)[], height: number }} Lines */

const CHIP = { font: "15px ui-monospace, Menlo, Consolas, monospace", small: "11px system-ui, sans-serif", high: 38 };
const READ = { font: "16px Georgia, serif", high: 24 };
const [GAP, AROUND] = [5, 16];

/**
 * The lines of a text: its tokens, or the text as it is read; of one that is written, those that were read and those that
 * were written.
 * @param {TextView} view
 * @returns {Chip[][]}
 */
function chipsOf({ reply, row, rowEnd, scale, unit, query, text }) {
  const pieces = piecesOf(reply.tokens, text);
  const writes = Boolean(reply.writing);
  const place = placer({ ...scale, ...rowEnd });
  const tokens = pieces.map((piece, at) => ({
    text: piece,
    small: said(row[at], unit),
    colours: VIRIDIS_CSS[place(row[at])],
    looks: !writes && query === at,
  }));
  const written = (reply.writing?.tokens ?? []).map((token, at) => ({
    ...{ text: token.text, small: percent(Math.exp(token.log_probability)), colours: null, looks: query === at },
  }));
  return writes ? [tokens, written] : [tokens];
}

/**
 * Where the tokens of a view lie in lines of a width, and how high all of them are.
 * @param {TextView} view
 * @param {number} width
 */
export const linesOf = (view, width) => placedIn(chipsOf(view), width, view.text !== null);

/**
 * The same of any tokens; lists of them begin a line each. `reads`: they are a text as it is read.
 * @param {Chip[][]} lists
 * @param {number} width
 * @param {boolean} reads
 * @returns {Lines}
 */
export function placedIn(lists, width, reads) {
  const context = contextOf(new OffscreenCanvas(1, 1));
  const { high } = reads ? READ : CHIP;
  /** @type {(Chip & Rect)[]} */
  const placed = [];
  let [x, y] = [0, 0];
  const next = () => {
    [x, y] = [0, y + high + GAP];
  };
  for (const chips of lists) {
    if (x > 0) next();
    for (const chip of chips) {
      context.font = reads ? READ.font : CHIP.font;
      const own = context.measureText(chip.text).width;
      context.font = CHIP.small;
      const wide = Math.min(width, reads ? own : AROUND + Math.max(own, context.measureText(chip.small).width));
      if (x > 0 && x + wide > width) next();
      placed.push({ ...chip, x, y, width: wide, height: high });
      x += wide + (reads ? 0 : GAP);
    }
  }
  return { placed, height: y + high };
}

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {Pick<TextView, "ink" | "text">} view
 * @param {(Chip & Rect)[]} placed
 */
export function paintLines(context, { ink, text }, placed) {
  for (const { text: word, small, colours, looks, x, y, width, height } of placed) {
    if (colours) context.fillStyle = colours.ground;
    context.strokeStyle = ink;
    context.lineWidth = 2;
    context.beginPath();
    if (text === null) context.roundRect(x + 1, y + 1, width - 2, height - 2, 6);
    else context.rect(x, y, width, height);
    if (colours) context.fill();
    if (looks || !colours) {
      context.globalAlpha = looks ? 1 : 0.35;
      context.stroke();
      context.globalAlpha = 1;
    }
    Object.assign(context, { fillStyle: colours?.ink ?? ink, textBaseline: "middle" });
    if (text === null) {
      Object.assign(context, { textAlign: "center", font: CHIP.font });
      context.fillText(word, x + width / 2, y + 14, width);
      context.font = CHIP.small;
      context.fillText(small, x + width / 2, y + 29, width);
    } else {
      Object.assign(context, { textAlign: "left", font: READ.font });
      context.fillText(word, x, y + height / 2, width);
    }
  }
}
