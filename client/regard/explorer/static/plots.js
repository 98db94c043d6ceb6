// The section with entropy and distance of every head: asks when it is opened, and says what goes wrong in place.

/** @import { Head, Model, Reply, State } from "../types.d.ts" */

/** @import { Asker } from "./asking.js" */

import { isAbort, problemOf } from "./api.js";
import { chartQuestion } from "./asking.js";
import { chart } from "./charts.js";
import { byId, make } from "./dom.js";
import { meansByHead } from "./numbers.js";
import { adviceOn } from "./status.js";

/** Draws both charts into the page. `choose(layer, head)` is called for a dot that was clicked. */
export class Plots {
  /**
   * @param {Asker} asker
   * @param {(layer: number, head: number) => void} choose
   */
  constructor(asker, choose) {
    this.asker = asker;
    this.choose = choose;
    this.abort = new AbortController();
  }

  /**
   * Show the charts of a state's input and model, asking where they are not in the page.
   * @param {State} state
   * @param {Model} model
   * @param {{ layer: number, head: Head }} chosen
   */
  async show(state, model, chosen) {
    this.abort.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const entropy = chartQuestion(state, model, "entropy");
    const distance = model.layers.every((layer) => layer.window) ? null : chartQuestion(state, model, "distance");
    if (!this.asker.find(entropy) || (distance && !this.asker.find(distance)))
      this.say(make("span", { class: "spinner" }), "asking for every layer and head …");
    try {
      const replies = [await this.asker.ask(entropy, signal), distance && (await this.asker.ask(distance, signal))];
      if (!signal.aborted && replies[0]) this.draw(replies[0], replies[1], model, chosen);
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      const problem = problemOf(error);
      const again = make("button", {
        type: "button",
        text: "Try again",
        click: () => this.show(state, model, chosen),
      });
      this.say(`${problem.code}: ${problem.message} ${adviceOn(problem)}`, again);
    }
  }

  /** Nothing to see: closed, or no input. */
  close() {
    this.abort.abort();
    byId("plots").replaceChildren();
    byId("plots-status").replaceChildren();
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
    this.say();
    byId("plots").replaceChildren(
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

  /** @param {(Node | string)[]} parts */
  say(...parts) {
    byId("plots-status").replaceChildren(...parts);
  }
}
