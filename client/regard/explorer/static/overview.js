// The section with every head of every layer in small, row by row as answers come.

/** @import { Grid, Head, Layer, Model, PhotoReply, Picture, Reply, Scale, State } from "../types.d.ts" */

/** @import { Asker } from "./asking.js" */

import { questionOf } from "./asking.js";
import { HEAT_OPACITY } from "./colour.js";
import { byId, make } from "./dom.js";
import { hasSpecial, withoutSpecial } from "./hidden.js";
import { whenIdle } from "./idle.js";
import { look, matrixOf } from "./numbers.js";
import { paintPhoto } from "./photo.js";
import { prefixOf, seenOf, usualQuery } from "./places.js";
import { endOf } from "./scales.js";
import { Section } from "./section.js";
import { paintMatrix } from "./text.js";
import { onOwnGrid } from "./windows.js";

const PIXELS = 96;
const UNIT = { count: null, mixed: false };

/** Draws the overview into the page. `choose(layer, head)` is called for a head that was clicked. */
export class Overview {
  /**
   * @param {Asker} asker
   * @param {(layer: number, head: number) => void} choose
   */
  constructor(asker, choose) {
    this.section = new Section(asker, "layers-of-heads");
    this.choose = choose;
    this.signature = "";
  }

  /**
   * Show every layer of a state's input and model, asking for one after the other where they are not in the page. Who
   * attends is the class token of a photo, or every token.
   * @param {State} state
   * @param {Model} model
   * @param {{ layer: number, head: Head }} chosen
   * @param {(patches: Grid) => OffscreenCanvas} groundFor
   */
  async show(state, model, chosen, groundFor) {
    const questions = model.layers.map(({ layer }) => questionOf(state, model, layer, "mean"));
    const signature = JSON.stringify([questions, state.words_only]);
    if (signature === this.signature) return this.mark(chosen);
    this.signature = signature;
    this.section.fill();
    const again = () => {
      this.signature = "";
      this.show(state, model, chosen, groundFor);
    };
    for (const [place, question] of questions.entries()) {
      const told = `asking for layer ${place + 1} of ${questions.length} …`;
      const replies = await this.section.ask([question], told, again, place / questions.length);
      if (!replies || this.signature !== signature) return undefined;
      const reply = onOwnGrid(replies[0]);
      /** @type {Picture} */
      const whole = { reply, layer: reply.layers[0], head: 0 };
      const mixed = model.layers[place].mixes_heads;
      this.draw(state.words_only && hasSpecial(whole) ? withoutSpecial(whole, !mixed) : whole, groundFor);
      this.mark(chosen);
    }
    this.section.say();
    return undefined;
  }

  /** Nothing to see: closed, or no input. */
  close() {
    this.signature = "";
    this.section.close();
  }

  /**
   * Draw a layer's row of heads, when the page has nothing else to do.
   * @param {Picture} picture
   * @param {(patches: Grid) => OffscreenCanvas} groundFor
   */
  draw({ reply, layer }, groundFor) {
    const row = make("div", {}, make("span", { text: `layer ${layer.layer}` }));
    row.style.setProperty("--heads", String(layer.shape[0]));
    for (let head = 0; head < layer.shape[0]; head++) {
      const name = `layer ${layer.layer}, head ${head}`;
      const canvas = make("canvas", { width: String(PIXELS), height: String(PIXELS) });
      const button = make("button", { type: "button", "aria-label": name, title: name }, canvas);
      button.addEventListener("click", () => this.choose(layer.layer, head));
      Object.assign(button.dataset, { layer: layer.layer, head });
      row.append(button);
      whenIdle(() => paint(canvas, reply, layer, head, groundFor));
    }
    byId("layers-of-heads").append(row);
  }

  /**
   * Show which head is the chosen one.
   * @param {{ layer: number, head: Head }} chosen
   */
  mark({ layer, head }) {
    for (const button of byId("layers-of-heads").querySelectorAll("button"))
      button.setAttribute(
        "aria-pressed",
        String(button.dataset.layer === String(layer) && button.dataset.head === String(head)),
      );
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Reply} reply
 * @param {Layer} layer
 * @param {number} head
 * @param {(patches: Grid) => OffscreenCanvas} groundFor
 */
function paint(canvas, reply, layer, head, groundFor) {
  const query = usualQuery(reply);
  const row = look(layer, head, query);
  const numbers = reply.patches ? row.subarray(prefixOf(reply)) : matrixOf(layer, head);
  /** @type {Scale} */
  const scale = {
    ...endOf(layer, numbers, null),
    ...{ curve: reply.patches ? "linear" : "sqrt", chosen: null, common: null },
    ...{ opacity: HEAT_OPACITY, smooth: true, contour: false },
  };
  if (!reply.patches) return paintMatrix(canvas, { layer, head, query, scale, unit: UNIT });
  const photo = /** @type {PhotoReply} */ (reply);
  const { left, top, right, bottom } = seenOf(photo.patches);
  canvas.height = Math.max(1, Math.round((PIXELS * (bottom - top)) / (right - left)));
  const part = { x: left, y: top, width: right - left, height: bottom - top };
  const ground = groundFor(photo.patches);
  return paintPhoto(canvas, { reply: photo, row, query, key: null, ground, bare: null, scale, part });
}
