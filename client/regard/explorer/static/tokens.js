// Tokens in a line: those that are attended to, coloured by that, and those of a text that is written.

/** @import { PictureEvents, TextView, Token, WrittenToken } from "../types.d.ts" */

import { VIRIDIS_CSS } from "./colour.js";
import { make, setText } from "./dom.js";
import { IdleSteps } from "./idle.js";
import { exact, matrixOf, percent, said, topOf } from "./numbers.js";
import { nameOf } from "./places.js";
import { placer } from "./scales.js";

const CHUNK = 32; // tokens that are written in one step
const NEAR = "100px"; // to the edge of the screen

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
  /** @type {{ of: Token[], text: string | null }} */
  let words = { of: [], text: null };
  const line = lineOf(`${label}: each token, and how much it is attended to`, {
    point: events.point,
    press: (position) => (shown?.query === position && shown.pinned ? events.release() : events.pin(position)),
  });
  return {
    node: line.node,
    draw(view) {
      shown = view;
      const chips = line.fill(view.reply.tokens);
      if (words.of !== view.reply.tokens || words.text !== view.text) {
        words = { of: view.reply.tokens, text: view.text };
        const pieces = piecesOf(words.of, view.text);
        for (const [at, chip] of chips.entries()) chip.firstElementChild?.replaceChildren(pieces[at]);
        line.node.classList.toggle("reading-view", view.text !== null);
      }
      line.shade(view, (weight) => said(weight, view.unit));
      line.mark(view);
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
    node: make("div", { class: "named read" }, name, line.node),
    draw(view) {
      setText(name, view.layer.kind === "cross" ? "Read" : "Written before");
      line.fill(view.reply.tokens);
      const whole = !view.unit.count && !view.unit.mixed;
      line.shade(view, (weight) => (whole ? `${Math.round(100 * weight)} %` : said(weight, view.unit)));
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
      for (const [at, chip] of line.fill(tokens).entries()) tellWritten(chip, view, at, tokens[at]);
      line.mark(view);
    },
  };
}

/**
 * A line of buttons. One of them is in the tab order, arrow keys go to the next. What was filled in before stays where
 * it is the same, and so does the focus on it. Pointing may change every token: colours of those that are seen come at
 * once, and all of those that are new; all else when the page is idle.
 * @param {string} label
 * @param {LineEvents} events
 */
function lineOf(label, events) {
  const node = make("div", { class: "tokens", role: "group", "aria-label": label });
  /** @type {Token[]} */
  let tokens = [];
  /** @type {HTMLButtonElement[]} */
  let chips = [];
  /** @type {Set<Element>} Those on the screen, or near */
  const seen = new Set();
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) seen.add(target);
        else seen.delete(target);
      }
    },
    { rootMargin: NEAR },
  );
  /** @type {(at: number, idle: boolean) => void} */
  let draw = () => undefined;
  const steps = new IdleSteps((step) => {
    for (let at = step * CHUNK; at < Math.min(chips.length, (step + 1) * CHUNK); at++) draw(at, true);
  });
  /** @type {(number | null | "all")[]} */
  let marked = [];
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
        "aria-pressed": "false",
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
      for (const chip of chips.slice(kept)) {
        chip.remove();
        watcher.unobserve(chip);
        seen.delete(chip);
      }
      chips = [...chips.slice(0, kept), ...next.slice(kept).map((token, at) => chipOf(token, kept + at))];
      tokens = next;
      node.append(...chips.slice(kept));
      for (const chip of chips.slice(kept)) {
        seen.add(chip);
        watcher.observe(chip);
      }
      if (!chips.some((chip) => chip.tabIndex === 0)) putInTabOrder(0);
      return chips;
    },
    /**
     * Colour the tokens by a row, and write its numbers.
     * @param {TextView} view
     * @param {(weight: number) => string} numberOf
     */
    shade({ row, rowEnd, scale, reply, unit }, numberOf) {
      const place = placer({ ...scale, ...rowEnd });
      node.classList.toggle("long", Boolean(unit.count));
      draw = (at, idle) => {
        const isNew = !places.has(chips[at]);
        colour(chips[at], place(row[at]));
        if (idle || isNew) tell(chips[at], reply.tokens[at].text, row[at], numberOf(row[at]), said(row[at], unit));
      };
      for (const [at, chip] of chips.entries()) if (seen.has(chip)) draw(at, false);
      steps.begin(Math.ceil(chips.length / CHUNK));
    },
    /**
     * Show which token attends, whether it is pinned, and which is pointed at.
     * @param {TextView} view
     */
    mark(view) {
      const places = [view.query, view.key];
      for (const at of new Set([...marked, ...places]))
        if (typeof at === "number" && chips[at]) mark(chips[at], view, at);
      marked = places;
    },
  };
}

/**
 * What each token is of a text, with what lies before it that is of none: together they are the text. Where tokens do
 * not follow each other in it, as those of a pair, or there is none, each stands for itself.
 * @param {Token[]} tokens
 * @param {string | null} text
 */
export function piecesOf(tokens, text) {
  if (text === null) return tokens.map((token) => token.text);
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

/** @type {WeakMap<HTMLElement, number>} The place in the table of colours that each has */
const places = new WeakMap();

/**
 * @param {HTMLButtonElement} chip
 * @param {number} place
 */
function colour(chip, place) {
  const before = places.get(chip);
  if (before === place) return;
  places.set(chip, place);
  const { ground, ink } = VIRIDIS_CSS[place];
  chip.style.backgroundColor = ground;
  if (before === undefined || VIRIDIS_CSS[before].ink !== ink) chip.style.color = ink;
}

/**
 * @param {HTMLButtonElement} chip
 * @param {string} text
 * @param {number} weight
 * @param {string} number
 * @param {string} spoken
 */
function tell(chip, text, weight, number, spoken) {
  setText(/** @type {Element} */ (chip.lastElementChild), number);
  const title = `attended to with a weight of ${exact(weight)}`;
  if (chip.title === title) return;
  chip.title = title;
  chip.setAttribute("aria-label", `${text}, ${spoken}`);
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
 * Show whether it is this token that attends, whether it is pinned, and whether it is pointed at.
 * @param {HTMLButtonElement} chip
 * @param {TextView} view
 * @param {number} at
 */
function mark(chip, { query, key, pinned }, at) {
  chip.setAttribute("aria-pressed", String(pinned && query === at));
  chip.classList.toggle("looks", query === at);
  chip.classList.toggle("key", key === at);
}
