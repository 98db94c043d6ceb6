// One picture with its scale and what it says in numbers: a photo, or tokens and matrix.

/** @import { PictureView, ViewEvents } from "../types.d.ts" */

import { heatTable, viridisTable } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { exact, largestOf, percent, topOf } from "./numbers.js";
import { photoView } from "./photo.js";
import { isPhoto, isText, lookerOf, nameOf, prefixOf } from "./places.js";
import { matrixView, tokenLine } from "./text.js";

const TOP_COUNT = 5;

/** A figure; `events` as photo.js and text.js name them, `label` tells two panels apart. */
export class Panel {
  /**
   * @param {ViewEvents} events
   * @param {string} label
   */
  constructor(events, label) {
    this.photo = photoView(events);
    this.tokens = tokenLine(events, label);
    this.matrix = matrixView(events);
    this.caption = make("figcaption");
    this.body = make("div", { class: "body" });
    this.scale = scale();
    this.told = make("p", { class: "told" });
    this.top = make("ol", { class: "top" });
    const reading = make("div", { class: "reading" }, this.scale.node, this.told, this.top);
    this.node = make("figure", { class: "panel" }, this.caption, this.tokens.node, this.body, reading);
  }

  /**
   * Draw a view.
   * @param {PictureView} view
   */
  draw(view) {
    const ofText = isText(view);
    const { node } = ofText ? this.matrix : this.photo;
    if (this.body.firstChild !== node) this.body.replaceChildren(node);
    this.node.classList.toggle("of-text", ofText);
    this.tokens.node.hidden = !ofText;
    if (isText(view)) {
      this.tokens.draw(view);
      this.matrix.draw(view);
    }
    if (isPhoto(view)) this.photo.draw(view);
    const start = prefixOf(view.reply);
    const shown = view.row.subarray(start);
    const largest = largestOf(shown);
    this.scale.draw(largest, ofText);
    this.told.textContent = tell(view);
    this.top.replaceChildren(...topOf(shown, TOP_COUNT).map((key) => topEntry(view, start + key, largest)));
  }
}

/**
 * What stands below the picture: the weight under the pointer, or how much lies on what is no patch.
 * @param {PictureView} view
 */
function tell({ reply, row, query, key, pinned }) {
  if (key !== null)
    return `${exact(row[key])} (${percent(row[key])}) from ${lookerOf(reply, query)} to ${nameOf(reply, key)}`;
  if (prefixOf(reply) > 0) {
    const apart = row.subarray(0, prefixOf(reply)).reduce((sum, weight) => sum + weight, 0);
    const who = prefixOf(reply) > 1 ? "class token and registers" : "the class token";
    return `${percent(apart)} lies on ${who}, the rest on patches.`;
  }
  if (pinned) return `Pinned. Point at a ${reply.tokens ? "token" : "patch"} to read its weight.`;
  return reply.tokens ? "Colours follow the square root of the weight." : "";
}

/**
 * @param {PictureView} view
 * @param {number} key
 * @param {number} largest
 */
function topEntry({ reply, row }, key, largest) {
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.width = `${(100 * row[key]) / (largest || 1)}%`;
  return make(
    "li",
    {},
    make("span", { class: "name", text: nameOf(reply, key) }),
    make("span", { class: "bar" }, bar),
    make("span", { class: "value", text: percent(row[key]), title: exact(row[key]) }),
  );
}

/** A strip of the colours from 0 to the largest weight. */
function scale() {
  const strip = make("canvas", { width: "256", height: "1", "aria-hidden": "true" });
  const [middle, most] = [make("span"), make("span")];
  const tables = { heat: heatTable(), viridis: viridisTable() };
  return {
    node: make("div", { class: "scale" }, strip, make("div", {}, make("span", { text: "0" }), middle, most)),
    /**
     * @param {number} largest
     * @param {boolean} isText
     */
    draw(largest, isText) {
      const context = contextOf(strip);
      const image = new ImageData(isText ? tables.viridis : tables.heat, 256, 1);
      context.fillStyle = "#333";
      context.putImageData(image, 0, 0);
      context.globalCompositeOperation = "destination-over";
      context.fillRect(0, 0, 256, 1);
      context.globalCompositeOperation = "source-over";
      middle.textContent = isText
        ? exact(Number((largest / 4).toPrecision(2)))
        : exact(Number((largest / 2).toPrecision(2)));
      most.textContent = exact(Number(largest.toPrecision(3)));
    },
  };
}
