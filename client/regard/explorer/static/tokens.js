// Tokens in a line: those that are attended to, coloured by that, and those of a text that is written.

/** @import { PictureEvents, TextView, Token, WrittenToken } from "../types.d.ts" */

import { css, inkOn, viridis } from "./colour.js";
import { make } from "./dom.js";
import { exact, matrixOf, percent, said, topOf } from "./numbers.js";
import { nameOf } from "./places.js";
import { shareOf } from "./scales.js";

/** @typedef {{ point(position: number | null): void, press(position: number): void }} LineEvents */
/** @typedef {{ node: HTMLElement, draw(view: TextView): void }} Line */

/**
 * The tokens of a text, which attend to each other; `events` as for a photo, with point(position or null),
 * pin(position), release().
 * @param {PictureEvents} events
 * @param {string} label
 * @returns {Line}
 */
export function tokenLine(events, label) {
  /** @type {TextView | null} */
  let shown = null;
  const line = lineOf(`${label}: each token, and how much it is attended to`, {
    point: events.point,
    press: (position) => (shown?.query === position && shown.pinned ? events.release() : events.pin(position)),
  });
  return {
    node: line.node,
    draw(view) {
      shown = view;
      const { end } = view.rowEnd;
      const words = view.text === null ? null : piecesOf(view.reply.tokens, view.text);
      line.node.classList.toggle("reading-view", words !== null);
      for (const [at, chip] of line.fill(view.reply.tokens).entries()) {
        colour(chip, view, at, end);
        chip.firstElementChild?.replaceChildren(words ? words[at] : view.reply.tokens[at].text);
        mark(chip, view, at);
        chip.classList.toggle("key", at === view.key);
      }
    },
  };
}

/**
 * The tokens that a model reads while it writes; pointing at one reads its weight.
 * @param {PictureEvents} events
 * @param {string} label
 * @returns {Line}
 */
export function readLine(events, label) {
  const name = make("span", { class: "name" });
  const line = lineOf(`${label}: each token that was read, and how much it is attended to`, {
    point: (position) => events.cell(null, position),
    press: (position) => events.cell(null, position),
  });
  return {
    node: make("div", { class: "named" }, name, line.node),
    draw(view) {
      name.textContent = view.layer.kind === "cross" ? "Read" : "Written before";
      const { end } = view.rowEnd;
      for (const [at, chip] of line.fill(view.reply.tokens).entries()) {
        colour(chip, view, at, end);
        // As wide with every weight, so that the line below stays under the pointer.
        chip.lastElementChild?.replaceChildren(
          view.unit.count || view.unit.mixed ? said(view.row[at], view.unit) : `${Math.round(100 * view.row[at])} %`,
        );
      }
    },
  };
}

/**
 * The tokens that a model has written, with the probability of each; pointing at one shows what it attends to.
 * @param {PictureEvents} events
 * @param {string} label
 * @returns {Line}
 */
export function writtenLine(events, label) {
  /** @type {TextView | null} */
  let shown = null;
  const line = lineOf(`${label}: each token that was written, and its probability`, {
    point: (position) => events.cell(position, null),
    press: (position) => (shown?.query === position && shown.pinned ? events.release() : events.pin(position)),
  });
  return {
    node: make("div", { class: "named written" }, make("span", { class: "name", text: "Written" }), line.node),
    draw(view) {
      shown = view;
      const tokens = view.reply.writing?.tokens ?? [];
      for (const [at, chip] of line.fill(tokens).entries()) {
        tellWritten(chip, view, at, tokens[at]);
        mark(chip, view, at);
      }
    },
  };
}

/**
 * A line of buttons. One of them is in the tab order, arrow keys go to the next. What was filled in before stays where
 * it is the same, and so does the focus on it.
 * @param {string} label
 * @param {LineEvents} events
 */
function lineOf(label, events) {
  const node = make("div", { class: "tokens", role: "group", "aria-label": label });
  /** @type {Token[]} */
  let tokens = [];
  /** @type {HTMLButtonElement[]} */
  let chips = [];
  node.addEventListener("keydown", (event) => {
    const next = chips[nextOf(event.key, chips.indexOf(/** @type {HTMLButtonElement} */ (event.target)), chips.length)];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  /** @param {number} position */
  const putInTabOrder = (position) => {
    for (const [at, chip] of chips.entries()) chip.tabIndex = at === position ? 0 : -1;
  };
  /**
   * @param {Token} token
   * @param {number} position
   */
  const chipOf = (token, position) =>
    make(
      "button",
      {
        type: "button",
        class: token.special ? "token special" : "token",
        tabindex: "-1",
        pointerenter: (event) => event.pointerType === "mouse" && events.point(position),
        pointerleave: (event) => event.pointerType === "mouse" && events.point(null),
        focus: () => {
          putInTabOrder(position);
          events.point(position);
        },
        blur: () => events.point(null),
        click: () => events.press(position),
      },
      make("span", { text: token.text }),
      " ",
      make("small"),
    );
  return {
    node,
    /** @param {Token[]} next */
    fill(next) {
      if (next === tokens) return chips;
      const kept = commonLength(tokens, next);
      for (const chip of chips.slice(kept)) chip.remove();
      chips = [...chips.slice(0, kept), ...next.slice(kept).map((token, at) => chipOf(token, kept + at))];
      tokens = next;
      node.append(...chips.slice(kept));
      if (!chips.some((chip) => chip.tabIndex === 0)) putInTabOrder(0);
      return chips;
    },
  };
}

/**
 * What each token is of a text, with what lies before it that is of none: together they are the text. Where tokens do
 * not follow each other in it, as those of a pair, each stands for itself.
 * @param {Token[]} tokens
 * @param {string} text
 */
export function piecesOf(tokens, text) {
  const letters = Array.from(text);
  let before = 0;
  const pieces = tokens.map(({ special, start = 0, end = 0, text: own }) => {
    if (special) return ` ${own} `;
    const piece = letters.slice(before, end).join("");
    const follows = start >= before && end > start && end <= letters.length;
    before = follows ? end : Number.POSITIVE_INFINITY;
    return follows ? piece : null;
  });
  return pieces.every((piece) => piece !== null) ? pieces : tokens.map((token) => `${token.text} `);
}

/**
 * How many tokens at the beginning of two lists are the same.
 * @param {Token[]} before
 * @param {Token[]} after
 */
function commonLength(before, after) {
  const different = before.findIndex((token, at) => token !== after[at]);
  return different < 0 ? before.length : different;
}

/**
 * Where a key leads from a token, or undefined.
 * @param {string} key
 * @param {number} here
 * @param {number} count
 */
function nextOf(key, here, count) {
  /** @type {Record<string, number>} */
  const places = {
    ArrowLeft: here - 1,
    ArrowUp: here - 1,
    ArrowRight: here + 1,
    ArrowDown: here + 1,
    Home: 0,
    End: count - 1,
  };
  return places[key];
}

/**
 * @param {HTMLButtonElement} chip
 * @param {TextView} view
 * @param {number} at
 * @param {number} end
 */
function colour(chip, { row, reply, scale, unit }, at, end) {
  const ground = viridis(shareOf({ ...scale, end }, row[at]));
  chip.style.backgroundColor = css(ground);
  chip.style.color = inkOn(ground);
  chip.lastElementChild?.replaceChildren(said(row[at], unit));
  chip.title = `attended to with a weight of ${exact(row[at])}`;
  chip.setAttribute("aria-label", `${reply.tokens[at].text}, ${said(row[at], unit)}`);
}

/**
 * @param {HTMLButtonElement} chip
 * @param {TextView} view
 * @param {number} at
 * @param {WrittenToken} token
 */
function tellWritten(chip, { layer, head, reply }, at, { text, log_probability }) {
  const probability = percent(Math.exp(log_probability));
  const [, , keys] = layer.shape;
  const [most] = topOf(matrixOf(layer, head).subarray(at * keys, (at + 1) * keys), 1);
  chip.lastElementChild?.replaceChildren(probability);
  chip.title = `log-probability ${exact(log_probability)}`;
  chip.setAttribute("aria-label", `${text}, probability ${probability}, attends most to ${nameOf(reply, most)}`);
}

/**
 * Show whether it is this token that looks, and whether it is pinned.
 * @param {HTMLButtonElement} chip
 * @param {TextView} view
 * @param {number} at
 */
function mark(chip, { query, pinned }, at) {
  chip.setAttribute("aria-pressed", String(pinned && query === at));
  chip.classList.toggle("looks", query === at);
}
