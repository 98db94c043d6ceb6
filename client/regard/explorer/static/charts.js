// Entropy and distance of every head, layer by layer, as SVG with axes, units and a legend.

/** @import { Child, Head } from "../types.d.ts" */

import { draw, make } from "./dom.js";
import { exact } from "./numbers.js";

const [WIDTH, HEIGHT] = [460, 280];
const EDGE = { left: 54, right: 14, top: 14, bottom: 44 };
const TICKS = 5;

/**
 * @typedef {{ layer: number, values: number[] }} ChartLayer One number a head
 * @typedef {{ layer: number, head: Head }} Chosen
 */

/**
 * One chart. `layers`: [{ layer, values: [H] }]; `chosen`: { layer, head }; `bound`: { value, label } of a dashed line,
 * or null; `choose(layer, head)` is called for a dot that was clicked.
 * @param {{
 *   title: string, explanation: string, unit: string, layers: ChartLayer[], chosen: Chosen,
 *   bound: { value: number, label: string } | null, choose: (layer: number, head: number) => void,
 * }} options
 */
export function chart({ title, explanation, unit, layers, chosen, bound, choose }) {
  const values = layers.flatMap((entry) => entry.values);
  const top = niceTop(Math.max(...values, bound?.value ?? 0));
  /** @param {number} place */
  const x = (place) => EDGE.left + ((place + 0.5) / layers.length) * (WIDTH - EDGE.left - EDGE.right);
  /** @param {number} value */
  const y = (value) => HEIGHT - EDGE.bottom - (value / top.most) * (HEIGHT - EDGE.top - EDGE.bottom);
  const means = layers.map(({ values: each }) => each.reduce((sum, value) => sum + value, 0) / each.length);
  const picture = draw(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      class: "chart",
      role: "img",
      "aria-label": `${title}, ${unit}, by layer; the table below has the numbers`,
    },
    ...axes(layers, top, x, y, unit),
    bound &&
      draw("line", { class: "bound", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(bound.value), y2: y(bound.value) }),
    draw("polyline", { class: "mean", points: means.map((value, at) => `${x(at)},${y(value)}`).join(" ") }),
    ...layers.flatMap((entry, at) =>
      entry.values.map((value, head) => dot(entry.layer, head, value, x(at), y(value), unit, chosen, choose)),
    ),
  );
  return make(
    "figure",
    { class: "plot" },
    make("figcaption", {}, make("strong", { text: title }), make("span", { text: explanation })),
    picture,
    legend(chosen, bound),
    numbersTable(title, unit, layers),
  );
}

/**
 * The axis' end and step, so that its numbers are round ones.
 * @param {number} most
 */
export function niceTop(most) {
  const rough = (most || 1) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step =
    [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999) ?? power;
  return { step, most: Math.ceil(((most || 1) / step) * 0.999) * step };
}

/**
 * @param {ChartLayer[]} layers
 * @param {{ step: number, most: number }} top
 * @param {(place: number) => number} x
 * @param {(value: number) => number} y
 * @param {string} unit
 */
function axes(layers, top, x, y, unit) {
  const lines = [];
  for (let at = 0; at * top.step <= top.most * 1.001; at++) {
    const value = at * top.step;
    lines.push(draw("line", { class: "rule", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }));
    lines.push(draw("text", { class: "tick", x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, exact(value)));
  }
  const every = Math.ceil(layers.length / 16);
  layers.forEach((entry, at) => {
    if (at % every === 0)
      lines.push(
        draw(
          "text",
          { class: "tick", x: x(at), y: HEIGHT - EDGE.bottom + 18, "text-anchor": "middle" },
          String(entry.layer),
        ),
      );
  });
  lines.push(
    draw("text", { class: "axis", x: (WIDTH + EDGE.left) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "layer"),
  );
  const middle = (HEIGHT - EDGE.bottom + EDGE.top) / 2;
  lines.push(
    draw("text", { class: "axis", transform: `translate(14 ${middle}) rotate(-90)`, "text-anchor": "middle" }, unit),
  );
  return lines;
}

/**
 * @param {number} layer
 * @param {number} head
 * @param {number} value
 * @param {number} cx
 * @param {number} cy
 * @param {string} unit
 * @param {Chosen} chosen
 * @param {(layer: number, head: number) => void} choose
 */
function dot(layer, head, value, cx, cy, unit, chosen, choose) {
  const isChosen = layer === chosen.layer && (head === chosen.head || typeof chosen.head !== "number");
  return draw(
    "circle",
    { class: isChosen ? "dot chosen" : "dot", cx, cy, r: isChosen ? 5 : 4, click: () => choose(layer, head) },
    draw("title", {}, `layer ${layer}, head ${head}: ${exact(value)} ${unit}`),
  );
}

/**
 * @param {Chosen} chosen
 * @param {{ label: string } | null} bound
 */
function legend(chosen, bound) {
  /** @param {Child[]} shapes */
  const sign = (...shapes) => draw("svg", { viewBox: "0 0 24 12", class: "sign", "aria-hidden": "true" }, ...shapes);
  const which =
    typeof chosen.head === "number" ? `layer ${chosen.layer}, head ${chosen.head}` : `heads of layer ${chosen.layer}`;
  /** @type {[Child, string][]} */
  const entries = [
    [sign(draw("circle", { class: "dot", cx: 12, cy: 6, r: 4 })), "a head"],
    [sign(draw("circle", { class: "dot chosen", cx: 12, cy: 6, r: 5 })), which],
    [sign(draw("line", { class: "mean", x1: 1, x2: 23, y1: 6, y2: 6 })), "mean of the heads"],
  ];
  if (bound) entries.push([sign(draw("line", { class: "bound", x1: 1, x2: 23, y1: 6, y2: 6 })), bound.label]);
  return make("p", { class: "legend" }, ...entries.map(([picture, words]) => make("span", {}, picture, words)));
}

/**
 * @param {string} title
 * @param {string} unit
 * @param {ChartLayer[]} layers
 */
function numbersTable(title, unit, layers) {
  const heads = layers[0].values.map((_, head) => make("th", { scope: "col", text: `head ${head}` }));
  const rows = layers.map((entry) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", text: `layer ${entry.layer}` }),
      ...entry.values.map((value) => make("td", { text: exact(value) })),
    ),
  );
  return make(
    "details",
    { class: "numbers" },
    make("summary", { text: `Numbers: ${title.toLowerCase()}` }),
    make(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, ${unit}` },
      make("table", {}, make("thead", {}, make("tr", {}, make("td"), ...heads)), make("tbody", {}, ...rows)),
    ),
  );
}
