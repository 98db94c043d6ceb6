// The choices beside the picture: model, measure, layer, heads; main.js draws them after every change.

import { byId, make, radios } from "./dom.js";
import { layerOf } from "./asking.js";
import { keyOf } from "./choosing.js";
import { REDUCTIONS } from "./state.js";

/** Redraw the choices. `change(fields)` is called with what was chosen; `inPage(layer)` says what needs no asking. */
export function drawControls({ state, model, models }, inPage, change) {
  drawModels(models, model);
  byId("truncate").checked = state.truncate;
  for (const kind of ["photo", "text"]) {
    byId(`input-${kind}`).checked = state.input === kind;
    byId(`${kind}-input`).hidden = state.input !== kind;
  }
  byId("choices").hidden = !model;
  if (!model) return;
  const layer = layerOf(model, state.layer);
  group(
    "measures",
    [
      { value: "weights", text: "weights", title: "What one layer looks at" },
      {
        value: "rollout",
        text: "rollout",
        title: "Attention followed through all layers up to this one (Abnar and Zuidema 2020)",
      },
      ...(model.layers.every((each) => each.has_contributions)
        ? [
            {
              value: "contribution_rollout",
              text: "contributions",
              title: "What each position adds to each other, through all layers up to this one (Modarressi et al. 2022)",
            },
          ]
        : []),
    ],
    state.measure,
    (value) => change({ measure: value }),
  );
  group(
    "layers",
    model.layers.map((each) => ({
      value: String(each.layer),
      text: String(each.layer),
      title: each.kind === "self" ? `Layer ${each.layer}` : `Layer ${each.layer}, ${each.kind}`,
    })),
    layer.layer,
    (value) => change({ layer: Number(value) }),
  );
  for (const label of byId("layers").children) label.classList.toggle("kept", inPage(Number(label.firstChild.value)));
  const heads = [...REDUCTIONS, ...Array(layer.num_heads).keys()].map((head) => ({
    value: String(head),
    text: String(head),
    class: typeof head === "number" ? "" : "word",
  }));
  byId("head-choices").closest("fieldset").hidden = state.measure === "contribution_rollout"; // sums the heads
  group("head-choices", heads, state.head, (value) =>
    change({ head: REDUCTIONS.includes(value) ? value : Number(value) }),
  );
  byId("compare").setAttribute("aria-pressed", String(Boolean(state.other)));
  byId("about-model").textContent = aboutModel(model);
}

/** Make a group of radio buttons where its options are new; else only move the mark, so that the focus stays. */
function group(id, options, value, onChange) {
  const host = byId(id);
  const signature = JSON.stringify(options);
  if (host.dataset.signature !== signature) {
    host.dataset.signature = signature;
    host.replaceChildren(...radios(id, options, value, onChange));
  }
  for (const { firstChild: input } of host.children) input.checked = input.value === String(value);
}

function drawModels(models, model) {
  const select = byId("model");
  const signature = JSON.stringify(models.map(keyOf));
  if (select.dataset.signature !== signature) {
    select.dataset.signature = signature;
    const several = (each) => models.filter((other) => other.name === each.name).length > 1;
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

function aboutModel(model) {
  const heads = [...new Set(model.layers.map((layer) => layer.num_heads))].join("/");
  const takes = model.patches
    ? `${model.patches.rows} × ${model.patches.cols} patches`
    : `up to ${model.max_tokens} tokens`;
  return [model.family, `${model.layers.length} layers × ${heads} heads`, takes, model.precision, model.device]
    .filter(Boolean)
    .join(" · ");
}
