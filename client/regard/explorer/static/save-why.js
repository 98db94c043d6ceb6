// What a user takes away of a Why: the picture with its title and scale, the numbers as CSV or JSON.

/** @import { Model, WhyView } from "../types.d.ts" */

import { css, inkOn } from "./colour.js";
import { paintLines, placedIn } from "./lines.js";
import { csvOf, drawStrip, FINENESS, GROUND, INK, PICTURE_PIXELS, painted, pngOf, SCALE_PIXELS, save } from "./save.js";
import { signedColour, signedShare, signedTicks, told } from "./signed.js";
import { piecesOf } from "./tokens.js";
import { tableOf, unitOf } from "./why-picture.js";

const [TITLE_PIXELS, NOTE_PIXELS] = [24, 20];

/**
 * Save a Why: "png", "csv" or "json". `photo` is the canvas that it is drawn on, if it is of a photo.
 * @param {string} kind
 * @param {Model} model
 * @param {WhyView} view
 * @param {HTMLCanvasElement} photo
 */
export async function takeWhy(kind, model, view, photo) {
  const { why } = view;
  const against = why.against && `-against-${why.against}`;
  const name = `${model.name}-why-${why.label}${against}-${why.method}`;
  if (kind === "png") return save(`${name}.png`, await png(model, view, photo));
  const table = () => csvOf(why, why.positions, why.values, "relevance");
  if (kind === "csv") return save(`${name}.csv`, new Blob([table()], { type: "text/csv" }));
  const numbers = { model: model.name, version: model.version, ...why };
  return save(`${name}.json`, new Blob([JSON.stringify(numbers)], { type: "application/json" }));
}

/**
 * @param {Model} model
 * @param {WhyView} view
 * @param {HTMLCanvasElement} photo
 */
function png(model, view, photo) {
  const { why } = view;
  const scale = {
    ...{ table: tableOf({ ...view, dark: true }, GROUND), overPhoto: Boolean(why.patches) },
    ...{ ticks: signedTicks(why, view.scale), told: unitOf(view) },
  };
  const [width, fineness] = why.patches ? [photo.width, 1] : [PICTURE_PIXELS / 2, FINENESS];
  /** @type {(text: string, height: number, font: string) => OffscreenCanvas | HTMLCanvasElement} */
  const written = (text, height, font) =>
    painted(width, height, fineness, (context) => {
      Object.assign(context, { fillStyle: INK, font: `${font} system-ui, sans-serif` });
      context.fillText(text, 0, height - 6, width);
    });
  const parts = [
    written(`${model.name} · ${why.headline}`, TITLE_PIXELS, "600 18px"),
    why.patches ? photo : tokensOf(view, width),
    painted(width, SCALE_PIXELS, fineness, (context) => drawStrip(context, scale, width)),
  ];
  if (why.unplaced) parts.push(written(`Without a place here: ${why.unplaced}`, NOTE_PIXELS, "14px"));
  return pngOf([parts]);
}

/**
 * The tokens as they are in the page, on the picture's dark ground.
 * @param {WhyView} view
 * @param {number} width
 */
function tokensOf({ why, scale: { end }, state, picked }, width) {
  const tokens = why.positions.map((position) => (why.tokens ?? [])[position]);
  const text = state.reading ? state.text : null;
  const chips = piecesOf(tokens, text).map((word, place) => {
    const colour = signedColour(signedShare(why.values[place], end), GROUND, true);
    const colours = { ground: css(colour), ink: inkOn(colour) };
    return { text: word, small: told(why, why.values[place]), colours, looks: picked.has(place) };
  });
  const lines = placedIn([chips], width, text !== null);
  return painted(width, lines.height, FINENESS, (context) => paintLines(context, { ink: INK, text }, lines.placed));
}
