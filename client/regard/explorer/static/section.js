// A section of the page that asks when it is opened, and says in place what goes wrong.

/** @import { Question } from "../types.d.ts" */

/** @import { Asker } from "./asking.js" */

import { isAbort, problemOf } from "./api.js";
import { byId, make } from "./dom.js";
import { Progress } from "./progress.js";
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
    /** @type {Progress | null} */
    this.progress = null;
  }

  /**
   * The answers, asked for where they are not in the page; null where that failed or was called off.
   * @param {Question[]} questions
   * @param {string} waiting
   * @param {() => unknown} again
   * @param {number | null} share Of all that this is a part of, how much has come before
   */
  async ask(questions, waiting, again, share = null) {
    this.abort.abort();
    clearInterval(this.timer);
    this.abort = new AbortController();
    const { signal } = this.abort;
    if (!this.asker.findAll(questions)) this.wait(waiting, questions[0], share);
    try {
      const replies = await this.asker.askAll(questions, signal);
      if (signal.aborted) return null;
      if (share === null) this.progress?.finish();
      return replies;
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
   * Say what is waited for, and how far it has come: of a part, how far all has.
   * @param {string} waiting
   * @param {Question} question
   * @param {number | null} share
   */
  wait(waiting, { model, version }, share) {
    if (share === null || !this.progress) {
      this.progress?.end();
      this.progress = new Progress(waiting, [this.id, model, version].join());
    }
    if (share !== null) this.progress.share(share);
    this.say(make("span", { class: "spinner" }), waiting, this.progress.node);
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
    if (this.progress && !parts.includes(this.progress.node)) {
      this.progress.end();
      this.progress = null;
    }
    byId(`${this.id}-status`).replaceChildren(...parts);
  }
}
