// A text that a model writes, with what each of its tokens attends to, as both grow.

/** @import { Head, Layer, Measure, PackedRow, Picture, Reply, TextReply, Token, Written } from "../types.d.ts" */
/** @import { WrittenEnd, WrittenPart, WrittenToken } from "../types.d.ts" */

import { isWritten } from "./measures.js";
import { onOwnGrid } from "./windows.js";

const BEGINNING = Object.freeze({ text: "(start)", special: true });
/** Of these reasons the last token is one without a text. */
const ENDED = ["end", "target"];
/** What a text ends with where its last token leaves a character open. */
const OPEN = "\ufffd";

/** @typedef {{ heads: number, keys: number, data: Uint16Array }} Row What one token attends to in a layer, [H, K] */

/** What has come of a text so far. */
export class Growing {
  constructor() {
    /** @type {Token[]} */
    this.source = [];
    /** @type {WrittenToken[]} */
    this.written = [];
    /** @type {Map<string, Row>[]} */
    this.rows = [];
    this.text = "";
    /** @type {WrittenEnd | null} */
    this.end = null;
  }

  /**
   * Take a line of the answer.
   * @param {WrittenPart} part
   */
  take({ source, token, end }) {
    if (source) this.source = source;
    if (token) {
      const { attention, text, ...others } = token;
      this.written = [...this.written, { ...others, text: text.trim() || "·", special: !text }];
      this.rows.push(new Map(attention.map((row) => [nameOf(row.kind, row.layer), unpacked(row)])));
      this.text += text;
    }
    if (end) {
      Object.assign(this, { end, text: end.text });
      const last = this.written.at(-1);
      const forced = end.finish_reason === "length" && !end.text.endsWith(OPEN); // on a text that is as long as may be
      if (last?.special && (forced || ENDED.includes(end.finish_reason)))
        this.written = [...this.written.slice(0, -1), { ...last, text: "(end)" }];
    }
  }

  /**
   * The answer so far, with one layer of these or with every one.
   * @param {{ kind: Written, layer: number }[]} wanted
   * @returns {TextReply}
   */
  reply(wanted = this.layers()) {
    return {
      model: this.end?.model ?? "",
      version: this.end?.version ?? "",
      labels: [],
      words: [],
      truncated: this.end?.truncated ?? false,
      timings: null,
      tokens: this.source,
      patches: null,
      writing: { tokens: this.written, text: this.text, end: this.end },
      layers: wanted.map(({ kind, layer }) => this.layer(kind, layer)).filter((layer) => layer !== null),
    };
  }

  /** @returns {{ kind: Written, layer: number }[]} */
  layers() {
    return [...(this.rows[0]?.keys() ?? [])].map((name) => {
      const [kind, layer] = name.split(".");
      return { kind: kind === "cross" ? "cross" : "causal", layer: Number(layer) };
    });
  }

  /**
   * A layer's rows one below the other; of the decoder's own each has one key more than the one before, and zeros behind.
   * @param {Written} kind
   * @param {number} number
   * @returns {Layer | null}
   */
  layer(kind, number) {
    const rows = this.rows.map((row) => row.get(nameOf(kind, number))).filter((row) => row !== undefined);
    const last = rows.at(-1);
    if (!last) return null;
    const { heads, keys } = last;
    const data = new Uint16Array(heads * rows.length * keys);
    for (const [query, row] of rows.entries()) {
      for (let head = 0; head < heads; head++)
        data.set(row.data.subarray(head * row.keys, (head + 1) * row.keys), (head * rows.length + query) * keys);
    }
    return {
      ...{ layer: number, kind, measure: "weights", axes: ["head", "query", "key"], heads: [...Array(heads).keys()] },
      ...{
        covered_layers: [],
        window: null,
        grid: null,
        class_attention: false,
        dtype: "float16",
        offset: 0,
        half: true,
      },
      shape: [heads, rows.length, keys],
      data,
    };
  }
}

/**
 * @param {Written} kind
 * @param {number} layer
 */
const nameOf = (kind, layer) => `${kind}.${layer}`;

/**
 * @param {PackedRow} row
 * @returns {Row}
 */
function unpacked({ heads, keys, weights }) {
  const bytes = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0));
  return { heads, keys, data: new Uint16Array(bytes.buffer) };
}

/**
 * A layer and head of an answer as they are seen; null where the answer has no such layer.
 * @param {Reply} reply
 * @param {Measure} measure
 * @param {{ layer: number, head: Head }} part
 * @returns {Picture | null}
 */
export function pictureOf(reply, measure, { layer: number, head }) {
  if (!isWritten(measure)) return { reply: onOwnGrid(reply), layer: reply.layers[0], head };
  const layer = reply.layers.find((each) => each.kind === measure && each.layer === number);
  return layer ? { reply: measure === "causal" ? ofItself(reply, layer) : reply, layer, head } : null;
}

/**
 * An answer whose keys are what the decoder had read: what it begins with, then what it wrote.
 * @param {Reply} reply
 * @param {Layer} layer
 * @returns {Reply}
 */
function ofItself(reply, { shape: [, queries, keys] }) {
  if (!reply.writing) return reply;
  const begun = Array(keys - queries + 1).fill(BEGINNING);
  return { ...reply, tokens: [...begun, ...reply.writing.tokens.slice(0, -1)] };
}
