// What the page says while it waits and when something went wrong, so that it is never blank.

import { isAbort, Problem, problemOf } from "./api.js";
import { byId, make } from "./dom.js";
import { Progress } from "./progress.js";

const SLOW_SECONDS = 5;
const AGAIN_SECONDS = 5;
/** Whoever is gone may come back, and is asked again. */
const GONE = ["UNAVAILABLE", "EXPLORER_GONE"];
/** Another file mends these. */
const OF_FILES = ["PHOTO_GONE", "FILE_KIND"];

/** @type {Record<string, string>} */
const ADVICE = {
  EXPLORER_GONE:
    "Is “regard explore” still running? Start it again on the same port. Links to texts go on working; photos " +
    "must be given again.",
  DEADLINE_EXCEEDED:
    "The server took too long. A smaller model is faster; “regard --timeout SECONDS explore” waits longer.",
  PHOTO_GONE:
    "Give the photo again: drop it on the page or choose its file. Everything else of the link stays as it is.",
  FILE_KIND:
    "Save it as a JPEG first, or open it and paste a copy of the picture here. Phones store photos as HEIC: " +
    "“most compatible” in the camera’s settings makes them JPEG.",
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
      "explorer with “regard --server HOST:PORT explore”. The page goes on by itself once one answers."
    );
  }
  if (code === "RESOURCE_EXHAUSTED" && retrySeconds !== null)
    return "The server is busy. The page asks again by itself.";
  if (code === "RESOURCE_EXHAUSTED") return "Something is larger than allowed: give a smaller photo or a shorter text.";
  return ADVICE[code] ?? "Try again; the server’s log may say more.";
}

/**
 * Whether another file is what helps.
 * @param {unknown} error
 */
export const isOfFile = (error) => OF_FILES.includes(problemOf(error).code);

/**
 * In how many seconds to ask again without being told to; null for not at all.
 * @param {unknown} error
 */
export function waitOf(error) {
  const { code, retrySeconds } = problemOf(error);
  return retrySeconds ?? (GONE.includes(code) ? AGAIN_SECONDS : null);
}

/** @type {Record<string, string>} */
const TITLES = {
  UNAVAILABLE: "No server answers",
  EXPLORER_GONE: "The explorer does not answer",
  RESOURCE_EXHAUSTED: "Too busy, or too large",
  DEADLINE_EXCEEDED: "No answer in time",
  PHOTO_GONE: "This link’s photo is gone",
  FILE_KIND: "The server takes no such file",
  NOT_FOUND: "No such model",
  CANCELLED: "Called off",
  INVALID_ARGUMENT: "The server does not take this",
  FAILED_PRECONDITION: "This model cannot do that",
};

/**
 * Say on a button how long until it presses itself; returns the timer, which whoever asks again or gives up clears.
 * @param {HTMLButtonElement} button
 * @param {number} seconds
 * @param {() => unknown} again
 */
export function countDown(button, seconds, again) {
  const end = performance.now() + Math.max(1, seconds) * 1000;
  const tick = () => {
    const left = (end - performance.now()) / 1000;
    if (left <= 0) again();
    else button.textContent = `Try again (by itself in ${Math.ceil(left)} s)`;
  };
  tick();
  return setInterval(tick, 200);
}

/** Shows one state at a time in the page's status and alert regions, and ends what is waited for. */
export class Status {
  constructor() {
    /** @type {number | undefined} */
    this.timer = undefined;
    this.abort = new AbortController();
    /** @type {Progress | null} */
    this.progress = null;
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
   * Begin to wait: what for, how far it has come, and a way out. Ends the wait before; returns a signal of its end.
   * @param {string} what
   * @param {() => unknown} again
   * @param {string} like What other waits are for the same
   * @returns {AbortSignal}
   */
  begin(what, again, like = what) {
    this.end();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const progress = new Progress(what, like);
    this.progress = progress;
    const slow = make("span", { class: "slow" });
    const cancel = () => this.fail(new Problem("CANCELLED", "nobody waits for the answer"), again, null);
    byId("status").append(
      make("span", { class: "spinner", "aria-hidden": "true" }),
      make("span", { text: `${what} …` }),
      progress.node,
      slow,
      make("button", { type: "button", text: "Cancel", click: cancel }),
    );
    byId("view").setAttribute("aria-busy", "true");
    this.timer = setTimeout(() => {
      if (progress.done === null) slow.textContent = "The server is slow or busy; still waiting.";
    }, 1000 * SLOW_SECONDS);
    return signal;
  }

  /** What is told how much of the present work is done. */
  told() {
    const { progress } = this;
    return (/** @type {number} */ share) => progress?.share(share);
  }

  /** What was waited for has come: how long it took is said the next time. */
  came() {
    this.progress?.finish();
  }

  /**
   * Something went wrong: what, what to do, and a button to try again; where a time is given, it is counted down. An
   * ended wait is no problem: whoever ended it shows something else.
   * @param {unknown} error
   * @param {() => unknown} again
   * @param {number | null} retrySeconds
   */
  fail(error, again, retrySeconds = waitOf(error)) {
    if (isAbort(error)) return;
    const { code, message, server } = problemOf(error);
    this.end();
    if (!(error instanceof Problem)) console.error(error);
    if (server) this.serverIs(server, code !== "UNAVAILABLE");
    const words = isOfFile(error) ? "Choose another file" : "Try again";
    const button = make("button", { type: "button", class: "primary", text: words, click: again });
    byId("problem").append(
      make("strong", { text: TITLES[code] ?? "Something went wrong" }),
      make("p", { text: adviceOn(problemOf(error)) }),
      button,
      make("p", { class: "said", text: `${code}: ${message}` }),
    );
    byId("problem").hidden = false;
    if (retrySeconds !== null) this.timer = countDown(button, retrySeconds, again);
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
    this.progress?.end();
    byId("status").replaceChildren();
    byId("problem").replaceChildren();
    byId("problem").hidden = true;
    byId("view").setAttribute("aria-busy", "false");
  }
}
