// The choices beside the picture: model, measure, layer, heads.

/** @import { Model, Option, State, Window } from "../types.d.ts" */

import { layerOf } from "./asking.js";
import { keyOf } from "./choosing.js";
import { byId, make, radios } from "./dom.js";
import { headOf, MEASURES, named, REDUCTIONS } from "./state.js";

/**
 * Redraw the choices. `change(fields)` is called with what was chosen; `inPage(layer)` says what needs no asking.
 * @param {{ state: State, model: Model | null, models: Model[] }} page
 * @param {(layer: number) => boolean} inPage
 * @param {(fields: Partial<State>) => void} change
 */
export function drawControls({ state, model, models }, inPage, change) {
  drawModels(models, model);
  byId("truncate").checked = state.truncate;
  byId("input-photo").checked = state.input === "photo";
  byId("input-text").checked = state.input === "text";
  byId("photo-input").hidden = state.input !== "photo";
  byId("text-input").hidden = state.input !== "text";
  byId("second-field").hidden = !model?.takes_pairs;
  byId("candidates-field").hidden = !model?.takes_labels;
  byId("choices").hidden = !model;
  if (!model) return;
  const layer = layerOf(model, state.layer);
  group(
    "measures",
    [
      { value: "weights", text: "weights", title: "What one layer attends to" },
      ...(model.layers.some((each) => each.window)
        ? []
        : [
            {
              value: "rollout",
              text: "rollout",
              title: "Attention followed through all layers up to this one (Abnar and Zuidema 2020)",
            },
          ]),
      ...(model.layers.every((each) => each.has_contributions)
        ? [
            {
              value: "contribution_rollout",
              text: "contributions",
              title:
                "What each position adds to each other, through all layers up to this one (Modarressi et al. 2022)",
            },
          ]
        : []),
    ],
    state.measure,
    (value) => change({ measure: named(MEASURES, value) ?? "weights" }),
  );
  group(
    "layers",
    model.layers.map((each) => ({
      value: String(each.layer),
      text: String(each.layer),
      title: [`Layer ${each.layer}`, each.kind !== "self" && each.kind, each.window && windowsOf(each.window)]
        .filter(Boolean)
        .join(", "),
    })),
    layer.layer,
    (value) => change({ layer: Number(value) }),
  );
  for (const input of byId("layers").querySelectorAll("input"))
    input.parentElement?.classList.toggle("kept", inPage(Number(input.value)));
  const heads = [...REDUCTIONS, ...Array(layer.num_heads).keys()].map((head) => ({
    value: String(head),
    text: String(head),
    class: typeof head === "number" ? "" : "word",
  }));
  const headField = byId("head-choices").closest("fieldset");
  if (headField) headField.hidden = state.measure === "contribution_rollout"; // sums the heads
  group("head-choices", heads, state.head, (value) => change({ head: headOf(value) }));
  byId("compare").setAttribute("aria-pressed", String(Boolean(state.other)));
  byId("about-model").textContent = aboutModel(model);
}

/**
 * Make a group of radio buttons where its options are new; else only move the mark, so that the focus stays.
 * @param {string} id
 * @param {Option[]} options
 * @param {string | number} value
 * @param {(value: string) => void} onChange
 */
function group(id, options, value, onChange) {
  const host = byId(id);
  const signature = JSON.stringify(options);
  if (host.dataset.signature !== signature) {
    host.dataset.signature = signature;
    host.replaceChildren(...radios(id, options, value, onChange));
  }
  for (const input of host.querySelectorAll("input")) input.checked = input.value === String(value);
}

/**
 * @param {Model[]} models
 * @param {Model | null} model
 */
function drawModels(models, model) {
  const select = byId("model");
  const signature = JSON.stringify(models.map(keyOf));
  if (select.dataset.signature !== signature) {
    select.dataset.signature = signature;
    /** @param {Model} each */
    const several = (each) =>
      models.filter((other) => other.name === each.name && other.modality === each.modality).length > 1;
    /** @param {Model} each */
    const option = (each) =>
      make("option", {
        value: keyOf(each),
        text: [each.name, several(each) && `, version ${each.version}`, !each.can_show && " (no attention)"]
          .filter(Boolean)
          .join(""),
        disabled: !each.can_show,
      });
    const groups = [
      ["image", "for photos"],
      ["text", "for texts"],
    ].map(([modality, label]) =>
      make("optgroup", { label }, ...models.filter((each) => each.modality === modality).map(option)),
    );
    select.replaceChildren(...groups.filter((each) => each.children.length > 0));
  }
  select.disabled = models.length === 0;
  select.value = model ? keyOf(model) : "";
}

/** @param {Window} window */
const windowsOf = ({ rows, cols, height, width }) => `windows of ${height} × ${width} on a grid of ${rows} × ${cols}`;

/** @param {Model} model */
function aboutModel(model) {
  const heads = [...new Set(model.layers.map((layer) => layer.num_heads))].join("/");
  const takes = model.patches
    ? `${model.patches.rows} × ${model.patches.cols} patches`
    : `up to ${model.max_tokens} tokens`;
  return [model.family, `${model.layers.length} layers × ${heads} heads`, takes, model.precision, model.device]
    .filter(Boolean)
    .join(" · ");
}
