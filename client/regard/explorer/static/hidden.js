// Attention among words alone: special tokens are left out, and rows sum to 1 over the others. Pure.

/** @import { Layer, Picture, TextReply } from "../types.d.ts" */

import { rowOf } from "./numbers.js";

/** @type {WeakMap<Layer, { layer: Layer, reply: TextReply }>} Made once for each layer */
const made = new WeakMap();

/**
 * Whether special tokens can be left out of a picture: a text that is read has some, and words besides.
 * @param {Picture} picture
 */
export const hasSpecial = ({ reply }) =>
  Boolean(reply.tokens && !reply.writing) &&
  reply.tokens?.some((token) => token.special) === true &&
  reply.tokens.some((token) => !token.special);

/**
 * A picture of a text without its special tokens. `shares`: rows are shares of 1, and are made to sum to 1 again.
 * @param {Picture} picture
 * @param {boolean} shares
 * @returns {Picture}
 */
export function withoutSpecial(picture, shares) {
  const { layer } = picture;
  const known = made.get(layer);
  if (known) return { ...picture, ...known };
  const reply = /** @type {TextReply} */ (picture.reply);
  const kept = [...reply.tokens.keys()].filter((at) => !reply.tokens[at].special);
  const [heads] = layer.shape;
  const data = new Float32Array(heads * kept.length ** 2);
  let at = 0;
  for (let head = 0; head < heads; head++) {
    for (const query of kept) {
      const whole = rowOf(layer, head, query);
      const row = Float32Array.from(kept, (key) => whole[key]);
      const sum = row.reduce((total, weight) => total + weight, 0);
      data.set(shares && sum > 0 ? row.map((weight) => weight / sum) : row, at);
      at += kept.length;
    }
  }
  const words = {
    layer: {
      ...layer,
      shape: /** @type {Layer["shape"]} */ ([heads, kept.length, kept.length]),
      ...{ data, half: false, means: undefined, matrices: undefined },
    },
    reply: { ...reply, tokens: kept.map((each) => reply.tokens[each]) },
  };
  made.set(layer, words);
  return { ...picture, ...words };
}
