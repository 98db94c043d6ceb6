// What the page says while it waits and when something went wrong, so that it is never blank.

import { isAbort, Problem, problemOf } from "./api.js";
import { byId, make } from "./dom.js";

const SLOW_SECONDS = 5;

/** @type {Record<string, string>} */
const ADVICE = {
  EXPLORER_GONE:
    "Is “regard explore” still running? Start it again on the same port. Links to texts go on working; photos " +
    "must be given again.",
  DEADLINE_EXCEEDED:
    "The server took too long. A smaller model is faster; “regard --timeout SECONDS explore” waits longer.",
  PHOTO_GONE:
    "Give the photo again: drop it on the page or choose its file. Everything else of the link stays as it is.",
  NOT_FOUND: "The model may have been unloaded or replaced. Choose another, or ask again what is served.",
  INVALID_ARGUMENT: "Change what the message names, and ask again.",
  FAILED_PRECONDITION: "Choose another model.",
  CANCELLED: "The server was told that nobody waits any more.",
};

/**
 * What to do about a problem, in words.
 * @param {Problem} problem
 */
export function adviceOn({ code, server, retrySeconds }) {
  if (code === "UNAVAILABLE") {
    return (
      `Is a server running at ${server}? Start one with “python -m server --listen ${server}”, or start this ` +
      "explorer with “regard --server HOST:PORT explore”."
    );
  }
  if (code === "RESOURCE_EXHAUSTED" && retrySeconds !== null)
    return "The server is busy. The page asks again by itself.";
  if (code === "RESOURCE_EXHAUSTED") return "Something is larger than allowed: give a smaller photo or a shorter text.";
  return ADVICE[code] ?? "Try again; the server’s log may say more.";
}

/** @type {Record<string, string>} */
const TITLES = {
  UNAVAILABLE: "No server answers",
  EXPLORER_GONE: "The explorer does not answer",
  RESOURCE_EXHAUSTED: "Too busy, or too large",
  DEADLINE_EXCEEDED: "No answer in time",
  PHOTO_GONE: "This link’s photo is gone",
  NOT_FOUND: "No such model",
  CANCELLED: "Called off",
  INVALID_ARGUMENT: "The server does not take this",
  FAILED_PRECONDITION: "This model cannot do that",
};

/** Shows one state at a time in the page's status and alert regions, and ends what is waited for. */
export class Status {
  constructor() {
    /** @type {number | undefined} */
    this.timer = undefined;
    this.abort = new AbortController();
  }

  /**
   * Name the server, and whether it answers.
   * @param {string} address
   * @param {boolean} isUp
   */
  serverIs(address, isUp) {
    if (address) byId("server").textContent = address;
    byId("server").dataset.state = isUp ? "up" : "down";
  }

  /**
   * Begin to wait: what for, how long already, and a way out. Ends the wait before; returns a signal of its end.
   * @param {string} what
   * @param {() => unknown} again
   * @returns {AbortSignal}
   */
  begin(what, again) {
    this.end();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const seconds = make("span", { class: "seconds", "aria-hidden": "true" });
    const slow = make("span", { class: "slow" });
    const cancel = () => this.fail(new Problem("CANCELLED", "nobody waits for the answer"), again, null);
    byId("status").append(
      make("span", { class: "spinner", "aria-hidden": "true" }),
      make("span", { text: `${what} …` }),
      seconds,
      slow,
      make("button", { type: "button", text: "Cancel", click: cancel }),
    );
    byId("view").setAttribute("aria-busy", "true");
    const start = performance.now();
    this.timer = setInterval(() => {
      const passed = (performance.now() - start) / 1000;
      seconds.textContent = `${passed.toFixed(1)} s`;
      if (passed > SLOW_SECONDS && !slow.textContent) slow.textContent = "The server is slow or busy; still waiting.";
    }, 100);
    return signal;
  }

  /**
   * Something went wrong: what, what to do, and a button to try again; where a time is given, it is counted down. An
   * ended wait is no problem: whoever ended it shows something else.
   * @param {unknown} error
   * @param {() => unknown} again
   * @param {number | null} retrySeconds
   */
  fail(error, again, retrySeconds = problemOf(error).retrySeconds) {
    if (isAbort(error)) return;
    const { code, message, server } = problemOf(error);
    this.end();
    if (!(error instanceof Problem)) console.error(error);
    if (server) this.serverIs(server, code !== "UNAVAILABLE");
    const words = code === "PHOTO_GONE" ? "Choose the photo" : "Try again";
    const button = make("button", { type: "button", class: "primary", text: words, click: again });
    byId("problem").append(
      make("strong", { text: TITLES[code] ?? "Something went wrong" }),
      make("p", { text: adviceOn(problemOf(error)) }),
      button,
      make("p", { class: "said", text: `${code}: ${message}` }),
    );
    byId("problem").hidden = false;
    if (retrySeconds !== null) this.countDown(button, retrySeconds, again);
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {number} seconds
   * @param {() => unknown} again
   */
  countDown(button, seconds, again) {
    const end = performance.now() + Math.max(1, seconds) * 1000;
    const tick = () => {
      const left = (end - performance.now()) / 1000;
      if (left <= 0) again();
      else button.textContent = `Try again (by itself in ${Math.ceil(left)} s)`;
    };
    tick();
    this.timer = setInterval(tick, 200);
  }

  /**
   * A sentence that needs no action.
   * @param {string} words
   */
  note(words) {
    this.end();
    byId("status").append(make("span", { text: words }));
  }

  /** Nothing is waited for any more: hang up, and show nothing here. */
  end() {
    this.abort.abort();
    clearInterval(this.timer);
    byId("status").replaceChildren();
    byId("problem").replaceChildren();
    byId("problem").hidden = true;
    byId("view").setAttribute("aria-busy", "false");
  }
}
