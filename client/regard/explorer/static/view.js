// Everything that shows an answer: title, who looks, one or two panels, every head.

/** @import { Head, Measure, Model, Picture, PictureView, Query, Scale, Seen, State, Unit } from "../types.d.ts" */
/** @import { ViewEvents } from "../types.d.ts" */

import { HEAT_OPACITY } from "./colour.js";
import { byId, choice, make, setText } from "./dom.js";
import { headGrid } from "./heads.js";
import { isWritten, layerOf, layersOf } from "./measures.js";
import { exact, joined, look, overlap, said, topOf } from "./numbers.js";
import { Panel } from "./panel.js";
import { isPinned, lookerOf, nameOf, prefixOf } from "./places.js";
import { endOf, toldMatrix, unitOf, widest } from "./scales.js";
import { headOf, REDUCTIONS } from "./state.js";
import { carried } from "./windows.js";

/**
 * A head or a reduction in words.
 * @param {Head} head
 * @param {number} count
 */
const headName = (head, count) => (typeof head === "number" ? `head ${head}` : `${head} of ${count} heads`);

/**
 * Whether rows of a layer are no shares of 1.
 * @param {Model} model
 * @param {{ layer: number }} layer
 * @param {Measure} measure
 */
export const isMixed = (model, { layer }, measure) =>
  measure === "similarity" || (measure === "weights" && Boolean(model.layers[layer]?.mixes_heads));

/**
 * What is shown of whom, as a heading.
 * @param {Seen} shown
 */
function looksOf({ main, query, measure }) {
  const looker = lookerOf(main.reply, query);
  if (measure === "similarity") return `What is like ${looker}`;
  return `What ${looker} ${query === "all" && main.reply.tokens ? "attend" : "attends"} to`;
}

const touch = window.matchMedia("(hover: none)");
/** What is said of these before the layer. */
const PARTS = { cross: ["alignment"], causal: ["decoder"], weights: ["encoder"] };

/**
 * The title of a picture.
 * @param {Model} model
 * @param {Picture} picture
 * @param {Measure} measure
 */
export function titleOf(model, { layer: { layer }, head }, measure) {
  if (measure === "similarity") return `${model.name} · similarity after layer ${layer}`;
  if (measure === "contribution_rollout") return `${model.name} · contributions to layer ${layer} · all heads`;
  const what = measure === "rollout" ? `rollout to layer ${layer}` : `layer ${layer}`;
  const part = model.writer && measure !== "rollout" ? PARTS[measure] : [];
  const { num_heads } = layerOf(model, measure, layer);
  return [model.name, ...part, what, headName(head, num_heads)].join(" · ");
}

/**
 * What attends to what, for a screen reader.
 * @param {Seen} seen
 */
export function spokenOf({ main, query, model, measure, state }) {
  const row = look(main.layer, main.head, query);
  const [most] = topOf(row, 1);
  const unit = unitOf(main.layer, query, { multiples: state.multiples, mixed: isMixed(model, main.layer, measure) });
  const attends = measure === "similarity" ? "is most like" : "attends most to";
  return `${lookerOf(main.reply, query)} ${attends} ${nameOf(main.reply, most)}, ${said(row[most], unit)}`;
}

/**
 * The scale of a picture: its own end, and where every head has the same, that of all of them.
 * @param {State} state
 * @param {Picture} part
 * @param {Float32Array} numbers
 * @param {Query} query
 * @param {Unit} unit
 * @returns {Scale}
 */
function scaleOf(state, { layer, reply }, numbers, query, unit) {
  const isText = Boolean(reply.tokens);
  /** @type {Scale} */
  const scale = {
    ...endOf(layer, numbers, state.clip),
    curve: state.curve ?? (isText ? "sqrt" : "linear"),
    chosen: state.clip,
    opacity: state.opacity ?? HEAT_OPACITY,
    smooth: state.smooth,
    contour: state.contour,
    common: null,
  };
  if (!state.common) return scale;
  const heads = Array.from({ length: layer.shape[0] }, (_, head) =>
    isText ? toldMatrix(layer, head, unit) : look(layer, head, query).subarray(prefixOf(reply)),
  );
  const common = endOf(layer, joined(heads), state.clip);
  return { ...scale, ...common, common };
}

/**
 * The numbers that a picture draws: a row over patches, a whole matrix between tokens.
 * @param {Picture & { row: Float32Array, unit: Unit }} view
 */
const toldNumbers = ({ layer, head, reply, row, unit }) =>
  reply.tokens ? toldMatrix(layer, head, unit) : row.subarray(prefixOf(reply));

/** Shows one answer, or two side by side. `events`: those of a panel; head(n), query(q), release(), other(fields). */
export class View {
  /** @param {ViewEvents} events */
  constructor(events) {
    this.events = events;
    this.panels = [new Panel(events, "First picture"), new Panel(events, "Second picture")];
    this.grid = headGrid(events.head);
    byId("panels").append(...this.panels.map((panel) => panel.node));
    byId("heads").append(this.grid.node);
  }

  /**
   * Draw what is seen.
   * @param {Seen} shown
   */
  draw(shown) {
    byId("shown").hidden = false;
    byId("empty").hidden = true;
    const { main, other, measure, model } = shown;
    const [first, second = null] = this.viewsOf(shown); // asks for a style, which is known as long as nothing is written
    setText(byId("title"), titleOf(model, main, measure));
    setText(byId("looks"), looksOf(shown));
    setText(byId("written"), main.reply.writing?.text.trim() ?? "");
    this.panels[0].draw(first);
    this.panels[0].caption.replaceChildren(...(other ? [make("strong", { text: titleOf(model, main, measure) })] : []));
    this.panels[1].node.hidden = !second;
    byId("panels").classList.toggle("two", Boolean(second));
    if (second) this.drawSecond(first, second, shown);
    byId("overlap").hidden = !second;
    byId("on-photo").hidden = Boolean(main.reply.tokens);
    byId("on-text").hidden = !main.reply.tokens || Boolean(main.reply.writing);
    this.drawQueries(shown);
    const hasHeads = measure === "weights" || isWritten(measure);
    byId("every-head").hidden = !hasHeads;
    if (hasHeads) this.grid.draw(first);
  }

  /**
   * The views that are seen, with the canvases they are drawn on, for a download.
   * @param {Seen} shown
   */
  pictures(shown) {
    return this.viewsOf(shown).map((view, at) => ({ ...view, canvas: this.panels[at].photo.node }));
  }

  /**
   * The views of what is seen; two that are compared have one scale.
   * @param {Seen} shown
   */
  viewsOf(shown) {
    const parts = shown.other ? [shown.main, shown.other] : [shown.main];
    const views = parts.map((part) => this.viewOf(part, shown));
    if (views.length < 2) return views;
    const end = endOf(shown.main.layer, joined(views.map(toldNumbers)), shown.state.clip);
    return views.map((view) => ({ ...view, scale: { ...view.scale, ...(view.scale.common ? widest(views) : end) } }));
  }

  /**
   * @param {Picture} part
   * @param {Seen} shown
   * @returns {PictureView}
   */
  viewOf(part, { main, state, measure, model, query: looker, key: pointed, ground, bare }) {
    const [home, own] = [main.reply.patches, part.reply.patches];
    // A position is one of the first picture's grid; a layer with other windows may have another.
    const query = part.layer.class_attention ? 0 : home && own ? (carried(home, own, looker) ?? "all") : looker;
    const key = home && own ? carried(home, own, pointed) : pointed;
    const row = look(part.layer, part.head, query);
    const mixed = isMixed(model, part.layer, measure);
    const unit = {
      ...unitOf(part.layer, query, { multiples: state.multiples, mixed }),
      cosine: measure === "similarity",
    };
    const numbers = toldNumbers({ ...part, row, unit });
    return {
      ...part,
      home,
      query,
      key,
      ground,
      row,
      bare,
      scale: scaleOf(state, part, numbers, query, unit),
      unit,
      pinned: isPinned(part.reply, query) && state.query === looker,
      title: titleOf(model, part, measure),
      ink: getComputedStyle(document.body).color,
      text: state.reading && part.reply.tokens && !part.reply.writing ? state.text : null,
      arcs: state.arcs,
    };
  }

  /**
   * @param {PictureView} first
   * @param {PictureView} second
   * @param {Seen} shown
   */
  drawSecond(first, second, { measure, model }) {
    const number = second.layer.layer;
    const signature = JSON.stringify([model.name, model.version, number, second.head, measure]);
    const { caption } = this.panels[1];
    if (caption.dataset.signature !== signature) {
      caption.dataset.signature = signature;
      const layers = layersOf(model, measure).map(({ layer }) => ({ value: String(layer), text: `layer ${layer}` }));
      const count = layerOf(model, measure, number).num_heads;
      const heads = [...REDUCTIONS, ...Array(count).keys()].map((head) => ({
        value: String(head),
        text: typeof head === "number" ? `head ${head}` : `${head} of heads`,
      }));
      caption.replaceChildren(
        choice("Layer of the second picture", layers, number, (value) => this.events.other({ layer: Number(value) })),
        choice("Head of the second picture", heads, second.head, (value) => this.events.other({ head: headOf(value) })),
      );
    }
    this.panels[1].draw(second);
    if (measure === "similarity") {
      byId("overlap").textContent = "Cosines are no shares of 1 to compare.";
      return;
    }
    if ([first, second].some(({ layer }) => model.layers[layer.layer]?.mixes_heads && measure === "weights")) {
      byId("overlap").textContent = "Heads of these layers are mixed: their rows are no shares of 1 to compare.";
      return;
    }
    if (first.row.length !== second.row.length) {
      byId("overlap").textContent = "The two layers have grids of their own: their rows have no weights to compare.";
      return;
    }
    const shared = exact(Number(overlap(first.row, second.row).toPrecision(3)));
    byId("overlap").textContent =
      `The two rows share ${shared} of their weight (1: they are the same; 0: they attend to different places).`;
  }

  /** @param {Seen} shown */
  drawQueries({ main, state, query }) {
    const { reply } = main;
    /** @type {Query[]} */
    const fixed = [...Array(prefixOf(reply)).keys(), "all"];
    const signature = JSON.stringify([fixed, Boolean(reply.tokens)]);
    const host = byId("queries");
    if (host.dataset.signature !== signature) {
      host.dataset.signature = signature;
      /** @param {Query} position */
      const words = (position) =>
        position === "all" ? (reply.tokens ? "all tokens" : "whole picture") : nameOf(reply, position);
      host.replaceChildren(
        ...fixed.map((position) =>
          make("button", {
            type: "button",
            class: "chip",
            value: String(position),
            text: words(position),
            click: () => this.events.query(position),
          }),
        ),
      );
    }
    for (const button of host.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(button.value === String(query)));
    const pinned = isPinned(reply, state.query);
    byId("release").classList.toggle("pinned", pinned);
    const hint = pinned
      ? "Pinned. “Release” or the Escape key lets the pointer choose again."
      : reply.tokens
        ? `${touch.matches ? "Tap" : "Point at"} a ${reply.writing ? "written token" : "token"}${touch.matches ? "" : " or use the arrow keys; click or Enter pins"}.`
        : `${touch.matches ? "Tap a patch, or drag sideways over the picture" : "Point at a patch or use the arrow keys; click or Enter pins"}.`;
    setText(byId("hint"), hint);
  }
}
