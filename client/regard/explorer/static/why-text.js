// A text's tokens, each on a ground that says what it did for a label: pointed at, and picked to be left out.

/** @import { Colour, Token, WhyEvents, WhyView } from "../types.d.ts" */

import { css, inkOn } from "./colour.js";
import { make } from "./dom.js";
import { signedColour, signedShare, told } from "./signed.js";
import { piecesOf } from "./tokens.js";

/**
 * Whether a text can be sent without a token: special ones stand in none.
 * @param {Token} token
 */
const canLeaveOut = ({ special, end = 0 }) => !special && end > 0;

/**
 * The paper that tokens lie on.
 * @returns {Colour}
 */
export function paper() {
  const [red, green, blue] = (getComputedStyle(document.body).backgroundColor.match(/\d+/g) ?? []).map(Number);
  return [red, green, blue];
}

/** @type {Record<string, "previousElementSibling" | "nextElementSibling">} */
const STEPS = {
  ArrowLeft: "previousElementSibling",
  ArrowUp: "previousElementSibling",
  ArrowRight: "nextElementSibling",
  ArrowDown: "nextElementSibling",
};

/**
 * The tokens as a line of buttons, of which one is in the tab order; arrow keys go to the next.
 * @param {WhyEvents} events
 */
export function whyText(events) {
  const node = make("div", {
    class: "tokens",
    role: "group",
    "aria-label": "Each token, and what it did for the label",
  });
  node.addEventListener("keydown", (event) => {
    const next = event.target instanceof HTMLElement && event.target[STEPS[event.key]];
    if (!(next instanceof HTMLElement)) return;
    event.preventDefault();
    next.focus();
  });
  /** @type {HTMLButtonElement[]} */
  let chips = [];
  /** @type {{ why: WhyView["why"] | null, text: string | null, dark: boolean, end: number }} What stays while one points */
  let drawn = { why: null, text: null, dark: false, end: 0 };
  /**
   * @param {Token} token
   * @param {number} place
   */
  const chipOf = (token, place) =>
    make(
      "button",
      {
        type: "button",
        class: token.special ? "token special" : "token",
        tabindex: place === 0 ? "0" : "-1",
        pointerenter: () => events.point(place),
        pointerleave: (event) => event.pointerType === "mouse" && events.point(null),
        focus: () => {
          for (const [at, chip] of chips.entries()) chip.tabIndex = at === place ? 0 : -1;
          events.point(place);
        },
        blur: () => events.point(null),
        click: () => canLeaveOut(token) && events.pick(place),
      },
      make("span", { text: token.text }),
      " ",
      make("small"),
    );
  return {
    node,
    /** @param {WhyView} view */
    draw({ why, scale: { end }, state, dark, pointed, picked }) {
      const all = why.tokens ?? [];
      const tokens = why.positions.map((position) => all[position]);
      const text = state.reading ? state.text : null;
      if (drawn.why !== why) {
        chips = tokens.map(chipOf);
        node.replaceChildren(...chips);
      }
      if (drawn.why !== why || drawn.text !== text || drawn.dark !== dark || drawn.end !== end) {
        drawn = { why, text, dark, end };
        node.classList.toggle("reading-view", text !== null);
        tell(chips, piecesOf(tokens, text), { why, end, dark }, tokens);
      }
      for (const [place, chip] of chips.entries()) {
        if (canLeaveOut(tokens[place])) chip.setAttribute("aria-pressed", String(picked.has(place)));
        chip.classList.toggle("looks", place === pointed);
      }
    },
  };
}

/**
 * Colour tokens by their numbers, and write these and the words.
 * @param {HTMLButtonElement[]} chips
 * @param {string[]} words
 * @param {{ why: WhyView["why"], end: number, dark: boolean }} view
 * @param {Token[]} tokens
 */
function tell(chips, words, { why, end, dark }, tokens) {
  const ground = paper();
  for (const [place, chip] of chips.entries()) {
    const colour = signedColour(signedShare(why.values[place], end), ground, dark);
    Object.assign(chip.style, { backgroundColor: css(colour), color: inkOn(colour) });
    const number = told(why, why.values[place]);
    chip.firstElementChild?.replaceChildren(words[place]);
    chip.lastElementChild?.replaceChildren(number);
    chip.title = `${why.values[place]}`;
    chip.setAttribute("aria-label", `${tokens[place].text}, ${number}`);
  }
}
