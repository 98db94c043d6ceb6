// One picture with its scale and what it says in numbers: a photo, or tokens and matrix.

/** @import { PictureView, ViewEvents } from "../types.d.ts" */

import { heatTable, viridisTable } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { exact, largestOf, percent, topOf } from "./numbers.js";
import { photoView } from "./photo.js";
import { isPhoto, isText, lookerOf, nameOf, prefixOf } from "./places.js";
import { matrixView } from "./text.js";
import { readLine, tokenLine, writtenLine } from "./tokens.js";

const TOP_COUNT = 5;

/** A figure; `events` as photo.js and text.js name them, `label` tells two panels apart. */
export class Panel {
  /**
   * @param {ViewEvents} events
   * @param {string} label
   */
  constructor(events, label) {
    this.photo = photoView(events);
    this.lines = { text: tokenLine(events, label), read: readLine(events, label), written: writtenLine(events, label) };
    this.matrix = matrixView(events);
    this.caption = make("figcaption");
    this.body = make("div", { class: "body" });
    this.scale = scale();
    this.told = make("p", { class: "told" });
    this.top = make("ol", { class: "top" });
    this.instead = make("ol", { class: "top" });
    this.choices = make(
      "div",
      { class: "choices" },
      make("p", { class: "fine", text: "Likeliest here" }),
      this.instead,
    );
    const reading = make("div", { class: "reading" }, this.scale.node, this.told, this.top, this.choices);
    const lines = Object.values(this.lines).map((line) => line.node);
    this.node = make("figure", { class: "panel" }, this.caption, ...lines, this.body, reading);
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
    const writes = Boolean(view.reply.writing);
    this.lines.text.node.hidden = !ofText || writes;
    for (const line of [this.lines.read, this.lines.written]) line.node.hidden = !writes;
    if (isText(view)) {
      for (const line of writes ? [this.lines.read, this.lines.written] : [this.lines.text]) line.draw(view);
      this.matrix.draw(view);
    }
    if (isPhoto(view)) this.photo.draw(view);
    const start = prefixOf(view.reply);
    const shown = view.row.subarray(start);
    const largest = largestOf(shown);
    this.scale.draw(largest, ofText);
    this.told.textContent = tell(view);
    this.top.replaceChildren(...topOf(shown, TOP_COUNT).map((key) => topEntry(view, start + key, largest)));
    const might = typeof view.query === "number" ? (view.reply.writing?.tokens[view.query].alternatives ?? []) : [];
    this.choices.hidden = might.length === 0;
    this.instead.replaceChildren(
      ...might.map(({ text, log_probability }) => entry(text, Math.exp(log_probability), 1)),
    );
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
const topEntry = ({ reply, row }, key, largest) => entry(nameOf(reply, key), row[key], largest);

/**
 * @param {string} name
 * @param {number} share
 * @param {number} largest
 */
function entry(name, share, largest) {
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.width = `${(100 * share) / (largest || 1)}%`;
  return make(
    "li",
    {},
    make("span", { class: "name", text: name }),
    make("span", { class: "bar" }, bar),
    make("span", { class: "value", text: percent(share), title: exact(share) }),
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
