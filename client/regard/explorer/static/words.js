// The section with the map of each word of the reader's labels: which patch of the photo answers to it.

/** @import { Grid, Model, PhotoReply, Scale, State } from "../types.d.ts" */

/** @import { Asker } from "./asking.js" */

import { wordsQuestion } from "./asking.js";
import { make } from "./dom.js";
import { exact, look, topOf } from "./numbers.js";
import { paintPhoto } from "./photo.js";
import { nameOf, seenOf } from "./places.js";
import { Section } from "./section.js";

const PIXELS = 240;

/** Draws the maps into the page. `groundFor(patches)` returns the grey photo. */
export class Words {
  /**
   * @param {Asker} asker
   * @param {(patches: Grid) => OffscreenCanvas} groundFor
   */
  constructor(asker, groundFor) {
    this.section = new Section(asker, "word-maps");
    this.groundFor = groundFor;
  }

  /**
   * Show the maps of a state's labels, asking where they are not in the page.
   * @param {State} state
   * @param {Model} model
   * @param {Scale} scale
   */
  async show(state, model, scale) {
    const again = () => this.show(state, model, scale);
    const replies = await this.section.ask([wordsQuestion(state, model)], "comparing each word …", again);
    if (!replies) return;
    const reply = /** @type {PhotoReply} */ (replies[0]);
    const ground = this.groundFor(reply.patches);
    this.section.fill(...reply.words.map((word, place) => mapOf(reply, word, place, ground, scale)));
  }

  /** Nothing to see: closed, or no labels. */
  close() {
    this.section.close();
  }
}

/**
 * One word's map, from its own least cosine to its largest: those of one word differ little, and words much.
 * @param {PhotoReply} reply
 * @param {string} word
 * @param {number} place
 * @param {OffscreenCanvas} ground
 * @param {Scale} scale
 */
function mapOf(reply, word, place, ground, scale) {
  const cosines = look(reply.layers[0], 0, place);
  const [least, largest] = [Math.min(...cosines), Math.max(...cosines)];
  const { left, top, right, bottom } = seenOf(reply.patches);
  const part = { x: left, y: top, width: right - left, height: bottom - top };
  const canvas = make("canvas", {
    width: String(PIXELS),
    height: String(Math.max(1, Math.round((PIXELS * part.height) / part.width))),
    "aria-hidden": "true",
  });
  const row = cosines.map((cosine) => cosine - least);
  paintPhoto(canvas, {
    reply,
    row,
    query: "all",
    key: null,
    ground,
    bare: null,
    scale: { ...scale, end: largest - least || 1 },
    part,
  });
  const [best] = topOf(row, 1);
  const told = `${exact(Number(least.toPrecision(2)))} to ${exact(Number(largest.toPrecision(2)))}`;
  const caption = make(
    "figcaption",
    {},
    make("strong", { text: place ? `“${word}”` : word }),
    make("span", { text: `${told}, most at ${nameOf(reply, best)}` }),
  );
  return make("figure", { class: "head map" }, canvas, caption);
}
