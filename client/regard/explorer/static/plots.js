// The section with entropy and distance of every head.

/** @import { Head, Model, Reply, State } from "../types.d.ts" */

/** @import { Asker } from "./asking.js" */

import { chartQuestion } from "./asking.js";
import { chart } from "./charts.js";
import { make } from "./dom.js";
import { meansByHead } from "./numbers.js";
import { Section } from "./section.js";

const UNSHARED = "Every layer mixes its heads: rows are no shares of 1, and have neither entropy nor distance.";

/** Draws both charts into the page. `choose(layer, head)` is called for a dot that was clicked. */
export class Plots {
  /**
   * @param {Asker} asker
   * @param {(layer: number, head: number) => void} choose
   */
  constructor(asker, choose) {
    this.section = new Section(asker, "plots");
    this.choose = choose;
  }

  /**
   * Show the charts of a state's input and model, asking where they are not in the page.
   * @param {State} state
   * @param {Model} model
   * @param {{ layer: number, head: Head }} chosen
   */
  async show(state, model, chosen) {
    const questions = [chartQuestion(state, model, "entropy"), chartQuestion(state, model, "distance")].filter(
      (question) => question !== null,
    );
    const again = () => this.show(state, model, chosen);
    const replies = await this.section.ask(questions, "asking for every layer and head …", again);
    if (replies?.length) this.draw(replies[0], replies[1] ?? null, model, chosen);
    else if (replies) this.section.fill(make("p", { class: "fine", text: UNSHARED }));
  }

  /** Nothing to see: closed, or no input. */
  close() {
    this.section.close();
  }

  /**
   * @param {Reply} entropy
   * @param {Reply | null} distance
   * @param {Model} model
   * @param {{ layer: number, head: Head }} chosen
   */
  draw(entropy, distance, model, chosen) {
    const isText = model.modality === "text";
    const keys = Math.max(
      ...entropy.layers.map(({ window, shape }) => (window ? window.height * window.width : shape[1])),
    );
    /** @param {Reply} reply */
    const of = (reply) => reply.layers.map((layer) => ({ layer: layer.layer, values: meansByHead(layer) }));
    this.section.fill(
      chart({
        title: "Entropy",
        unit: "nats",
        explanation: "How widely each head looks, on average over all positions.",
        layers: of(entropy),
        chosen,
        choose: this.choose,
        bound: { value: Math.log(keys), label: `ln ${keys}: all alike` },
      }),
      ...(distance
        ? [
            chart({
              title: "Distance",
              unit: isText ? "tokens" : "pixels of the network's input",
              explanation: "How far each head looks, on average, weighted by the attention.",
              layers: of(distance),
              chosen,
              choose: this.choose,
              bound: null,
            }),
          ]
        : []),
    );
  }
}
