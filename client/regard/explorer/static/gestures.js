// Connects the page's buttons, fields, drops and keys with what they do.

/** @import { Page } from "./main.js" */

import { listenToBeside } from "./beside.js";
import { besideOf, keyOf, withModel } from "./choosing.js";
import { byId } from "./dom.js";
import { flattened } from "./files.js";
import { CURVES } from "./scales.js";
import { NO_WHY, named } from "./state.js";

/**
 * Listen to everything that is in the page from the start.
 * @param {Page} page
 */
export function listen(page) {
  listenToInputs(page);
  listenToDrops(page);
  listenToStrip();
  listenToBeside(page);
  /** @type {(id: string, event: string, action: () => unknown) => void} */
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  const [words, charts, download] = [byId("words"), byId("charts"), byId("download")];
  on("model", "change", () => choose(page, byId("model").value));
  for (const name of /** @type {const} */ (["smooth", "multiples", "common", "contour", "original", "reading", "arcs"]))
    on(name, "change", () => page.change({ [name]: byId(name).checked }));
  on("words_only", "change", () => page.change({ words_only: byId("words_only").checked, query: null }));
  on("curve", "change", () => page.change({ curve: named(CURVES, byId("curve").value) }));
  on("clip", "change", () => page.change({ clip: Number(byId("clip").value) || null }));
  on("opacity", "change", () => page.change({ opacity: Number(byId("opacity").value) / 100 }));
  on("release", "click", () => page.looking.release());
  on("reload", "click", () => {
    page.asker.forget();
    page.why.forget();
    page.start();
  });
  on("compare", "click", () => compare(page));
  on("words", "toggle", () => words.open !== page.state.words && page.shown && page.change({ words: words.open }));
  on("charts", "toggle", () => charts.open !== page.state.charts && page.shown && page.change({ charts: charts.open }));
  const overview = byId("overview");
  on("overview", "toggle", () => {
    if (overview.open !== page.state.overview && page.shown) page.change({ overview: overview.open });
  });
  on("copy", "click", () => copyLink());
  for (const button of download.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      download.open = false;
      page.take(button.dataset.take ?? "png");
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (download.open) download.open = false;
    else if (page.shown) page.looking.release();
  });
  document.addEventListener("click", (event) => {
    if (event.target instanceof Node && !download.contains(event.target)) download.open = false;
  });
  window.addEventListener("hashchange", () => {
    page.follow(location.hash);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.draw());
  new ResizeObserver(() => page.draw()).observe(byId("panels"));
}

/** @param {Page} page */
function listenToInputs(page) {
  const ask = async () => {
    const [text, second] = [byId("text").value.trim(), byId("second").value.trim()];
    await page.change({ text, second, input: "text", truncate: byId("truncate").checked, query: null });
    page.reveal();
  };
  byId("ask").addEventListener("click", ask);
  byId("truncate").addEventListener("change", () => page.state.text && ask());
  byId("start").addEventListener("change", () => page.change({ start: byId("start").value, query: null }));
  for (const field of [byId("text"), byId("second")]) {
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      ask();
    });
  }
  byId("candidates").addEventListener("change", () => page.change({ labels: byId("candidates").value.trim() }));
  byId("input-photo").addEventListener("change", () => turnTo(page, "photo"));
  byId("input-text").addEventListener("change", () => turnTo(page, "text"));
  const file = byId("file");
  file.addEventListener("change", () => {
    if (file.files?.[0]) page.give(file.files[0]);
    file.value = "";
  });
}

/** A finger that is dragged over layers or heads chooses one after the other. */
function listenToStrip() {
  byId("strip").addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") return;
    const chip = document.elementFromPoint(event.clientX, event.clientY)?.closest("#strip .chip");
    const input = chip?.querySelector("input");
    if (input && !input.checked) input.click();
  });
}

/**
 * Photos may be dropped anywhere on the page, or pasted.
 * @param {Page} page
 */
function listenToDrops(page) {
  const places = [byId("drop"), byId("beside-drop")];
  /** @param {DragEvent} event */
  const isBeside = ({ target }) => target instanceof Node && places[1].contains(target);
  /** @param {Element | null} place */
  const over = (place) => {
    for (const each of places) each.classList.toggle("over", each === place);
  };
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(places[Number(isBeside(event))]);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(null);
    const file = event.dataTransfer?.files[0];
    if (file) page.give(file, isBeside(event));
  });
  document.addEventListener("paste", async (event) => {
    const file = event.clipboardData?.files[0];
    if (file) page.give(await flattened(file));
  });
}

/**
 * Another model was chosen in the menu.
 * @param {Page} page
 * @param {string} key
 */
function choose(page, key) {
  const model = page.models.find((each) => keyOf(each) === key);
  return model && page.change(withModel(page.state, model));
}

/**
 * Photos or texts; each has its models.
 * @param {Page} page
 * @param {"photo" | "text"} input
 */
function turnTo(page, input) {
  return page.change({ input, model: "", version: "", layer: null, query: null, other: null, ...NO_WHY });
}

/**
 * Show a second head beside the first, or no longer.
 * @param {Page} page
 */
function compare(page) {
  const model = page.model();
  if (!model) return undefined;
  return page.state.other ? page.change({ other: null }) : page.changeOther(besideOf(page.state, model));
}

/** Copy the address; where the browser does not allow it, show it to be copied by hand. */
async function copyLink() {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    setTimeout(() => button.replaceChildren("Copy link"), 2000);
  } catch {
    byId("link").hidden = false;
    byId("link").value = location.href;
    byId("link").select();
  }
}
