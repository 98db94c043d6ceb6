// The section with entropy and distance of every head: asks when it is opened, and says what goes wrong in place.

import { chartQuestion } from "./asking.js";
import { chart } from "./charts.js";
import { byId, make } from "./dom.js";
import { meansByHead } from "./numbers.js";
import { adviceOn } from "./status.js";

const MEASURES = ["entropy", "distance"];

/** Draws both charts into the page. `choose(layer, head)` is called for a dot that was clicked. */
export class Plots {
  constructor(asker, choose) {
    this.asker = asker;
    this.choose = choose;
    this.abort = new AbortController();
  }

  /** Show the charts of a state's input and model, asking where they are not in the page. */
  async show(state, model, chosen) {
    this.abort.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const questions = MEASURES.map((measure) => chartQuestion(state, model, measure));
    if (questions.some((question) => !this.asker.find(question)))
      this.say(make("span", { class: "spinner" }), "asking for every layer and head …");
    try {
      const replies = [];
      for (const question of questions) replies.push(await this.asker.ask(question, signal));
      if (!signal.aborted) this.draw(replies, model, chosen);
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return;
      const again = make("button", {
        type: "button",
        text: "Try again",
        click: () => this.show(state, model, chosen),
      });
      this.say(`${error.code}: ${error.message} ${adviceOn(error)}`, again);
    }
  }

  /** Nothing to see: closed, or no input. */
  close() {
    this.abort.abort();
    byId("plots").replaceChildren();
    byId("plots-status").replaceChildren();
  }

  draw([entropy, distance], model, chosen) {
    const isText = model.modality === "text";
    const keys = entropy.layers[0].shape[1];
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
      chart({
        title: "Distance",
        unit: isText ? "tokens" : "pixels of the network's input",
        explanation: "How far each head looks, on average, weighted by the attention.",
        layers: of(distance),
        chosen,
        choose: this.choose,
        bound: null,
      }),
    );
  }

  say(...parts) {
    byId("plots-status").replaceChildren(...parts);
  }
}
