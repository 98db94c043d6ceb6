// Which model, layers and heads a state means, given what the server has. Pure.

/** @import { Model, Part, State } from "../types.d.ts" */

import { layerOf, layersOf, measureOf, measuresOf } from "./measures.js";

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
 * Layer and head of the one or two pictures, as the model has them.
 * @param {State} state
 * @param {Model} model
 * @returns {Part[]}
 */
export function partsOf(state, model) {
  const measure = measureOf(state, model);
  return [{ layer: state.layer, head: state.head }, ...(state.other ? [state.other] : [])].map((wanted) => {
    const layer = layerOf(model, measure, wanted.layer);
    const head = typeof wanted.head === "number" ? Math.min(wanted.head, layer.num_heads - 1) : wanted.head;
    return { layer: layer.layer, head };
  });
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
  const other = state.other && { ...state.other, layer: layerOf(model, measure, kept).layer };
  return { ...chosen, model: model.name, version: model.version, input, layer: kept, query: null, other };
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
    start: model.writer?.starts.includes(state.start) ? state.start : "",
    measure: state.measure === measuresOf(model)[0] ? null : state.measure,
  };
}

/**
 * What to compare with first: the next head of the same layer, or the first where several are reduced to one.
 * @param {State} state
 * @param {Model} model
 * @returns {Part}
 */
export function besideOf(state, model) {
  const layer = layerOf(model, measureOf(state, model), state.layer);
  return { layer: layer.layer, head: typeof state.head === "number" ? (state.head + 1) % layer.num_heads : 0 };
}
