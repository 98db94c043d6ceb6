// Which position of one picture belongs to which of the other: the same place of a photo, the same word of a text. Pure.

/** @import { Picture, Query, SidePicture, Token } from "../types.d.ts" */

import { carried } from "./windows.js";

/** @type {WeakMap<Token[], { to: Token[], places: number[] }>} The last that were asked for, of each text */
const known = new WeakMap();

/**
 * The position of a picture that belongs to one of another: on a photo the same place, as far across and down; in a text
 * the same letters, or of what differs the same place. Whoever attends on average does so in both.
 * @template {Query | null} Position
 * @param {SidePicture} from
 * @param {SidePicture} to
 * @param {Position} position
 * @returns {Position | number | null}
 */
export function partnerOf(from, to, position) {
  if (from.reply.patches && to.reply.patches) return carried(from.reply.patches, to.reply.patches, position);
  if (typeof position !== "number" || isWritten(from) || isWritten(to)) return position;
  return wordsOf(from, to)[position] ?? null;
}

/** @param {Picture} picture */
const isWritten = ({ reply }) => Boolean(reply.writing);

/**
 * @param {SidePicture} from
 * @param {SidePicture} to
 */
function wordsOf(from, to) {
  const [tokens, others] = [from.reply.tokens ?? [], to.reply.tokens ?? []];
  const found = known.get(tokens);
  if (found?.to === others) return found.places;
  const isPair = [from, to].some(({ side }) => side.model.takes_pairs && side.state.second); // letters of either text
  const places = isPair
    ? tokens.map((_, at) => Math.min(at, others.length - 1))
    : partnersOf(tokens, others, from.side.state.text, to.side.state.text);
  known.set(tokens, { to: others, places });
  return places;
}

/**
 * For each token of a text the one of another that belongs to it. Before and behind what differs that is the token with
 * the same letters, whatever a model's tokens are; in what differs tokens that both have follow each other, and those
 * between stand for each other in turn.
 * @param {Token[]} tokens
 * @param {Token[]} others
 * @param {string} text
 * @param {string} other
 */
export function partnersOf(tokens, others, text, other) {
  const [letters, otherLetters] = [Array.from(text), Array.from(other)];
  const shorter = Math.min(letters.length, otherLetters.length);
  let [before, behind] = [0, 0];
  while (before < shorter && letters[before] === otherLetters[before]) before++;
  while (behind < shorter - before && letters.at(-1 - behind) === otherLetters.at(-1 - behind)) behind++;
  const mine = splitOf(tokens, before, letters.length - behind);
  const theirs = splitOf(others, before, otherLetters.length - behind);
  /** @param {number} letter */
  const holding = (letter) => theirs.words.findLast((at) => (others[at].start ?? 0) <= letter) ?? theirs.words[0] ?? 0;
  const moved = otherLetters.length - letters.length;
  const places = tokens.map(({ start = 0 }) => holding(start < before ? start : start + moved));
  inTurn(mine.special, theirs.special, places);
  let [from, to] = [0, 0];
  for (const [here, there] of [...commonOf(mine.different, theirs.different, tokens, others), [Infinity, Infinity]]) {
    inTurn(mine.different.slice(from, here), theirs.different.slice(to, there), places);
    if (here < Infinity) places[mine.different[here]] = theirs.different[there];
    [from, to] = [here + 1, there + 1];
  }
  return places;
}

/**
 * Let positions stand for each other one after the other; the last of the others for all that are left.
 * @param {number[]} mine
 * @param {number[]} theirs
 * @param {number[]} places
 */
function inTurn(mine, theirs, places) {
  if (theirs.length === 0) return;
  for (const [turn, at] of mine.entries()) places[at] = theirs[Math.min(turn, theirs.length - 1)];
}

/**
 * The longest common subsequence of two lists of tokens, as pairs of places in the lists.
 * @param {number[]} mine
 * @param {number[]} theirs
 * @param {Token[]} tokens
 * @param {Token[]} others
 */
function commonOf(mine, theirs, tokens, others) {
  const wide = theirs.length + 1;
  const lengths = new Uint16Array((mine.length + 1) * wide);
  /** @param {number} here @param {number} there */
  const same = (here, there) => tokens[mine[here]].text === others[theirs[there]].text;
  for (let here = mine.length - 1; here >= 0; here--) {
    for (let there = theirs.length - 1; there >= 0; there--)
      lengths[here * wide + there] = same(here, there)
        ? lengths[(here + 1) * wide + there + 1] + 1
        : Math.max(lengths[(here + 1) * wide + there], lengths[here * wide + there + 1]);
  }
  const pairs = [];
  let [here, there] = [0, 0];
  while (here < mine.length && there < theirs.length) {
    if (same(here, there)) pairs.push([here++, there++]);
    else if (lengths[(here + 1) * wide + there] >= lengths[here * wide + there + 1]) here++;
    else there++;
  }
  return pairs;
}

/**
 * Which tokens are special, which are words, and which of these lie in what differs.
 * @param {Token[]} tokens
 * @param {number} before
 * @param {number} behind
 */
function splitOf(tokens, before, behind) {
  const places = [...tokens.keys()];
  const special = places.filter((at) => tokens[at].special);
  const words = places.filter((at) => !tokens[at].special);
  const different = words.filter((at) => {
    const { start = 0, end = 0 } = tokens[at];
    return end > before && start < behind;
  });
  return { special, words, different };
}
