// The choices beside the picture: model, measure, layer, heads.

/** @import { Measure, Model, Option, State, Window, Writer } from "../types.d.ts" */

import { keyOf } from "./choosing.js";
import { HEAT_OPACITY } from "./colour.js";
import { byId, make, radios } from "./dom.js";
import { isHeadless, isWritten, layerOf, layersOf, measureOf, measuresOf } from "./measures.js";
import { headOf, MEASURES, named, REDUCTIONS } from "./state.js";

/** @type {Record<Measure, { text: string, title: string }>} */
const MEASURE_WORDS = {
  cross: { text: "alignment", title: "What each token that is written attends to in the text that is read" },
  causal: { text: "decoder", title: "What each token that is written attends to among those before it" },
  weights: { text: "weights", title: "What one layer attends to" },
  rollout: {
    text: "rollout",
    title: "Attention followed through all layers up to this one (Abnar and Zuidema 2020)",
  },
  contribution_rollout: {
    text: "contributions",
    title: "What each position adds to each other, through all layers up to this one (Modarressi et al. 2022)",
  },
  similarity: {
    text: "similarity",
    title: "How alike the vectors of two positions are that leave this layer: their cosine",
  },
};
const ENCODER_WORDS = { text: "encoder", title: "What one layer of the encoder attends to in the text that is read" };

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
  const measure = measureOf(state, model);
  const layer = layerOf(model, measure, state.layer);
  drawWriter(model.writer, state);
  byId("ask").textContent = isWritten(measure) ? "Write" : "Show attention";
  group(
    "measures",
    measuresOf(model).map((each) => ({
      value: each,
      ...(each === "weights" && model.writer ? ENCODER_WORDS : MEASURE_WORDS[each]),
    })),
    measure,
    (value) => change({ measure: named(MEASURES, value) }),
  );
  group(
    "layers",
    layersOf(model, measure).map((each) => ({
      value: String(each.layer),
      text: String(each.layer),
      title: [
        `Layer ${each.layer}`,
        !isWritten(measure) && each.kind !== "self" && each.kind,
        each.window && windowsOf(each.window),
      ]
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
  if (headField) headField.hidden = isHeadless(measure);
  group("head-choices", heads, state.head, (value) => change({ head: headOf(value) }));
  byId("compare").setAttribute("aria-pressed", String(Boolean(state.other)));
  byId("task").textContent = taskOf(model);
  byId("about-model").textContent = aboutModel(model, measure);
  drawScale(state);
}

/** @param {State} state */
function drawScale(state) {
  byId("curve").value = state.curve ?? "";
  const clip = byId("clip");
  const wanted = String(state.clip ?? "");
  if (![...clip.options].some(({ value }) => value === wanted))
    clip.append(make("option", { value: wanted, text: `percentile ${wanted}` })); // of a link
  clip.value = wanted;
  byId("opacity").value = String(Math.round(100 * (state.opacity ?? HEAT_OPACITY)));
  for (const name of /** @type {const} */ ([
    "smooth",
    "multiples",
    "common",
    "contour",
    "original",
    "words_only",
    "reading",
    "arcs",
  ]))
    byId(name).checked = state[name];
  byId("over-photo").hidden = state.input !== "photo";
}

/**
 * What a model that writes may begin with: of several translations, say, into which language.
 * @param {Writer | null} writer
 * @param {State} state
 */
function drawWriter(writer, state) {
  const starts = writer?.starts ?? [];
  byId("start-field").hidden = starts.length < 2;
  const select = byId("start");
  const signature = JSON.stringify(starts);
  if (select.dataset.signature !== signature) {
    select.dataset.signature = signature;
    select.replaceChildren(...starts.map((start) => make("option", { value: start, text: start })));
  }
  if (writer) select.value = starts.includes(state.start) ? state.start : writer.default_start;
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
    /** @type {[label: string, of: (each: Model) => boolean][]} */
    const kinds = [
      ["for photos", ({ modality }) => modality === "image"],
      ["for texts", ({ modality, writer }) => modality === "text" && !writer],
      ["that write", ({ modality, writer }) => modality === "text" && Boolean(writer)],
    ];
    const groups = kinds.map(([label, of]) => make("optgroup", { label }, ...models.filter(of).map(option)));
    select.replaceChildren(...groups.filter((each) => each.children.length > 0));
  }
  select.disabled = models.length === 0;
  select.value = model ? keyOf(model) : "";
}

/** @param {Window} window */
const windowsOf = ({ rows, cols, height, width }) => `windows of ${height} × ${width} on a grid of ${rows} × ${cols}`;

/**
 * What a server lacks, and what to do about it.
 * @param {"photo" | "text"} input
 * @param {Model[]} models
 */
export function lackingWords(input, models) {
  if (models.some((model) => model.can_show))
    return `The server has no model that shows attention over ${input}s, but over ${input === "photo" ? "texts" : "photos"}.`;
  return (
    "The server has no model that shows attention. “regard export” makes one of a model of the transformers library; " +
    "put it where the server looks for models, and press ↻ above."
  );
}

/**
 * What a model is for.
 * @param {Model} model
 */
function taskOf({ modality, can_classify, num_labels, embedding_dim, takes_labels, takes_pairs, writer }) {
  const of = modality === "image" ? "photos" : takes_pairs ? "texts and pairs of texts" : "texts";
  const tasks = [
    can_classify && `classifies ${of} into ${num_labels} labels`,
    takes_labels && "compares photos with labels of your own",
    embedding_dim > 0 && `embeds ${of} as vectors of ${embedding_dim} numbers`,
    writer && "writes texts",
  ].filter((task) => typeof task === "string");
  const words = tasks.join("; ");
  return words && `${words[0].toUpperCase()}${words.slice(1)}.`;
}

/**
 * @param {Model} model
 * @param {Measure} measure
 */
function aboutModel(model, measure) {
  const layers = layersOf(model, measure);
  const heads = [...new Set(layers.map((layer) => layer.num_heads))].join("/");
  const writes = isWritten(measure) && model.writer ? `, writes up to ${model.writer.max_tokens}` : "";
  const takes = model.patches
    ? `${model.patches.rows} × ${model.patches.cols} patches`
    : `up to ${model.max_tokens} tokens${writes}`;
  return [model.family, `${layers.length} layers × ${heads} heads`, takes, model.precision, model.device]
    .filter(Boolean)
    .join(" · ");
}
