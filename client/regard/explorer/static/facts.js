// What else the server said with an answer: labels, whether a text was cut, where the time went.

/** @import { Label, Reply, State, Timings } from "../types.d.ts" */

import { byId, make } from "./dom.js";
import { percent } from "./numbers.js";

/**
 * Draw labels, a warning for a text that was cut, and timings.
 * @param {Reply} reply
 * @param {State} state
 */
export function drawFacts(reply, state) {
  byId("labels").replaceChildren(...reply.labels.map(labelOf));
  byId("labels").hidden = reply.labels.length === 0;
  const cut =
    reply.truncated && reply.tokens
      ? `The text was longer than the model takes and was cut to ${reply.tokens.length} tokens. `
      : "";
  const rollout = reply.layers[0].covered_layers;
  const covered =
    state.measure !== "weights" && rollout.length ? `Rollout through layers ${rollout[0]} to ${rollout.at(-1)}. ` : "";
  const causal = reply.layers[0].kind === "causal" ? "Causal: no position attends to a later one. " : "";
  byId("facts").textContent = `${cut}${causal}${covered}${reply.timings ? timesOf(reply.timings) : ""}`;
}

/** @param {Label} label */
function labelOf({ name, probability }) {
  const bar = make("i", { "aria-hidden": "true" });
  bar.style.width = `${100 * probability}%`;
  return make(
    "li",
    {},
    make("span", { class: "name", text: name }),
    make("span", { class: "bar" }, bar),
    make("span", { class: "value", text: percent(probability) }),
  );
}

/** @param {Timings} timings */
function timesOf(timings) {
  /** @param {number} ns */
  const ms = (ns) => `${(ns / 1e6).toFixed(ns < 1e7 ? 1 : 0)} ms`;
  const parts = [
    `decode ${ms(timings.decode_ns)}`,
    `queue ${ms(timings.queue_ns)}`,
    `compute ${ms(timings.compute_ns)}`,
    `encode ${ms(timings.encode_ns)}`,
  ];
  return `On the server: ${parts.join(" · ")}`;
}
