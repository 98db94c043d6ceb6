// What to ask for a state of the page, and the answers already in it.

/** @import { Head, Label, Model, Question, Reply, State, Writer } from "../types.d.ts" */

/** @import { Told } from "./api.js" */

import { attend, Problem, sendPhoto } from "./api.js";
import { isWritten, layerOf, measureOf } from "./measures.js";
import { hasDistance } from "./windows.js";

const KEPT_BYTES = 384 * 2 ** 20;
const KEPT_LABELS = 64; // photos with labels of the reader's own
const MOST_WEIGHTS = 2 ** 25; // of a text that is written, for all layers at once

/**
 * The question for one layer and head of a state: all heads of the layer, or a rollout from the first layer to it.
 * @param {State} state
 * @param {Model} model
 * @param {number | null} number
 * @param {Head} head
 * @returns {Question}
 */
export function questionOf(state, model, number, head) {
  const measure = measureOf(state, model);
  const layer = layerOf(model, measure, number);
  if (isWritten(measure)) return writingQuestion(state, model, layer.layer);
  const place = model.layers.indexOf(layer);
  const question = { ...inputOf(state, model), measure };
  if (measure === "weights") return { ...question, layers: [place] };
  if (measure === "similarity") return { ...question, layers: [layer.layer] };
  const layers = Array.from({ length: place + 1 }, (_, layer) => layer);
  if (measure === "contribution_rollout") return { ...question, layers };
  return typeof head === "number" ? { ...question, layers, heads: [head] } : { ...question, layers, reduce: head };
}

/**
 * The question for a text that is written, with what it attends to in all layers; where that may be much, in one.
 * @param {State} state
 * @param {Model} model
 * @param {number} layer
 * @returns {Question}
 */
function writingQuestion(state, model, layer) {
  const { num_layers, num_heads, max_tokens, starts } = /** @type {Writer} */ (model.writer);
  const { length } = state.text; // seldom fewer than its tokens
  // As the page lays them out: rows of what it reads, of which a long one seldom makes more than twice as many, and of
  // what it writes, as many as it may, since a short one may make a long text.
  const weights = num_layers * num_heads * (length * Math.min(max_tokens, 2 * length) + max_tokens ** 2);
  const start = starts.includes(state.start) ? { start: state.start } : {};
  return { ...inputOf(state, model), ...start, ...(weights > MOST_WEIGHTS ? { layers: [layer] } : {}) };
}

/**
 * The question for a chart: every head of all layers that have the measure; null where none has. A chart shows no labels
 * of the reader's own, and asks for none.
 * @param {State} state
 * @param {Model} model
 * @param {"entropy" | "distance"} measure
 * @returns {Question | null}
 */
export function chartQuestion(state, model, measure) {
  const question = { ...inputOf({ ...state, labels: "" }, model), measure };
  const able = [...model.layers.keys()].filter((place) =>
    measure === "entropy" ? !model.layers[place].mixes_heads : hasDistance(model.layers[place]),
  );
  if (able.length === model.layers.length) return question;
  return able.length ? { ...question, layers: able } : null;
}

/**
 * The question for the maps of the words of the reader's labels over the photo.
 * @param {State} state
 * @param {Model} model
 * @returns {Question}
 */
export const wordsQuestion = (state, model) => ({
  ...inputOf({ ...state, labels: "" }, model),
  measure: "weights",
  words: state.labels,
});

/**
 * @param {State} state
 * @param {Model} model
 */
export function inputOf(state, model) {
  const shown = { model: model.name, version: model.version };
  if (model.modality === "image") {
    const labels = model.takes_labels && state.labels ? { labels: state.labels } : {};
    return { ...shown, photo: state.photo, ...labels };
  }
  const second = model.takes_pairs && state.second ? { second: state.second } : {};
  return { ...shown, text: state.text, truncate: state.truncate, ...second };
}

/**
 * Asks, and keeps the answers last used, as many as fit. What a photo's labels got is the same with every layer: it is
 * asked for once, and kept apart.
 */
export class Asker {
  /**
   * `photoBlob` returns the photo of a name that the page holds, or null.
   * @param {(name: string) => Blob | null} photoBlob
   */
  constructor(photoBlob) {
    this.photoBlob = photoBlob;
    /** @type {Map<string, Reply>} */
    this.kept = new Map();
    /** @type {Map<string, Label[]>} */
    this.labels = new Map();
    this.bytes = 0;
  }

  /**
   * The answer to a question if it is in the page, else null.
   * @param {Question} question
   * @returns {Reply | null}
   */
  find(question) {
    const key = keyOf(question);
    const reply = this.kept.get(key) ?? null;
    if (reply) {
      this.kept.delete(key);
      this.kept.set(key, reply);
    }
    if (!reply || !question.labels) return reply;
    const labels = this.labels.get(labelsKeyOf(question));
    return labels ? { ...reply, labels } : null;
  }

  /**
   * The answers that are in the page, where all are, else null.
   * @param {Question[]} questions
   */
  findAll(questions) {
    const replies = questions.map((question) => this.find(question)).filter((reply) => reply !== null);
    return replies.length === questions.length ? replies : null;
  }

  /**
   * The answer to a question; a photo that the explorer has forgotten is sent again if the page has it.
   * @param {Question} question
   * @param {AbortSignal} signal
   * @param {Told} [told]
   * @returns {Promise<Reply>}
   */
  async ask(question, signal, told) {
    const found = this.find(question);
    if (found) return found;
    const { labels, ...others } = question;
    const asked = labels && !this.labels.has(labelsKeyOf(question)) ? question : others;
    const reply = await this.fetch(asked, signal, told);
    this.keep(asked, reply);
    return this.find(question) ?? reply;
  }

  /**
   * @param {Question} question
   * @param {AbortSignal} signal
   * @param {Told} [told]
   * @returns {Promise<Reply>}
   */
  fetch(question, signal, told) {
    return this.withPhoto(question.photo, signal, () => attend(question, signal, told));
  }

  /**
   * What a call gives; a photo that the explorer has forgotten is sent again if the page has it.
   * @template Given
   * @param {string | null | undefined} photo
   * @param {AbortSignal} signal
   * @param {() => Promise<Given>} call
   */
  async withPhoto(photo, signal, call) {
    try {
      return await call();
    } catch (error) {
      const blob = photo ? this.photoBlob(photo) : null;
      if (!(error instanceof Problem) || error.code !== "PHOTO_GONE" || !blob) throw error;
      await sendPhoto(blob, signal);
      return call();
    }
  }

  /**
   * The answers to questions, asked one after the other; told how much of all of them has come.
   * @param {Question[]} questions
   * @param {AbortSignal} signal
   * @param {Told} [told]
   */
  async askAll(questions, signal, told) {
    const replies = [];
    for (const [at, question] of questions.entries())
      replies.push(await this.ask(question, signal, (share) => told?.((at + share) / questions.length)));
    return replies;
  }

  /**
   * @param {Question} question
   * @param {Reply} reply
   */
  keep(question, reply) {
    const key = keyOf(question);
    this.drop(key);
    this.kept.set(key, question.labels ? { ...reply, labels: [] } : reply);
    this.bytes += sizeOf(reply);
    for (const oldest of this.kept.keys()) {
      if (this.bytes <= KEPT_BYTES || oldest === key) break;
      this.drop(oldest);
    }
    if (question.labels) this.labels.set(labelsKeyOf(question), reply.labels);
    for (const oldest of this.labels.keys()) {
      if (this.labels.size <= KEPT_LABELS) break;
      this.labels.delete(oldest);
    }
  }

  /** @param {string} key */
  drop(key) {
    const reply = this.kept.get(key);
    if (reply) this.bytes -= sizeOf(reply);
    this.kept.delete(key);
  }

  /** Forget everything: another server, or models that were loaded anew. */
  forget() {
    this.kept.clear();
    this.labels.clear();
    this.bytes = 0;
  }
}

/** @param {Question} question */
const keyOf = ({ labels: _, ...others }) => JSON.stringify(others);

/** @param {Question} question */
const labelsKeyOf = ({ model, version, photo, labels }) => JSON.stringify([model, version, photo, labels]);

/** @param {Reply} reply */
const sizeOf = (reply) => reply.layers.reduce((sum, layer) => sum + layer.data.byteLength, 0);
