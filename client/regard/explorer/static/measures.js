// What can be seen of a model, and of which layers. Pure.

/** @import { Measure, Model, ModelLayer, State, Written } from "../types.d.ts" */

import { named } from "./state.js";
import { canRollOut } from "./windows.js";

/**
 * The measures that a model has, its usual one first: of one that writes, what its text attends to.
 * @param {Model} model
 */
export function measuresOf({ layers, patches, writer, compared_layers }) {
  /** @type {Measure[]} */
  const measures = writer ? ["cross", "causal"] : [];
  if (layers.length) measures.push("weights");
  if (layers.length && canRollOut(layers, patches)) measures.push("rollout");
  if (layers.length && layers.every((layer) => layer.has_contributions)) measures.push("contribution_rollout");
  if (layers.length && layers.every(({ layer }) => compared_layers.includes(layer))) measures.push("similarity");
  return measures;
}

/**
 * Whether a measure has no heads.
 * @param {Measure} measure
 */
export const isHeadless = (measure) => measure === "contribution_rollout" || measure === "similarity";

/**
 * The measure that a state means for a model.
 * @param {State} state
 * @param {Model} model
 */
export const measureOf = (state, model) => named(measuresOf(model), state.measure) ?? measuresOf(model)[0];

/**
 * Whether it is about a text that the model writes.
 * @param {Measure} measure
 * @returns {measure is Written}
 */
export const isWritten = (measure) => measure === "cross" || measure === "causal";

/**
 * The layers of a measure: the decoder's of a text that is written.
 * @param {Model} model
 * @param {Measure} measure
 * @returns {ModelLayer[]}
 */
export function layersOf(model, measure) {
  if (!model.writer || !isWritten(measure)) return model.layers;
  const { num_layers, num_heads } = model.writer;
  const none = { has_contributions: false, window: null, mixes_heads: false, class_attention: false };
  const alike = { kind: measure, num_heads, ...none };
  return Array.from({ length: num_layers }, (_, layer) => ({ layer, ...alike }));
}

/**
 * A layer of a measure by its number; the last where there is no such.
 * @param {Model} model
 * @param {Measure} measure
 * @param {number | null} number
 * @returns {ModelLayer}
 */
export function layerOf(model, measure, number) {
  const layers = layersOf(model, measure);
  return layers.find((layer) => layer.layer === number) ?? layers[layers.length - 1];
}
