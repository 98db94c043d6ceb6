// Everything that shows an answer: title, who looks, one or two panels, every head; main.js hands it what is seen.

import { byId, choice, make } from "./dom.js";
import { headGrid } from "./heads.js";
import { exact, look, overlap, percent, topOf } from "./numbers.js";
import { Panel } from "./panel.js";
import { isPinned, lookerOf, nameOf, prefixOf } from "./places.js";
import { REDUCTIONS } from "./state.js";

/** A head or a reduction in words. */
export function headName(head, model, number) {
  const layer = model.layers.find((each) => each.layer === number) ?? model.layers.at(-1);
  return typeof head === "number" ? `head ${head}` : `${head} of ${layer.num_heads} heads`;
}

/** The title of a picture. */
export function titleOf(model, { layer: { layer }, head }, measure) {
  if (measure === "contribution_rollout") return `${model.name} · contributions to layer ${layer} · all heads`;
  const what = measure === "rollout" ? `rollout to layer ${layer}` : `layer ${layer}`;
  return [model.name, what, headName(head, model, layer)].join(" · ");
}

/** Who looks at what, for a screen reader. */
export function spokenOf({ main, query }) {
  const row = look(main.layer, main.head, query);
  const [most] = topOf(row, 1);
  return `${lookerOf(main.reply, query)} looks most at ${nameOf(main.reply, most)}, ${percent(row[most])}`;
}

/** Shows one answer, or two side by side. `events`: those of a panel; head(n), query(q), release(), other(fields). */
export class View {
  constructor(events) {
    this.events = events;
    this.panels = [new Panel(events, "First picture"), new Panel(events, "Second picture")];
    this.grid = headGrid(events.head);
    byId("panels").append(...this.panels.map((panel) => panel.node));
    byId("heads").append(this.grid.node);
  }

  /** Draw { model, state, main: { reply, layer, head }, other or null, query, key, ground, smooth }. */
  draw(shown) {
    byId("shown").hidden = false;
    byId("empty").hidden = true;
    const { main, other, state, model, query } = shown;
    byId("title").textContent = titleOf(model, main, state.measure);
    byId("looks").textContent =
      `What ${lookerOf(main.reply, query)} ${query === "all" && main.reply.tokens ? "look" : "looks"} at`;
    const [first, second] = [main, other].map((part) => part && this.viewOf(part, shown));
    this.panels[0].draw(first);
    this.panels[0].caption.replaceChildren(
      ...(other ? [make("strong", { text: titleOf(model, main, state.measure) })] : []),
    );
    this.panels[1].node.hidden = !second;
    byId("panels").classList.toggle("two", Boolean(second));
    if (second) this.drawSecond(first, second, shown);
    byId("overlap").hidden = !second;
    byId("smoothing").hidden = Boolean(main.reply.tokens);
    this.drawQueries(shown);
    byId("every-head").hidden = state.measure !== "weights";
    if (state.measure === "weights") this.grid.draw(first);
  }

  /** The views that are seen, with the canvases they are drawn on, for a download. */
  pictures(shown) {
    return [shown.main, shown.other]
      .filter(Boolean)
      .map((part, at) => ({ ...this.viewOf(part, shown), canvas: this.panels[at].photo.node }));
  }

  viewOf(part, { state, model, query, key, ground, smooth }) {
    return {
      ...part,
      query,
      key,
      ground,
      smooth,
      row: look(part.layer, part.head, query),
      pinned: isPinned(part.reply, query) && state.query === query,
      title: titleOf(model, part, state.measure),
      ink: getComputedStyle(document.body).color,
    };
  }

  drawSecond(first, second, { state, model, other }) {
    const signature = JSON.stringify([model.name, model.version, other.layer.layer, other.head, state.measure]);
    const { caption } = this.panels[1];
    if (caption.dataset.signature !== signature) {
      caption.dataset.signature = signature;
      const layers = model.layers.map(({ layer }) => ({ value: String(layer), text: `layer ${layer}` }));
      const count = model.layers.find((each) => each.layer === other.layer.layer).num_heads;
      const heads = [...REDUCTIONS, ...Array(count).keys()].map((head) => ({
        value: String(head),
        text: typeof head === "number" ? `head ${head}` : `${head} of heads`,
      }));
      caption.replaceChildren(
        choice("Layer of the second picture", layers, other.layer.layer, (value) =>
          this.events.other({ layer: Number(value) }),
        ),
        choice("Head of the second picture", heads, other.head, (value) =>
          this.events.other({ head: REDUCTIONS.includes(value) ? value : Number(value) }),
        ),
      );
    }
    this.panels[1].draw(second);
    const shared = exact(Number(overlap(first.row, second.row).toPrecision(3)));
    byId("overlap").textContent =
      `The two rows share ${shared} of their weight (1: they are the same; 0: they look at different places).`;
  }

  drawQueries({ main, state, query }) {
    const { reply } = main;
    const fixed = [...Array(prefixOf(reply)).keys(), "all"];
    const signature = JSON.stringify([fixed, Boolean(reply.tokens)]);
    const host = byId("queries");
    if (host.dataset.signature !== signature) {
      host.dataset.signature = signature;
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
    for (const button of host.children) button.setAttribute("aria-pressed", String(button.value === String(query)));
    const pinned = isPinned(reply, state.query);
    byId("release").classList.toggle("pinned", pinned);
    byId("hint").textContent = pinned
      ? "Pinned. “Release” or the Escape key lets the pointer choose again."
      : reply.tokens
        ? "Point at a token or use the arrow keys; click or Enter pins."
        : "Point at a patch or use the arrow keys; click or Enter pins.";
  }
}
