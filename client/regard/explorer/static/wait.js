// Waits for one thing at a time in a place of the page, and says there what goes wrong.

import { isAbort, problemOf } from "./api.js";
import { byId, make } from "./dom.js";
import { adviceOn, countDown, waitOf } from "./status.js";

/** One thing that is waited for, said in a place of the page, with what goes wrong. */
export class Wait {
  /** @param {"changed" | "why-status" | "why-changed"} id */
  constructor(id) {
    this.host = byId(id);
    this.abort = new AbortController();
    /** @type {number | undefined} */
    this.timer = undefined;
  }

  /** Nothing is waited for any more, nor said. */
  end() {
    this.abort.abort();
    clearInterval(this.timer);
    this.host.replaceChildren();
  }

  /**
   * What some work gives; null where that failed or was called off.
   * @template Given
   * @param {string} words
   * @param {() => unknown} again
   * @param {(signal: AbortSignal) => Promise<Given>} work
   */
  async for(words, again, work) {
    this.end();
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.host.replaceChildren(make("span", { class: "spinner" }), words);
    try {
      const given = await work(signal);
      if (signal.aborted) return null;
      this.host.replaceChildren();
      return given;
    } catch (error) {
      if (isAbort(error) || signal.aborted) return null;
      const problem = problemOf(error);
      const button = make("button", { type: "button", text: "Try again", click: again });
      this.host.replaceChildren(`${adviceOn(problem)} ${problem.code}: ${problem.message} `, button);
      const seconds = waitOf(error);
      if (seconds !== null) this.timer = countDown(button, seconds, again);
      return null;
    }
  }
}
