// What a first visitor finds: photographs and sentences to click, the first of them shown at once.

/** @import { Model, SamplePhoto, State } from "../types.d.ts" */

import { isToy } from "./choosing.js";
import { byId, make } from "./dom.js";

/**
 * Of examples/, where their sources are named: the cat and the coffee are CC0. Each by its SHA-256, as links name it.
 * @type {SamplePhoto[]}
 */
export const PHOTOS = [
  {
    photo: "fc898c685c70f36d349c985193d1121103966bad43aa69cb3d7114cb0430150f",
    file: "sample-cat.jpg",
    text: "Cat",
    isToy: false,
  },
  {
    photo: "952901529a5cdf33c3d31cc5058809e8e304216a206565eca8c4261fea2afd8a",
    file: "sample-coffee.jpg",
    text: "Coffee",
    isToy: false,
  },
  {
    photo: "180b03586f7e5085237cb4de1de398340548983e79a5c4bf7c6ee905ec4f2414",
    file: "sample-sandal.png",
    text: "Sandal",
    isToy: true,
  },
];
/** They differ in one word, and with it in what "it" is. */
export const SENTENCES = [
  "The animal did not cross the street because it was too tired.",
  "The animal did not cross the street because it was too wide.",
];

/**
 * The sample that a link names, or undefined.
 * @param {string} photo
 */
export const sampleOf = (photo) => PHOTOS.find((sample) => sample.photo === photo);

/**
 * What is shown before anything was chosen: a photograph, a text where no model takes photos, a piece of clothing where
 * a toy is all there is.
 * @param {Model[]} models
 * @returns {Partial<State>}
 */
export function firstSample(models) {
  const able = models.filter((model) => model.can_show && !model.writer);
  const model = able.find((each) => each.modality === "image" && !isToy(each)) ?? able.find((each) => !isToy(each));
  if (model?.modality === "text") return { input: "text", text: SENTENCES[0] };
  return able.length ? { input: "photo", photo: photosFor(model ?? able[0])[0].photo } : {};
}

/**
 * Whether a state shows a sample.
 * @param {State} state
 */
export const isSample = ({ input, photo, text }) =>
  input === "photo" ? Boolean(photo && sampleOf(photo)) : SENTENCES.includes(text);

/** @param {Model | null} model */
const photosFor = (model) => PHOTOS.filter((sample) => sample.isToy === Boolean(model && isToy(model)));

/**
 * Draw the samples that fit a model. `change(fields)` is called with what was chosen.
 * @param {State} state
 * @param {Model | null} model
 * @param {(fields: Partial<State>) => void} change
 */
export function drawSamples(state, model, change) {
  fillPhotos("photo-samples", model, state.photo, (photo) => change({ photo, query: null }));
  fillTexts("text-samples", model, state.text, (text) => change({ text, query: null }));
}

/**
 * Draw the photographs that fit a model; `choose(name)` is called with the one that was clicked.
 * @param {string} id
 * @param {Model | null} model
 * @param {string | null} chosen
 * @param {(photo: string) => void} choose
 */
export function fillPhotos(id, model, chosen, choose) {
  fill(id, photosFor(model), chosen, ({ photo, file, text }) =>
    make(
      "button",
      { type: "button", class: "sample", value: photo, click: () => choose(photo) },
      make("img", { src: `static/${file}`, alt: "", width: "36", height: "36" }),
      text,
    ),
  );
}

/**
 * The same of sentences.
 * @param {string} id
 * @param {Model | null} model
 * @param {string} chosen
 * @param {(text: string) => void} choose
 */
export function fillTexts(id, model, chosen, choose) {
  fill(id, model?.writer ? [] : SENTENCES, chosen, (text) =>
    make("button", { type: "button", class: "sample", value: text, text, click: () => choose(text) }),
  );
}

/**
 * Make the buttons where others are wanted; else they stay, and with them the focus. Show which one is chosen.
 * @template Sample
 * @param {string} id
 * @param {Sample[]} samples
 * @param {string | null} chosen
 * @param {(sample: Sample) => HTMLButtonElement} buttonOf
 */
function fill(id, samples, chosen, buttonOf) {
  const host = byId(id);
  const signature = JSON.stringify(samples);
  host.hidden = samples.length === 0;
  if (host.dataset.signature !== signature) {
    host.dataset.signature = signature;
    host.replaceChildren(make("span", { class: "name", text: "Samples" }), ...samples.map(buttonOf));
  }
  for (const button of host.querySelectorAll("button"))
    button.setAttribute("aria-pressed", String(button.value === chosen));
}
