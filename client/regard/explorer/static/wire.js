// Reads the explorer's binary answers (responses.py writes them). Pure.

/** @import { Layer, PackedLayer, Reply } from "../types.d.ts" */

const ARRAYS = { float16: Uint16Array, float32: Float32Array };

/**
 * An answer: { model, version, labels, truncated, timings, tokens, patches, layers }, each layer with
 * { layer, kind, measure, heads, shape: [H, Q, K], data, half }. An axis that the answer lacks has size 1; float16
 * stays packed, as Uint16Array, until a row is attended to.
 * @param {ArrayBuffer} buffer
 * @returns {Reply}
 */
export function decode(buffer) {
  const headBytes = new DataView(buffer).getUint32(0, true);
  const reply = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, headBytes)));
  return {
    ...reply,
    layers: reply.layers.map((/** @type {PackedLayer} */ layer) => readLayer(layer, buffer, 4 + headBytes)),
  };
}

/**
 * @param {PackedLayer} layer
 * @param {ArrayBuffer} buffer
 * @param {number} start
 * @returns {Layer}
 */
function readLayer(layer, buffer, start) {
  /** @param {string} axis */
  const size = (axis) => (layer.axes.includes(axis) ? layer.shape[layer.axes.indexOf(axis)] : 1);
  /** @type {Layer["shape"]} */
  const shape = [size("head"), size("query"), size("key")];
  const data = new ARRAYS[layer.dtype](buffer, start + layer.offset, shape[0] * shape[1] * shape[2]);
  return { ...layer, shape, data, half: layer.dtype === "float16" };
}
