// What else the server said with an answer: labels, whether a text was cut, where the time went.

/** @import { Label, Shown, Timings, WrittenEnd } from "../types.d.ts" */

import { byId, make } from "./dom.js";
import { exact, percent } from "./numbers.js";

/** @type {Record<string, string>} */
const ENDS = { end: "Ended by the model", length: "Cut at the most tokens" };

/**
 * Draw labels, a warning for a text that was cut, and timings.
 * @param {Shown} shown
 */
export function drawFacts({ main, other }) {
  const isSame = other?.side.model === main.side.model && other.side.state.text === main.side.state.text;
  const beside = isSame && other.side.state.photo === main.side.state.photo ? [] : (other?.reply.labels ?? []);
  drawLabels("labels", main.reply.labels, main.side.model.relevance_methods.length > 0 && !main.reply.writing);
  drawLabels("labels-beside", beside);
  const { reply } = main;
  const { measure } = main.side;
  const cut =
    reply.truncated && reply.tokens
      ? `The text was longer than the model takes and was cut to ${reply.tokens.length} tokens. `
      : "";
  if (reply.writing) {
    const { end, tokens } = reply.writing;
    byId("facts").textContent = end ? `${cut}${endOf(end, tokens.length)}` : "";
    return;
  }
  const rollout = reply.layers[0].covered_layers;
  const covered =
    measure !== "weights" && rollout.length ? `Rollout through layers ${rollout[0]} to ${rollout.at(-1)}. ` : "";
  const causal = reply.layers[0].kind === "causal" ? "Causal: no position attends to a later one. " : "";
  byId("facts").textContent = `${cut}${causal}${covered}${reply.timings ? timesOf(reply.timings) : ""}`;
}

/**
 * Draw labels; those that are already there stay, and with them the focus.
 * @param {"labels" | "labels-beside"} id
 * @param {Label[]} labels
 * @param {boolean} canExplain Whether each is a button, which why.js listens to
 */
function drawLabels(id, labels, canExplain = false) {
  const host = byId(id);
  host.hidden = labels.length === 0;
  const signature = JSON.stringify([labels, canExplain]);
  if (host.dataset.signature === signature) return;
  host.dataset.signature = signature;
  host.replaceChildren(...labels.map((label) => labelOf(label, canExplain)));
}

/**
 * @param {Label} label
 * @param {boolean} canExplain
 */
function labelOf({ name, probability }, canExplain) {
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.width = `${100 * probability}%`;
  return make(
    "li",
    {},
    canExplain
      ? make("button", { type: "button", class: "name", value: name, text: name })
      : make("span", { class: "name", text: name }),
    make("span", { class: "bar" }, bar),
    make("span", { class: "value", text: percent(probability) }),
  );
}

/**
 * How a text that was written ended.
 * @param {WrittenEnd} end
 * @param {number} count
 */
function endOf({ finish_reason, log_probability, timings }, count) {
  const told = `${ENDS[finish_reason] ?? "Ended"} after ${count} token${count === 1 ? "" : "s"}`;
  const times = `${ms(timings.first_token_ns)} to the first token · ${ms(timings.total_ns)} in all`;
  return `${told} · log-probability ${exact(log_probability)}. On the server: ${times}`;
}

/** @param {number} ns */
const ms = (ns) => `${(ns / 1e6).toFixed(ns < 1e7 ? 1 : 0)} ms`;

/** @param {Timings} timings */
function timesOf(timings) {
  const parts = [
    `decode ${ms(timings.decode_ns)}`,
    `queue ${ms(timings.queue_ns)}`,
    `compute ${ms(timings.compute_ns)}`,
    `encode ${ms(timings.encode_ns)}`,
  ];
  return `On the server: ${parts.join(" · ")}`;
}
