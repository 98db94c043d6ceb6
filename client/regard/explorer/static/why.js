// Why a label: asks what each position did for it, shows that, and checks it by covering what is picked.

/** @import { Model, SidePicture, State, Why as Said, WhyQuestion, WhyView } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { explain } from "./api.js";
import { inputOf } from "./asking.js";
import { byId, make, setText } from "./dom.js";
import { percent } from "./numbers.js";
import { takeWhy } from "./save-why.js";
import { isSigned, signed, signedEnd } from "./signed.js";
import { NO_WHY } from "./state.js";
import { Wait } from "./wait.js";
import { sendCovered, without } from "./whatif.js";
import { onPatches } from "./why-photo.js";
import { tellWhy, WhyPicture } from "./why-picture.js";

const MAX_KEPT = 64;
const MAX_NAMED = 3;
/** @type {Record<string, string>} */
const METHODS = {
  libra: "Libra",
  gradient: "gradient × input",
  "integrated-gradients": "integrated gradients",
  genatt: "GenAtt",
  legrad: "LeGrad",
};
const darkness = window.matchMedia("(prefers-color-scheme: dark)");

/** Explains a label of what is shown. */
export class Why {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {Map<string, Said>} Answers by their questions */
    this.kept = new Map();
    this.waits = { asked: new Wait("why-status"), masked: new Wait("why-changed") };
    this.key = "";
    /** @type {Said | null} */
    this.why = null;
    /** @type {number | null} */
    this.pointed = null;
    /** @type {Set<number>} */
    this.picked = new Set();
    this.picture = new WhyPicture({ point: (place) => this.point(place), pick: (place) => this.pick(place) });
    byId("why-shown").append(this.picture.node);
    byId("labels").addEventListener("click", ({ target }) => {
      const button = target instanceof Element && target.closest("button");
      if (button) page.change(chosen(page.state, button.value));
    });
    byId("why-method").addEventListener("change", () => page.change({ method: byId("why-method").value }));
    byId("why-close").addEventListener("click", () => page.change(NO_WHY));
    byId("why-mask").addEventListener("click", () => this.mask());
    byId("why").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.picked.size === 0) return;
      event.stopPropagation();
      this.clear();
    });
    darkness.addEventListener("change", () => this.draw());
  }

  /**
   * Show why, where the page's state names a label of what is shown.
   * @param {SidePicture} main
   */
  show({ side: { model }, reply }) {
    const { state } = this.page;
    const able = model.relevance_methods.length > 0 && reply.labels.length > 0 && !reply.writing;
    byId("why-hint").hidden = !able;
    if (!able || !state.why) return this.close();
    press(state);
    drawMethods(model, state);
    byId("why").hidden = false;
    const question = questionOf(state, model);
    const key = JSON.stringify(question);
    if (key === this.key) return this.draw();
    this.key = key;
    return this.ask(question, key);
  }

  /**
   * @param {WhyQuestion} question
   * @param {string} key
   */
  async ask(question, key) {
    byId("why-shown").classList.add("stale");
    const said = await this.waits.asked.for(
      "asking why …",
      () => this.ask(question, key),
      async (signal) =>
        this.kept.get(key) ??
        (await this.page.asker.withPhoto(question.photo, signal, () => explain(question, signal))),
    );
    if (!said) return;
    this.kept.set(key, said);
    if (this.kept.size > MAX_KEPT) this.kept.delete([...this.kept.keys()][0]);
    this.why = said;
    byId("why-shown").classList.remove("stale");
    this.clear();
  }

  /** No label is explained. */
  close() {
    byId("why").hidden = true;
    byId("download-why").hidden = true;
    press(NO_WHY);
    for (const wait of Object.values(this.waits)) wait.end();
    Object.assign(this, { key: "", why: null });
  }

  /** Forget the answers: models may have been loaded anew. */
  forget() {
    this.kept.clear();
    this.close();
  }

  /** Nothing is picked, nor pointed at. */
  clear() {
    this.picked.clear();
    this.pointed = null;
    this.changed();
  }

  /** What was said of other places is taken away. */
  changed() {
    this.waits.masked.end();
    this.draw();
  }

  /** @param {number | null} place */
  point(place) {
    if (place === this.pointed) return;
    this.pointed = place;
    this.draw();
    const view = this.view();
    if (view && place !== null) byId("why-spoken").textContent = tellWhy(view, place);
  }

  /** @param {number} place */
  pick(place) {
    if (!this.picked.delete(place)) this.picked.add(place);
    this.changed();
  }

  /**
   * What is drawn, or null where there is no answer.
   * @returns {WhyView | null}
   */
  view() {
    const { why, pointed, picked } = this;
    const { state, photo } = this.page;
    if (!why) return null;
    const { patches } = why;
    return {
      ...{ why, state, pointed, picked, dark: darkness.matches, ground: patches && photo.groundFor(patches) },
      scale: signedEnd(patches ? onPatches({ ...why, patches }) : Float32Array.from(why.values), state.clip),
    };
  }

  draw() {
    const view = this.view();
    byId("why-shown").hidden = !view;
    byId("download-why").hidden = !view;
    const names = view ? namesOf(view.why, this.picked) : [];
    const isPair = this.page.model()?.takes_pairs && this.page.state.second;
    byId("why-mask").hidden = !view || names.length === 0 || Boolean(isPair);
    setText(byId("why-mask"), view?.why.patches ? "Cover and compare" : "Leave out and compare");
    setText(byId("why-picked"), !view || isPair ? "" : names.length ? listed(names) : hintOf(view.why));
    setText(byId("why-title"), view ? upper(view.why.headline) : "Why");
    if (view) this.picture.draw({ ...view, picked: isPair ? new Set() : view.picked });
  }

  /**
   * Save what is shown: "png", or as numbers: "csv", "json".
   * @param {string} kind
   */
  async take(kind) {
    const [view, model] = [this.view(), this.page.model()];
    if (view && model) await takeWhy(kind, model, view, this.picture.photo.node);
  }

  /** Ask again without what is picked, and say what relevance claimed for that beside what it really did. */
  async mask() {
    const { why } = this;
    const model = this.page.model();
    if (!why || !model) return;
    const places = [...this.picked];
    const positions = places.map((place) => why.positions[place]);
    const { state } = this.page;
    const method = model.relevance_methods.find((each) => each !== "integrated-gradients") ?? why.method; // one run
    const asked = { ...questionOf(state, model), label: why.label, against: why.against, method };
    const both = await this.waits.masked.for(
      "comparing …",
      () => this.mask(),
      async (signal) => {
        if (!why.patches) {
          const text = without(why.tokens ?? [], state.text, positions);
          return { before: why, after: await explain({ ...asked, text }, signal) };
        }
        const canvas = this.page.photo.copyFor(why.patches);
        const { photo, other } = await sendCovered(canvas, why.patches, positions, signal);
        const before = await explain({ ...asked, photo }, signal);
        return { before, after: await explain({ ...asked, photo: other }, signal) };
      },
    );
    if (both) this.waits.masked.host.replaceChildren(...told(why, places, both.before, both.after));
  }
}

/**
 * @param {State} state
 * @param {Model} model
 * @returns {WhyQuestion}
 */
const questionOf = (state, model) => ({
  ...inputOf(state, model),
  ...{ label: state.why, against: state.against, method: methodOf(state, model) },
});

/**
 * The method that a state means for a model: its usual one where it has no such.
 * @param {State} state
 * @param {Model} model
 */
const methodOf = ({ method }, { relevance_methods }) =>
  relevance_methods.includes(method) ? method : relevance_methods[0];

/**
 * The state after a label was clicked: the first is explained, a second is what it is told apart from; again, it is let
 * go.
 * @param {State} state
 * @param {string} label
 */
export function chosen({ why, against }, label) {
  if (label === why) return { why: against, against: "" };
  if (!why) return { why: label, against: "" };
  return { against: label === against ? "" : label };
}

/**
 * Show which labels are chosen.
 * @param {Pick<State, "why" | "against">} state
 */
function press({ why, against }) {
  for (const button of byId("labels").querySelectorAll("button")) {
    const isChosen = Boolean(why) && [why, against].includes(button.value);
    button.setAttribute("aria-pressed", String(isChosen));
    button.dataset.role = isChosen ? (button.value === why ? "for" : "against") : "";
  }
}

/**
 * @param {Model} model
 * @param {State} state
 */
function drawMethods(model, state) {
  const select = byId("why-method");
  const signature = JSON.stringify(model.relevance_methods);
  if (select.dataset.signature !== signature) {
    select.dataset.signature = signature;
    const options = model.relevance_methods.map((each) => make("option", { value: each, text: METHODS[each] ?? each }));
    select.replaceChildren(...options);
  }
  select.value = methodOf(state, model);
}

/** @param {Said} why */
const hintOf = (why) =>
  why.patches ? "Click patches, then cover them: is it so?" : "Click tokens, then leave them out: is it so?";

/** @param {string} words */
const upper = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}`;

/**
 * @param {Said} why
 * @param {Iterable<number>} places
 */
const namesOf = ({ names, tokens }, places) =>
  [...places].map((place) => (tokens ? `“${names[place]}”` : names[place]));

/** @param {string[]} names */
function listed(names) {
  const more = names.length - MAX_NAMED;
  return `${names.slice(0, MAX_NAMED).join("; ")}${more > 0 ? ` and ${more} more` : ""}`;
}

/**
 * What was claimed for some places, and what really changed without them.
 * @param {Said} why
 * @param {number[]} places
 * @param {Said} before
 * @param {Said} after
 */
function told(why, places, before, after) {
  const claimed = places.reduce((sum, place) => sum + why.values[place], 0);
  const whole = why.values.reduce((sum, value) => sum + value, 0);
  const score = why.against ? `the logit of ${why.label} less that of ${why.against}` : `the logit of ${why.label}`;
  const method = METHODS[why.method] ?? why.method;
  const share = isSigned(why) ? signed(claimed) : `${percent(claimed / whole)} of all it gives`;
  const claim = why.relative_error === null ? `${share}; it makes up no score` : `${share} of ${score}`;
  const [then, now] = [before.score, after.score].map((number) => Number(number.toPrecision(4)));
  const changes = [why.label, why.against].map((name, at) => {
    const [was, is] = [before.probabilities[at], after.probabilities[at]];
    return name && was !== null && is !== null
      ? make("li", { text: `${name}: ${percent(was)} → ${percent(is)}` })
      : null;
  });
  return [
    make("p", { text: `Without ${listed(namesOf(why, places))}:` }),
    make(
      "ul",
      {},
      make("li", { class: "claimed", text: `claimed by ${method}: ${claim}` }),
      make("li", { class: "really", text: `really: ${signed(before.score - after.score)}, ${score} ${then} → ${now}` }),
      ...changes,
    ),
  ];
}
