// Lets a model write, and shows the text while it grows.

/** @import { Model, Question, Reply } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { Problem, write } from "./api.js";
import { questionOf } from "./asking.js";
import { byId } from "./dom.js";
import { isWritten, measureOf } from "./measures.js";
import { Growing } from "./writing.js";

/** Writes one text at a time; what is whole is kept with the other answers. */
export class Writer {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {{ key: string, growing: Growing, signal: AbortSignal } | null} */
    this.current = null;
    /** The frame that is waited for. */
    this.drawing = 0;
  }

  /**
   * The answers where all are whole; else null, and what is lacking is written. Done when its first token is shown.
   * @param {Question[]} questions
   * @param {Model} model
   * @returns {Promise<Reply[] | null>}
   */
  async ask(questions, model) {
    const lacking = questions.find((question) => !this.page.asker.find(question));
    if (!lacking) return this.page.asker.findAll(questions);
    if (this.growing(lacking)) this.show(model);
    else await new Promise((begun) => this.write(lacking, model, () => begun(null)));
    return null;
  }

  /**
   * What has come for a question, if it is being written.
   * @param {Question} question
   */
  growing(question) {
    const { current } = this;
    return current?.key === JSON.stringify(question) && !current.signal.aborted ? current.growing : null;
  }

  /**
   * @param {Question} question
   * @param {Model} model
   * @param {() => void} begun
   */
  async write(question, model, begun) {
    const { page } = this;
    const again = () => page.show();
    const signal = page.begin(`${model.name} writes`, again);
    const growing = new Growing();
    this.current = { key: JSON.stringify(question), growing, signal };
    try {
      for await (const part of write(question, signal)) {
        signal.throwIfAborted();
        growing.take(part);
        if (!part.token) continue;
        if (growing.written.length > 1) this.showSoon(model);
        else this.show(model);
        begun();
      }
      signal.throwIfAborted();
      if (!growing.end) throw new Problem("INTERNAL", "the answer ended before the text did");
      page.status.came();
      page.asker.keep(question, growing.reply());
      this.show(model); // page.show draws nothing where another layer has to be written first
      byId("spoken").textContent = `${model.name} has written: ${growing.text}`;
      await page.show();
    } catch (error) {
      try {
        if (!signal.aborted) this.show(model);
      } finally {
        page.status.fail(error, again);
      }
    } finally {
      begun();
    }
  }

  /**
   * Draw what there is when the next picture is due: to lay out all rows takes longer, the more there are.
   * @param {Model} model
   */
  showSoon(model) {
    const { current } = this;
    cancelAnimationFrame(this.drawing);
    this.drawing = requestAnimationFrame(() => {
      if (current === this.current && !current?.signal.aborted) this.show(model);
    });
  }

  /**
   * Draw what there is.
   * @param {Model} model
   */
  show(model) {
    const { state, asker } = this.page;
    const measure = measureOf(state, model);
    if (!isWritten(measure)) return;
    const replies = this.page.sides(model).map(({ state, model, layer, head }) => {
      const question = questionOf(state, model, layer, head);
      return asker.find(question) ?? this.growing(question)?.reply([{ kind: measure, layer }]) ?? null;
    });
    this.page.lay(model, replies);
  }
}
