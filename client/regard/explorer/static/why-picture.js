// What each position did for a label: the picture, its scale, and the strongest in numbers.

/** @import { WhyEvents, WhyView } from "../types.d.ts" */

import { HEAT_OPACITY, paintStrip } from "./colour.js";
import { contextOf, make, setText } from "./dom.js";
import { beyondOf } from "./panel.js";
import { isSigned, signedPaperTable, signedTable, signedTicks, told, upperHalf } from "./signed.js";
import { whyPhoto } from "./why-photo.js";
import { paper, whyText } from "./why-text.js";

const TOP_COUNT = 5;

/** A picture; `events` name positions by their place among the values. */
export class WhyPicture {
  /** @param {WhyEvents} events */
  constructor(events) {
    this.events = events;
    this.photo = whyPhoto(events);
    this.text = whyText(events);
    this.strip = make("canvas", { class: "strip", width: "256", height: "24", "aria-hidden": "true" });
    this.ticks = [make("span"), make("span"), make("span")];
    this.unit = make("p", { class: "fine" });
    const scale = make("div", { class: "scale" }, this.strip, make("div", {}, ...this.ticks), this.unit);
    this.told = make("p", { class: "told" });
    this.top = make("ol", { class: "top lit", "aria-label": "The strongest" });
    this.unplaced = make("p", { class: "fine unplaced" });
    this.body = make("div", { class: "body" });
    this.node = make("div", { class: "why-picture" }, this.body, scale, this.told, this.top, this.unplaced);
    /** @type {WhyView["why"] | null} */
    this.listed = null;
    /** What the strip shows, which stays while one points. */
    this.painted = "";
  }

  /**
   * Draw a view.
   * @param {WhyView} view
   */
  draw(view) {
    const { why, scale, pointed } = view;
    const part = why.patches ? this.photo : this.text;
    if (this.body.firstChild !== part.node) this.body.replaceChildren(part.node);
    part.draw(view);
    this.drawScale(view);
    for (const [at, tick] of signedTicks(why, scale).entries()) setText(this.ticks[at], tick);
    setText(this.unit, unitOf(view));
    const hint = `Point at a ${why.patches ? "patch" : "token"} to read its number.`;
    setText(this.told, pointed === null ? hint : tellWhy(view, pointed));
    setText(this.unplaced, why.unplaced && `Without a place here: ${why.unplaced}`);
    if (this.listed !== why) this.list(view);
    for (const node of this.top.children)
      node.classList.toggle("pointed", node instanceof HTMLElement && node.dataset.place === String(pointed));
  }

  /** @param {WhyView} view */
  drawScale({ why, state, dark }) {
    const of = JSON.stringify([Boolean(why.patches), state.opacity, dark, isSigned(why)]);
    if (of === this.painted) return;
    this.painted = of;
    const { strip } = this;
    const place = { x: 0, y: 0, width: strip.width, height: strip.height };
    const context = contextOf(strip);
    paintStrip(context, place, tableOf({ why, state, dark }), Boolean(why.patches));
  }

  /**
   * List the strongest, whatever their sign; pointing at one lights its place up.
   * @param {WhyView} view
   */
  list({ why, scale: { end } }) {
    this.listed = why;
    const strongest = [...why.values.keys()].sort((a, b) => Math.abs(why.values[b]) - Math.abs(why.values[a]));
    this.top.replaceChildren(
      ...strongest.slice(0, TOP_COUNT).map((place) => {
        const value = why.values[place];
        const bar = make("i", { class: value < 0 ? "against" : "for", "aria-hidden": "true" });
        bar.style.width = `${Math.min(100, (100 * Math.abs(value)) / end)}%`;
        const enter = () => this.events.point(place);
        const leave = () => this.events.point(null);
        return make(
          "li",
          {
            tabindex: "0",
            "data-place": String(place),
            ...{ pointerenter: enter, pointerleave: leave, focus: enter, blur: leave },
          },
          make("span", { class: "name", text: why.names[place] }),
          make("span", { class: "bar" }, bar),
          make("span", { class: "value", text: told(why, value), title: String(value) }),
        );
      }),
    );
  }
}

/**
 * The colours of its scale, [256 * 4] bytes: over a photo, or on paper.
 * @param {Pick<WhyView, "why" | "state" | "dark">} view
 */
export function tableOf({ why, state, dark }, ground = paper()) {
  const table = why.patches ? signedTable(state.opacity ?? HEAT_OPACITY) : signedPaperTable(ground, dark);
  return isSigned(why) ? table : upperHalf(table);
}

/**
 * What the numbers of its scale are, and what lies beyond.
 * @param {Pick<WhyView, "why" | "scale">} view
 */
export function unitOf({ why, scale }) {
  const beyond = beyondOf(scale, { count: null });
  return `${isSigned(why) ? "against · logits · for" : why.method}${beyond && `. ${beyond}`}`;
}

/**
 * A position's number in a sentence.
 * @param {WhyView} view
 * @param {number} place
 */
export function tellWhy({ why }, place) {
  const value = why.values[place];
  const name = why.names[place];
  if (!isSigned(why)) return `${name}: ${told(why, value)} by ${why.method}`;
  const whom = value < 0 && why.against ? why.against : why.label;
  return `${name}: ${told(why, value)}, ${value < 0 && !why.against ? "against" : "for"} ${whom}`;
}
