// A section of the page that asks when it is opened, and says in place what goes wrong.

/** @import { Question } from "../types.d.ts" */

/** @import { Asker } from "./asking.js" */

import { isAbort, problemOf } from "./api.js";
import { byId, make } from "./dom.js";
import { adviceOn, countDown, waitOf } from "./status.js";

/** What is drawn into an element of the page, and said in another whose id ends in "-status". */
export class Section {
  /**
   * @param {Asker} asker
   * @param {string} id
   */
  constructor(asker, id) {
    this.asker = asker;
    this.id = id;
    this.abort = new AbortController();
    /** @type {number | undefined} */
    this.timer = undefined;
  }

  /**
   * The answers, asked for where they are not in the page; null where that failed or was called off.
   * @param {Question[]} questions
   * @param {string} waiting
   * @param {() => unknown} again
   */
  async ask(questions, waiting, again) {
    this.abort.abort();
    clearInterval(this.timer);
    this.abort = new AbortController();
    const { signal } = this.abort;
    if (!this.asker.findAll(questions)) this.say(make("span", { class: "spinner" }), waiting);
    try {
      const replies = await this.asker.askAll(questions, signal);
      return signal.aborted ? null : replies;
    } catch (error) {
      if (isAbort(error) || signal.aborted) return null;
      const problem = problemOf(error);
      this.fill();
      const button = make("button", { type: "button", text: "Try again", click: again });
      this.say(`${adviceOn(problem)} ${problem.code}: ${problem.message}`, button);
      const seconds = waitOf(error);
      if (seconds !== null) this.timer = countDown(button, seconds, again);
      return null;
    }
  }

  /**
   * Show what was drawn.
   * @param {Node[]} parts
   */
  fill(...parts) {
    this.say();
    byId(this.id).replaceChildren(...parts);
  }

  /** Nothing to see: closed, or no input. */
  close() {
    this.abort.abort();
    clearInterval(this.timer);
    this.fill();
  }

  /** @param {(Node | string)[]} parts */
  say(...parts) {
    byId(`${this.id}-status`).replaceChildren(...parts);
  }
}
