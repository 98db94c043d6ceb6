// Which model, layers and heads a state means, given what the server has. Pure.

/** @import { Model, Other, Side, State } from "../types.d.ts" */

import { isWritten, layerOf, layersOf, measureOf, measuresOf } from "./measures.js";
import { FOLLOWING, isFollowing, NO_WHY } from "./state.js";

/**
 * What identifies a model in the menu; both of two towers have one name.
 * @param {Model} model
 */
export const keyOf = (model) => `${model.name}/${model.version}/${model.modality}`;

/**
 * The model that is named, or the first that takes the input (a toy named fashion, or one that writes, only where no
 * other does).
 * @param {State} state
 * @param {Model[]} models
 * @returns {Model | null}
 */
export function chosenModel(state, models) {
  const modality = state.input === "photo" ? "image" : "text";
  const able = models.filter((model) => model.modality === modality && model.can_show);
  const named = able.find(({ name, version }) => name === state.model && (!state.version || version === state.version));
  if (state.model) return named ?? null;
  return able.find((model) => !isToy(model) && !model.writer) ?? able[0] ?? null;
}

/**
 * Whether a model knows clothes alone.
 * @param {Model} model
 */
export const isToy = ({ name }) => name.includes("fashion");

/**
 * What the one or two pictures are of.
 * @param {State} state
 * @param {Model} model
 * @param {Model[]} models
 * @returns {Side[]}
 */
export function sidesOf(state, model, models) {
  const second = besideState(state, model);
  const beside = second && chosenModel(second, models);
  return second && beside ? [sideOf(state, model), sideOf(second, beside)] : [sideOf(state, model)];
}

/**
 * The state of the second picture as if it were the only one, or null. What a model writes is compared by layers and
 * heads alone.
 * @param {State} state
 * @param {Model} model
 * @returns {State | null}
 */
export function besideState(state, model) {
  const { other } = state;
  if (!other) return null;
  const measure = measureOf(state, model);
  const layer = other.layer ?? layerOf(model, measure, state.layer).layer;
  const shown = { ...state, measure, layer, head: other.head ?? state.head, other: null };
  if (isWritten(measure)) return shown;
  const named = other.model ? { model: other.model, version: other.version } : {};
  return { ...shown, ...named, text: other.text || state.text, photo: other.photo ?? state.photo };
}

/**
 * @param {State} state
 * @param {Model} model
 * @returns {Side}
 */
function sideOf(state, model) {
  const measure = measureOf(state, model);
  const layer = layerOf(model, measure, state.layer);
  const head = typeof state.head === "number" ? Math.min(state.head, layer.num_heads - 1) : state.head;
  return { state, model, measure, layer: layer.layer, head };
}

/**
 * The state with other fields of the second picture; without it, where it would be the first once more.
 * @param {State} state
 * @param {Partial<Other>} fields
 * @returns {State}
 */
export function withOther(state, fields) {
  const other = { ...(state.other ?? FOLLOWING), ...fields };
  return { ...state, other: isFollowing(other) ? null : other };
}

/**
 * The state after another model was chosen: the input follows it, and the layer stays if it has that.
 * @param {State} state
 * @param {Model} model
 * @returns {State}
 */
export function withModel(state, model) {
  const chosen = { ...state, measure: state.measure === "weights" ? null : state.measure }; // the usual one of most
  const measure = measureOf(chosen, model);
  const kept = layersOf(model, measure).some((layer) => layer.layer === state.layer) ? state.layer : null;
  const input = model.modality === "image" ? "photo" : "text";
  /** @type {State} */
  const named = { ...chosen, model: model.name, version: model.version, input, layer: kept, query: null, ...NO_WHY };
  if (!state.other || input !== state.input) return { ...named, other: null };
  return withOther(named, state.other.layer === null ? {} : { layer: layerOf(model, measure, kept).layer });
}

/**
 * What of a state belongs into a link: all but what the model does not read, and the measure that is its usual one.
 * @param {State} state
 * @param {Model | null} model
 * @returns {State}
 */
export function linkedState(state, model) {
  if (!model) return state;
  return {
    ...state,
    second: model.takes_pairs ? state.second : "",
    labels: model.takes_labels ? state.labels : "",
    why: model.relevance_methods.length > 0 ? state.why : "",
    start: model.writer?.starts.includes(state.start) ? state.start : "",
    measure: state.measure === measuresOf(model)[0] ? null : state.measure,
  };
}

/**
 * What to compare with first: the next head of the same layer, or the first where several are reduced to one.
 * @param {State} state
 * @param {Model} model
 * @returns {Partial<Other>}
 */
export function besideOf(state, model) {
  const layer = layerOf(model, measureOf(state, model), state.layer);
  return { layer: layer.layer, head: typeof state.head === "number" ? (state.head + 1) % layer.num_heads : 0 };
}
