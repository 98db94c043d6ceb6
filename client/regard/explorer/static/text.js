// A text's tokens, coloured by what the chosen one looks at, and the matrix of who looks at whom; view.js places them.

import { css, inkOn, paint, rootShare, viridis, viridisTable } from "./colour.js";
import { make } from "./dom.js";
import { exact, largestOf, matrixOf, percent } from "./numbers.js";

const LARGEST_CELL = 26;
const SMALLEST_LABELLED = 10;
const MOST_LABEL_PIXELS = 110;
const FONT = "12px ui-monospace, Menlo, Consolas, monospace";
const table = viridisTable();

/**
 * The tokens in a line. One of them is in the tab order, arrow keys go to the next; `events` as for a photo, with
 * point(position or null), pin(position), release().
 */
export function tokenLine(events, label) {
  const line = make("div", {
    class: "tokens",
    role: "group",
    "aria-label": `${label}: each token, and how much it is looked at`,
  });
  let shown = null;
  let chips = [];
  line.addEventListener("keydown", (event) => {
    const here = chips.indexOf(event.target);
    const next = {
      ArrowLeft: here - 1,
      ArrowUp: here - 1,
      ArrowRight: here + 1,
      ArrowDown: here + 1,
      Home: 0,
      End: chips.length - 1,
    }[event.key];
    if (next === undefined || !chips[next]) return;
    event.preventDefault();
    chips[next].focus();
  });
  const chipOf = (token, position) =>
    make(
      "button",
      {
        type: "button",
        class: token.special ? "token special" : "token",
        pointerenter: (event) => event.pointerType === "mouse" && events.point(position),
        pointerleave: (event) => event.pointerType === "mouse" && events.point(null),
        focus: () => {
          chips.forEach((chip, at) => (chip.tabIndex = at === position ? 0 : -1));
          events.point(position);
        },
        blur: () => events.point(null),
        click: () => (shown.query === position && shown.pinned ? events.release() : events.pin(position)),
      },
      make("span", { text: token.text }),
      make("small"),
    );
  return {
    node: line,
    draw(view) {
      if (shown?.reply.tokens !== view.reply.tokens) {
        chips = view.reply.tokens.map(chipOf);
        chips.forEach((chip, at) => (chip.tabIndex = at === 0 ? 0 : -1));
        line.replaceChildren(...chips);
      }
      shown = view;
      const largest = largestOf(view.row);
      chips.forEach((chip, at) => colour(chip, view, at, largest));
    },
  };
}

function colour(chip, { row, query, pinned, reply }, at, largest) {
  const ground = viridis(rootShare(row[at], largest));
  chip.style.backgroundColor = css(ground);
  chip.style.color = inkOn(ground);
  chip.lastChild.textContent = percent(row[at]);
  chip.title = `looked at with a weight of ${exact(row[at])}`;
  chip.setAttribute("aria-label", `${reply.tokens[at].text}, ${percent(row[at])}`);
  chip.setAttribute("aria-pressed", String(pinned && query === at));
  chip.classList.toggle("looks", query === at);
}

/** The matrix as colours, one pixel a weight, the square root of each weight's share of the largest. */
function imageOf(layer, head) {
  const [, queries, keys] = layer.shape;
  const matrix = matrixOf(layer, head);
  const largest = largestOf(matrix);
  const canvas = new OffscreenCanvas(keys, queries);
  canvas.getContext("2d").putImageData(
    paint(matrix, keys, queries, table, (weight) => rootShare(weight, largest)),
    0,
    0,
  );
  return canvas;
}

/** Draw the matrix alone, and a line around the row that looks. */
export function paintMatrix(canvas, { layer, head, query }) {
  const [, queries] = layer.shape;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(imageOf(layer, head), 0, 0, canvas.width, canvas.height);
  if (typeof query === "number")
    frame(context, 0, (query * canvas.height) / queries, canvas.width, canvas.height / queries);
}

/** The matrix with the tokens along its sides. `events`: cell(query, key) or cell(null, null), pin(query). */
export function matrixView(events) {
  const canvas = make("canvas", { class: "matrix", role: "img" });
  let view = null;
  let place = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const [, queries, keys] = view.layer.shape;
    const key = Math.floor((event.clientX - box.left - place.band) / place.cell);
    const query = Math.floor((event.clientY - box.top - place.band) / place.cell);
    return key >= 0 && query >= 0 && key < keys && query < queries ? [query, key] : [null, null];
  };
  canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && events.cell(...at(event)));
  canvas.addEventListener("pointerleave", () => events.cell(null, null));
  canvas.addEventListener("click", (event) => at(event)[0] !== null && events.pin(at(event)[0]));
  return {
    node: canvas,
    draw(next) {
      view = next;
      place = placeOf(view, canvas.parentElement.clientWidth);
      canvas.setAttribute(
        "aria-label",
        `Who looks at whom: ${view.title}; rows look at columns. The same numbers stand on the tokens.`,
      );
      paintLabelled(canvas, view, place);
    },
  };
}

/** Where labels and cells lie in a given width: cells as large as fit, labels only where they can be read. */
export function placeOf({ layer, reply }, available) {
  const [, queries, keys] = layer.shape;
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.font = FONT;
  const longest = Math.max(...reply.tokens.map((token) => context.measureText(token.text).width));
  const labels = Math.min(MOST_LABEL_PIXELS, Math.ceil(longest) + 12);
  const fits = (band) => Math.min(LARGEST_CELL, (available - band) / keys);
  const band = fits(labels) >= SMALLEST_LABELLED ? labels : 0;
  const cell = fits(band);
  return { band, cell, width: band + keys * cell, height: band + queries * cell };
}

/** Draw matrix and labels at a place, as fine as the screen is; save.js draws the same for a download. */
export function paintLabelled(canvas, view, { band, cell, width, height }, fineness = window.devicePixelRatio || 1) {
  const [, queries, keys] = view.layer.shape;
  Object.assign(canvas, { width: Math.round(width * fineness), height: Math.round(height * fineness) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(fineness, fineness);
  context.imageSmoothingEnabled = false;
  context.drawImage(imageOf(view.layer, view.head), band, band, keys * cell, queries * cell);
  if (band) paintLabels(context, view, band, cell);
  if (typeof view.query === "number") frame(context, band, band + view.query * cell, keys * cell, cell);
  if (view.key !== null && view.query !== null) frame(context, band + view.key * cell, band, cell, queries * cell);
}

function paintLabels(context, { reply, query, key, ink }, band, cell) {
  context.font = FONT;
  context.textBaseline = "middle";
  reply.tokens.forEach((token, at) => {
    const centre = band + (at + 0.5) * cell;
    const word = fitted(context, token.text, band - 10);
    context.fillStyle = ink;
    context.globalAlpha = at === query || query === "all" ? 1 : 0.7;
    context.textAlign = "right";
    context.fillText(word, band - 6, centre);
    context.globalAlpha = at === key ? 1 : 0.7;
    context.save();
    context.translate(centre, band - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(word, 0, 0);
    context.restore();
  });
  context.globalAlpha = 1;
}

function fitted(context, word, pixels) {
  if (context.measureText(word).width <= pixels) return word;
  let kept = word;
  while (kept && context.measureText(`${kept}…`).width > pixels) kept = kept.slice(0, -1);
  return `${kept}…`;
}

function frame(context, x, y, width, height) {
  context.strokeStyle = "#fff";
  context.lineWidth = 1.5;
  context.strokeRect(x, y, width, height);
}
