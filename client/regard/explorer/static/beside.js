// The choices of what stands beside the picture: another text, another photo, another model.

/** @import { Model, Other, State } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { besideState, chosenModel, keyOf } from "./choosing.js";
import { byId, make } from "./dom.js";
import { isWritten, measureOf } from "./measures.js";
import { fillPhotos, fillTexts } from "./samples.js";

/**
 * Redraw the choices. `change(fields)` is called with what was chosen.
 * @param {State} state
 * @param {Model | null} model
 * @param {Model[]} models
 * @param {(fields: Partial<Other>) => void} change
 */
export function drawBeside(state, model, models, change) {
  byId("beside").hidden = !model || isWritten(measureOf(state, model));
  if (!model) return;
  const isText = state.input === "text";
  const second = besideState(state, model);
  const beside = (second && chosenModel(second, models)) ?? model;
  byId("beside-of-text").hidden = !isText;
  byId("beside-of-photo").hidden = isText;
  byId("beside-none").disabled = !state.other;
  drawModels(state, model, models);
  if (isText)
    fillTexts("beside-texts", beside, state.other?.text ?? "", (text) => {
      byId("beside-text").value = text;
      change({ text, query: null });
    });
  else fillPhotos("beside-photos", beside, state.other?.photo ?? null, (photo) => change({ photo, query: null }));
}

/**
 * @param {State} state
 * @param {Model} model
 * @param {Model[]} models
 */
function drawModels(state, model, models) {
  const select = byId("beside-model");
  const able = models.filter((each) => each.modality === model.modality && each.can_show);
  /** @param {Model} each */
  const several = ({ name }) => able.filter((other) => other.name === name).length > 1;
  const signature = JSON.stringify(able.map(keyOf));
  if (select.dataset.signature !== signature) {
    select.dataset.signature = signature;
    select.replaceChildren(
      make("option", { value: "", text: "the same" }),
      ...able.map((each) =>
        make("option", {
          value: keyOf(each),
          text: several(each) ? `${each.name}, version ${each.version}` : each.name,
        }),
      ),
    );
  }
  const { model: name, version } = state.other ?? { model: "", version: "" };
  const chosen = able.find((each) => each.name === name && (!version || each.version === version));
  select.value = chosen ? keyOf(chosen) : "";
}

/**
 * Listen to the choices.
 * @param {Page} page
 */
export function listenToBeside(page) {
  const [field, file] = [byId("beside-text"), byId("beside-file")];
  const show = async () => {
    await page.changeOther({ text: field.value.trim(), query: null });
    page.reveal();
  };
  byId("beside-ask").addEventListener("click", show);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    show();
  });
  file.addEventListener("change", () => {
    if (file.files?.[0]) page.give(file.files[0], true);
    file.value = "";
  });
  byId("beside-model").addEventListener("change", () => {
    const chosen = page.models.find((each) => keyOf(each) === byId("beside-model").value);
    page.changeOther({ model: chosen?.name ?? "", version: chosen?.version ?? "", query: null });
  });
  byId("beside-none").addEventListener("click", () => {
    field.value = "";
    page.change({ other: null });
  });
}
