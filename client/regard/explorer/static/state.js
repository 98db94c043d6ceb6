// What the page shows, as one object, and as the fragment of a link. Pure.

/** @import { Head, Measure, Other, Reduction, State } from "../types.d.ts" */

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
  other: null, // the second picture, as FOLLOWING
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
  arc_heads: /** @type {number[]} */ ([]), // of these heads at once, each in its colour; none for the chosen head alone
  overview: false, // whether every layer and head is shown
  original: false, // whether the photo is seen as it is, without the map
  why: "", // the label that is explained, by its name; empty for none
  against: "", // the label that it is told apart from
  method: "", // how it is explained; empty for the model's usual one
});

/** No label is explained: of another model, whose labels are others. */
export const NO_WHY = Object.freeze({ why: "", against: "", method: "" });

/**
 * A second picture that is as the first in everything.
 * @type {Readonly<Other>}
 */
export const FOLLOWING = Object.freeze({
  layer: null,
  head: null,
  query: null, // where it is no position that belongs to the first picture's
  model: "",
  version: "",
  text: "",
  photo: null,
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
  addOther(state, add);
  add("words", state.words);
  add("charts", state.charts);
  add("curve", state.curve);
  add("clip", state.clip);
  add("opacity", state.opacity);
  add("rough", !state.smooth);
  for (const flag of FLAGS) add(flag, state[flag]);
  add("arc_heads", state.arc_heads.join("."));
  add("why", state.why);
  add("against", state.why && state.against);
  add("method", state.why && state.method);
  return fields.toString();
}

/**
 * The state that a link names; what it does not name, or names wrongly, is as at the start.
 * @param {string} fragment
 * @returns {State}
 */
export function fromFragment(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const query = fields.get("query");
  return {
    ...START,
    model: fields.get("model") ?? "",
    version: fields.get("version") ?? "",
    input: fields.has("text") ? "text" : "photo",
    photo: photoOf(fields.get("photo")),
    text: fields.get("text") ?? "",
    second: fields.get("second") ?? "",
    labels: fields.get("labels") ?? "",
    truncate: fields.get("truncate") === "true",
    start: fields.get("start") ?? "",
    measure: named(MEASURES, fields.get("measure")),
    layer: wholeOf(fields.get("layer")),
    head: headOf(fields.get("head")),
    query: query === "all" ? "all" : wholeOf(query),
    other: otherOf(fields),
    words: fields.get("words") === "true",
    charts: fields.get("charts") === "true",
    curve: named(CURVES, fields.get("curve")),
    clip: numberOf(fields.get("clip"), 100) || null,
    opacity: numberOf(fields.get("opacity"), 1),
    smooth: fields.get("rough") !== "true",
    ...flagsOf(fields),
    arc_heads: headsOf(fields.get("arc_heads")),
    why: fields.get("why") ?? "",
    against: fields.get("against") ?? "",
    method: fields.get("method") ?? "",
  };
}

/**
 * @param {State} state
 * @param {(name: string, value: string | number | null) => unknown} add
 */
function addOther({ input, other, query }, add) {
  if (!other) return;
  const { layer, head } = other;
  if (layer !== null || head !== null) add("beside", `${layer ?? ""}.${head ?? ""}`);
  add("beside_model", other.model);
  add("beside_version", other.version);
  if (input === "photo") add("beside_photo", other.photo);
  else add("beside_text", other.text);
  if (query !== null) add("beside_query", other.query);
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
 * A reduction or the number of a head; null for anything else.
 * @param {string | null | undefined} text
 * @returns {Head | null}
 */
const headOrNull = (text) => named(REDUCTIONS, text) ?? wholeOf(text);

/**
 * A reduction or the number of a head; "mean" for anything else.
 * @param {string | null | undefined} text
 * @returns {Head}
 */
export const headOf = (text) => headOrNull(text) ?? "mean";

/**
 * Heads by their numbers, each once, in order.
 * @param {string | null} text
 */
function headsOf(text) {
  const heads = (text ?? "").split(".").map(wholeOf);
  return [...new Set(heads.filter((head) => head !== null))].sort((a, b) => a - b);
}

/**
 * The SHA-256 that a text is, else null.
 * @param {string | null} text
 */
const photoOf = (text) => (/^[0-9a-f]{64}$/.test(text ?? "") ? text : null);

/**
 * The second picture that a link names, or null where it would be the first once more.
 * @param {URLSearchParams} fields
 * @returns {Other | null}
 */
function otherOf(fields) {
  const [layer, head] = (fields.get("beside") ?? "").split(".");
  const model = fields.get("beside_model") ?? "";
  const other = {
    ...{ layer: wholeOf(layer), head: headOrNull(head), query: wholeOf(fields.get("beside_query")) },
    ...{ model, version: model ? (fields.get("beside_version") ?? "") : "" },
    ...{ text: fields.get("beside_text") ?? "", photo: photoOf(fields.get("beside_photo")) },
  };
  return isFollowing(other) ? null : other;
}

/**
 * Whether a second picture would be the first once more.
 * @param {Other} other
 */
export const isFollowing = ({ layer, head, model, text, photo }) =>
  layer === null && head === null && !model && !text && photo === null;
