// Connects the page's buttons, fields, drops and keys with what they do; main.js calls it once.

import { byId } from "./dom.js";

/** Listen to everything that is in the page from the start. */
export function listen(page) {
  listenToInputs(page);
  listenToDrops(page);
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  on("model", "change", (event) => page.choose(event.target.value));
  on("smooth", "change", () => page.draw());
  on("release", "click", () => page.release());
  on("reload", "click", () => {
    page.asker.forget();
    page.start();
  });
  on("compare", "click", () => page.compare());
  on(
    "charts",
    "toggle",
    (event) => event.target.open !== page.state.charts && page.shown && page.change({ charts: event.target.open }),
  );
  on("copy", "click", () => copyLink());
  for (const button of document.querySelectorAll("[data-take]")) {
    button.addEventListener("click", () => {
      byId("download").open = false;
      page.take(button.dataset.take);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (byId("download").open) byId("download").open = false;
    else if (page.shown) page.release();
  });
  document.addEventListener(
    "click",
    (event) => !byId("download").contains(event.target) && (byId("download").open = false),
  );
  window.addEventListener("hashchange", () => {
    page.follow(location.hash);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.draw());
  new ResizeObserver(() => page.draw()).observe(byId("panels"));
}

function listenToInputs(page) {
  const ask = async () => {
    const text = byId("text").value.trim();
    await page.change({ text, input: "text", truncate: byId("truncate").checked, query: null });
    page.reveal();
  };
  byId("ask").addEventListener("click", ask);
  byId("truncate").addEventListener("change", () => page.state.text && ask());
  byId("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  for (const kind of ["photo", "text"]) {
    byId(`input-${kind}`).addEventListener("change", () => page.turnTo(kind));
  }
  byId("file").addEventListener("change", (event) => {
    if (event.target.files[0]) page.give(event.target.files[0]);
    event.target.value = "";
  });
}

/** Photos may be dropped anywhere on the page, or pasted. */
function listenToDrops(page) {
  const over = (is) => byId("drop").classList.toggle("over", is);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files[0]) page.give(event.dataTransfer.files[0]);
  });
  document.addEventListener(
    "paste",
    (event) => event.clipboardData.files[0] && page.give(event.clipboardData.files[0]),
  );
}

/** Copy the address; where the browser does not allow it, show it to be copied by hand. */
async function copyLink() {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy link"), 2000);
  } catch {
    byId("link").hidden = false;
    byId("link").value = location.href;
    byId("link").select();
  }
}
