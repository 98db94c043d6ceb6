// How far work has come that takes a while: in percent where that is known, else in seconds, beside those of last time.

import { make } from "./dom.js";

const TICK_MS = 100;
/** @type {Map<string, number>} Seconds that work of a kind took, while this page is open */
const lastSeconds = new Map();

/** A bar, its percent and the seconds that have passed; drawn every tenth of a second until it ends. */
export class Progress {
  /**
   * @param {string} what
   * @param {string} like What work is of the same kind, and takes about as long
   */
  constructor(what, like) {
    this.like = like;
    this.begun = performance.now();
    /** @type {number | null} */
    this.done = null;
    this.bar = make("progress", { max: "1", "aria-label": what, hidden: true });
    this.told = make("span", { class: "seconds", "aria-hidden": "true" });
    this.node = make("span", { class: "progress" }, this.bar, this.told);
    this.timer = setInterval(() => this.draw(), TICK_MS);
  }

  /** Seconds since it began. */
  seconds() {
    return (performance.now() - this.begun) / 1000;
  }

  /** @param {number} done The share of the work that is done, from 0 to 1 */
  share(done) {
    this.done = done;
  }

  draw() {
    const last = lastSeconds.get(this.like);
    const passed = `${this.seconds().toFixed(1)} s`;
    this.bar.hidden = this.done === null;
    if (this.done !== null) this.bar.value = this.done;
    const before = last === undefined ? "" : `, last time ${last.toFixed(1)} s`;
    this.told.textContent = this.done === null ? `${passed}${before}` : `${Math.floor(100 * this.done)} % · ${passed}`;
  }

  /** All is done: what is like it will take about as long. */
  finish() {
    lastSeconds.set(this.like, this.seconds());
    this.end();
  }

  /** Nobody waits any more. */
  end() {
    clearInterval(this.timer);
  }
}
