// What if a patch or a token were not there: its place is covered, and labels or the vector are compared.

/** @import { Change, Grid, Seen, Token } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { compare, sendPhoto } from "./api.js";
import { byId, contextOf, make } from "./dom.js";
import { exact, percent } from "./numbers.js";
import { isPinned, nameOf, rectOf } from "./places.js";
import { Wait } from "./wait.js";

const MAX_LABELS = 5;

/** Covers what is pinned in a page, and says in place what that changes. */
export class WhatIf {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.wait = new Wait("changed");
    this.about = "";
    byId("mask").addEventListener("click", () => this.ask());
  }

  /**
   * What was said of another input or position is taken away; the button stands where it can do something.
   * @param {Seen} seen
   */
  draw({ state, model, main, query }) {
    const about = JSON.stringify([model.name, model.version, state.photo, state.text, state.labels, query]);
    const { reply } = main;
    const able = model.can_classify || model.embedding_dim > 0 || (model.takes_labels && Boolean(state.labels));
    const token = reply.tokens && typeof query === "number" ? reply.tokens[query] : null;
    const there = reply.patches ? isPinned(reply, query) : Boolean(token && !token.special && token.end);
    const pinned = isPinned(reply, state.query) && state.query === query;
    byId("mask").hidden = !(able && there && pinned && !reply.writing && !(model.takes_pairs && state.second));
    byId("mask").textContent = reply.patches ? "Cover it and compare" : "Leave it out and compare";
    if (about === this.about) return;
    this.about = about;
    this.wait.end();
  }

  /** Cover what is pinned, and compare. */
  async ask() {
    const seen = this.page.shown && this.page.seen();
    if (!seen || typeof seen.query !== "number") {
      this.wait.end();
      return;
    }
    const { state, model, main, query } = seen;
    const change = await this.wait.for(
      "comparing …",
      () => this.ask(),
      async (signal) => {
        const { reply } = main;
        const given = reply.patches
          ? await sendCovered(this.page.photo.copyFor(reply.patches), reply.patches, [query], signal)
          : { text: state.text, other: without(reply.tokens, state.text, [query]) };
        const labels = model.takes_labels && state.labels ? { labels: state.labels } : {};
        const asked = { model: model.name, version: model.version, truncate: state.truncate, ...labels, ...given };
        return compare(asked, signal);
      },
    );
    if (change) this.wait.host.replaceChildren(...told(change, nameOf(main.reply, query)));
  }
}

/**
 * Hand over a photo as it is on a canvas, and the same with patches covered: the explorer's names.
 * @param {OffscreenCanvas} canvas Is painted over
 * @param {Grid} patches
 * @param {number[]} positions
 * @param {AbortSignal} signal
 */
export async function sendCovered(canvas, patches, positions, signal) {
  const photo = (await sendPhoto(await canvas.convertToBlob({ type: "image/png" }), signal)).photo;
  cover(canvas, patches, positions);
  const other = (await sendPhoto(await canvas.convertToBlob({ type: "image/png" }), signal)).photo;
  return { photo, other };
}

/**
 * Paint over patches with the mean colour of a photo.
 * @param {OffscreenCanvas} canvas
 * @param {Grid} patches
 * @param {number[]} positions
 */
export function cover(canvas, patches, positions) {
  const context = contextOf(canvas);
  const mean = new OffscreenCanvas(1, 1);
  contextOf(mean).imageSmoothingQuality = "high";
  contextOf(mean).drawImage(canvas, 0, 0, 1, 1);
  const [red, green, blue] = contextOf(mean).getImageData(0, 0, 1, 1).data;
  const scale = canvas.width / patches.image_width;
  context.fillStyle = `rgb(${red} ${green} ${blue})`;
  for (const { x, y, width, height } of positions.map((position) => rectOf(patches, position)))
    context.fillRect(x * scale, y * scale, width * scale, height * scale);
}

/**
 * A text without some of its tokens.
 * @param {Token[]} tokens
 * @param {string} text
 * @param {number[]} positions
 */
export function without(tokens, text, positions) {
  const out = positions.map((position) => tokens[position]);
  return Array.from(text)
    .filter((_, at) => !out.some(({ start = 0, end = 0 }) => at >= start && at < end))
    .join("");
}

/**
 * @param {Change} change
 * @param {string} name
 */
function told({ labels, cosine }, name) {
  if (!labels) {
    const words = `Without ${name} the vector turns: its cosine with the one before is ${exact(cosine ?? 0)}.`;
    return [make("p", { text: words })];
  }
  const most = labels
    .toSorted((a, b) => Math.max(b.before, b.after) - Math.max(a.before, a.after))
    .slice(0, MAX_LABELS);
  const lines = most.map((each) =>
    make("li", { text: `${each.name}: ${percent(each.before)} → ${percent(each.after)}` }),
  );
  return [make("p", { text: `Without ${name}:` }), make("ul", {}, ...lines)];
}
