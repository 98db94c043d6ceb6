// The sections below the picture, each of which asks only while it is open: maps of words, charts, every layer and head.

/** @import { Grid, Model, Picture, State } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { HEAT_OPACITY } from "./colour.js";
import { byId } from "./dom.js";
import { isWritten, measureOf } from "./measures.js";
import { Overview } from "./overview.js";
import { Plots } from "./plots.js";
import { Words } from "./words.js";

/** The sections of a page. */
export class Sections {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @param {Grid} patches */
    this.groundFor = (patches) => page.photo.groundFor(patches);
    this.words = new Words(page.asker, this.groundFor);
    this.overview = new Overview(page.asker, (layer, head) => page.change({ layer, head }));
    this.plots = new Plots(page.asker, (layer, head) => page.change({ layer, head, measure: "weights" }));
  }

  /**
   * Show what belongs to the page's state and the picture above, in the sections that are open.
   * @param {Model} model
   * @param {Picture} picture
   */
  show(model, { layer: { layer }, head }) {
    const { state } = this.page;
    const measure = measureOf(state, model);
    this.showWords(state, model);
    this.turn("charts", this.plots, { able: !isWritten(measure), open: state.charts }, () =>
      this.plots.show(state, model, { layer, head }),
    );
    this.turn("overview", this.overview, { able: measure === "weights", open: state.overview }, () =>
      this.overview.show(state, model, { layer, head }, this.groundFor),
    );
  }

  /**
   * The maps of the labels' words, where the model has such.
   * @param {State} state
   * @param {Model} model
   */
  showWords(state, model) {
    const able = model.takes_words && Boolean(state.labels);
    this.turn("words", this.words, { able, open: state.words }, () =>
      this.words.show(state, model, {
        ...{ curve: "linear", end: 1, largest: 1, percentile: 100, chosen: null, common: null },
        ...{ opacity: state.opacity ?? HEAT_OPACITY, smooth: state.smooth, contour: false },
      }),
    );
  }

  /**
   * Offer a section where a model is able to, and show it while it is open.
   * @param {"words" | "charts" | "overview"} id
   * @param {{ close(): void }} section
   * @param {{ able: boolean, open: boolean }} is
   * @param {() => unknown} show
   */
  turn(id, section, { able, open }, show) {
    Object.assign(byId(id), { hidden: !able, open });
    if (able && open) show();
    else section.close();
  }

  /** Nothing to see. */
  close() {
    for (const section of [this.words, this.plots, this.overview]) section.close();
  }
}
