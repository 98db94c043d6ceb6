// What the page shows, as one object, and as the fragment of a link. Pure.

/** @import { Head, Measure, Part, Reduction, State } from "../types.d.ts" */

import { CURVES } from "./scales.js";

/** @type {Reduction[]} */
export const REDUCTIONS = ["mean", "max", "min"];
/** @type {Measure[]} */
export const MEASURES = ["cross", "causal", "weights", "rollout", "contribution_rollout", "similarity"];

/** What is shown or not, and is so under its own name in a link. */
const FLAGS = /** @type {const} */ ([
  "multiples",
  "common",
  "contour",
  "original",
  "words_only",
  "reading",
  "arcs",
  "overview",
]);

/**
 * The start: nothing chosen.
 * @type {Readonly<State>}
 */
export const START = Object.freeze({
  model: "",
  version: "",
  input: "photo", // or "text"
  photo: null, // its SHA-256
  text: "",
  second: "", // read together with the text, where the model takes pairs
  labels: "", // with commas between, where the model takes the reader's own
  truncate: false,
  start: "", // what a model that writes begins with, by its name; empty for its own
  measure: null, // one of MEASURES; null for the model's usual one
  layer: null, // its number; null for the last
  head: "mean", // a reduction or the number of a head
  query: null, // position that looks; "all" for the mean of all; null for the usual one
  other: null, // { layer, head } beside it
  words: false, // whether the maps of the labels' words are shown
  charts: false,
  curve: null, // of scales: one of CURVES; null for linear over photos, the square root between tokens
  clip: null, // the percentile at which scales end; null for the usual one
  opacity: null, // of the largest weights over a photo, from 0 to 1; null for the usual one
  smooth: true, // whether maps run smoothly from patch to patch
  multiples: false, // whether weights are told in multiples of 1/N
  common: false, // whether every head has the same scale
  contour: false, // whether a line runs around the patches that hold most of a map
  words_only: false, // whether special tokens are left out
  reading: false, // whether a text is seen as a text, its weights as shading
  arcs: false, // whether arcs between tokens are seen in place of the matrix
  overview: false, // whether every layer and head is shown
  original: false, // whether the photo is seen as it is, without the map
});

/**
 * The fragment of a link to a state, without "#".
 * @param {State} state
 */
export function toFragment(state) {
  const fields = new URLSearchParams();
  /** @type {(name: string, value: string | number | boolean | null) => unknown} */
  const add = (name, value) => value !== null && value !== "" && value !== false && fields.set(name, String(value));
  add("model", state.model);
  add("version", state.version);
  if (state.input === "photo") {
    add("photo", state.photo);
    add("labels", state.labels);
  } else {
    add("text", state.text);
    add("second", state.second);
  }
  add("truncate", state.truncate);
  add("start", state.start);
  add("measure", state.measure);
  add("layer", state.layer);
  add("head", state.head);
  add("query", state.query);
  if (state.other) add("beside", `${state.other.layer}.${state.other.head}`);
  add("words", state.words);
  add("charts", state.charts);
  add("curve", state.curve);
  add("clip", state.clip);
  add("opacity", state.opacity);
  add("rough", !state.smooth);
  for (const flag of FLAGS) add(flag, state[flag]);
  return fields.toString();
}

/**
 * The state that a link names; what it does not name, or names wrongly, is as at the start.
 * @param {string} fragment
 * @returns {State}
 */
export function fromFragment(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const [query, photo] = [fields.get("query"), fields.get("photo") ?? ""];
  return {
    ...START,
    model: fields.get("model") ?? "",
    version: fields.get("version") ?? "",
    input: fields.has("text") ? "text" : "photo",
    photo: /^[0-9a-f]{64}$/.test(photo) ? photo : null,
    text: fields.get("text") ?? "",
    second: fields.get("second") ?? "",
    labels: fields.get("labels") ?? "",
    truncate: fields.get("truncate") === "true",
    start: fields.get("start") ?? "",
    measure: named(MEASURES, fields.get("measure")),
    layer: wholeOf(fields.get("layer")),
    head: headOf(fields.get("head")),
    query: query === "all" ? "all" : wholeOf(query),
    other: otherOf(fields.get("beside")),
    words: fields.get("words") === "true",
    charts: fields.get("charts") === "true",
    curve: named(CURVES, fields.get("curve")),
    clip: numberOf(fields.get("clip"), 100) || null,
    opacity: numberOf(fields.get("opacity"), 1),
    smooth: fields.get("rough") !== "true",
    ...flagsOf(fields),
  };
}

/**
 * The flags that a link names.
 * @param {URLSearchParams} fields
 */
function flagsOf(fields) {
  const flags = FLAGS.map((flag) => [flag, fields.get(flag) === "true"]);
  return /** @type {Record<typeof FLAGS[number], boolean>} */ (Object.fromEntries(flags));
}

/**
 * The one of some names that a text is, else null.
 * @template {string} Name
 * @param {Name[]} names
 * @param {string | null | undefined} text
 * @returns {Name | null}
 */
export const named = (names, text) => names.find((name) => name === text) ?? null;

/**
 * The number that a text is, if it is a whole one from 0, else null.
 * @param {string | null | undefined} text
 */
const wholeOf = (text) => (/^\d{1,6}$/.test(text ?? "") ? Number(text) : null);

/**
 * The number from 0 to a largest one that a text is, else null.
 * @param {string | null} text
 * @param {number} most
 */
const numberOf = (text, most) =>
  /^\d{1,3}(\.\d{1,4})?$/.test(text ?? "") && Number(text) <= most ? Number(text) : null;

/**
 * A reduction or the number of a head; "mean" for anything else.
 * @param {string | null | undefined} text
 * @returns {Head}
 */
export const headOf = (text) => named(REDUCTIONS, text) ?? wholeOf(text) ?? "mean";

/**
 * @param {string | null} text
 * @returns {Part | null}
 */
function otherOf(text) {
  const [number, head] = (text ?? "").split(".");
  const layer = wholeOf(number);
  return layer === null ? null : { layer, head: headOf(head) };
}
