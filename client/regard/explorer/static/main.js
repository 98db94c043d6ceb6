// The page's entry: holds what is chosen and given, asks when it must, and draws after every change.

/** @import { Model, Question, Reply, Seen, Shown, State } from "../types.d.ts" */

import { fetchModels, fetchPhoto, fetchSample, isAbort, Problem, problemOf, sendPhoto } from "./api.js";
import { Asker, questionOf } from "./asking.js";
import { chosenModel, linkedState, partsOf } from "./choosing.js";
import { drawControls, lackingWords } from "./controls.js";
import { byId, enable } from "./dom.js";
import { drawFacts } from "./facts.js";
import { faultOf } from "./files.js";
import { frameCounter } from "./frames.js";
import { listen } from "./gestures.js";
import { HeldPhoto } from "./held.js";
import { hasSpecial, withoutSpecial } from "./hidden.js";
import { Looking } from "./looking.js";
import { isWritten, measureOf } from "./measures.js";
import { lengthOf } from "./places.js";
import { drawSamples, firstSample, isSample, sampleOf } from "./samples.js";
import { take } from "./save.js";
import { Sections } from "./sections.js";
import { fromFragment, toFragment } from "./state.js";
import { isOfFile, Status } from "./status.js";
import { isMixed, View } from "./view.js";
import { WhatIf } from "./whatif.js";
import { carried } from "./windows.js";
import { Writer } from "./writer.js";
import { pictureOf } from "./writing.js";

const MODELS_RETRY_SECONDS = 5;

/** The page. One object, made once below. */
export class Page {
  constructor() {
    this.state = fromFragment(location.hash);
    /** @type {Model[]} */
    this.models = [];
    this.isListed = false;
    this.limits = { photo_bytes: Infinity };
    this.photo = new HeldPhoto();
    /**
     * Lasts while a photo is on its way into the page.
     * @type {AbortSignal | null}
     */
    this.coming = null;
    /**
     * The photo that is being handed over, until that is done or has failed.
     * @type {Blob | null}
     */
    this.given = null;
    /** @type {Shown | null} */
    this.shown = null;
    this.drawing = 0;
    this.counted = frameCounter();
    this.status = new Status();
    this.asker = new Asker(() => this.photo.blob);
    this.writer = new Writer(this);
    this.looking = new Looking(this);
    this.view = new View({
      point: (position) => this.looking.point(position),
      scrub: (position) => this.looking.scrub(position),
      cell: (query, key) => this.looking.cell(query, key),
      pin: (position) => this.looking.pin(position),
      key: (key) => this.looking.press(key),
      release: () => this.looking.release(),
      query: (query) => this.looking.pin(query),
      head: (head) => this.change({ head }),
      other: (fields) => this.state.other && this.change({ other: { ...this.state.other, ...fields } }),
    });
    this.whatIf = new WhatIf(this);
    this.sections = new Sections(this);
  }

  /** Fetch the list of models, then show what the link says; keeps trying while no server answers. */
  async start() {
    const again = () => this.start();
    const signal = this.begin("Asking what is served", again);
    try {
      const { server, limits, models } = await fetchModels(signal);
      Object.assign(this, { limits, models, isListed: true });
      this.status.serverIs(server, true);
    } catch (error) {
      this.status.fail(error, again, problemOf(error).retrySeconds ?? MODELS_RETRY_SECONDS);
      return;
    }
    await this.restore();
  }

  /** Show what the state of a link says. */
  async restore() {
    this.looking.forget();
    if (this.given) return this.give(this.given); // asking what is served has called that off
    if (!location.hash) this.state = { ...this.state, ...firstSample(this.models) };
    byId("text").value = this.state.text || byId("text").value;
    byId("second").value = this.state.second;
    byId("candidates").value = this.state.labels;
    return this.show();
  }

  /**
   * Fetch the photo that a link names from the explorer, or from the samples, and show the state.
   * @param {string} name
   */
  async fetchNamed(name) {
    const signal = this.begin("Fetching the photo", () => this.show());
    this.coming = signal;
    try {
      const sample = sampleOf(name);
      if (sample) {
        const blob = await fetchSample(sample.file, signal);
        await this.photo.take(blob, name, await sendPhoto(blob, signal), signal);
      } else {
        const fetched = await fetchPhoto(name, signal);
        await this.photo.take(fetched.blob, name, fetched, signal);
      }
    } catch (error) {
      this.status.fail(error, () => (isOfFile(error) ? byId("file").click() : this.show()));
      return;
    }
    this.coming = null;
    await this.show();
  }

  /** The model that the state means, or null. */
  model() {
    return chosenModel(this.state, this.models);
  }

  /**
   * Take changes into the state, and show them.
   * @param {Partial<State>} fields
   */
  change(fields) {
    this.state = { ...this.state, ...fields };
    return this.show();
  }

  /**
   * Show a sample.
   * @param {Partial<State>} fields
   */
  async changeSample(fields) {
    byId("text").value = fields.text ?? byId("text").value;
    await this.change(fields);
    this.reveal();
  }

  /** Show the state: from what is in the page, or by asking. */
  async show() {
    const model = this.model();
    if (model) this.state = { ...this.state, model: model.name, version: model.version };
    this.remember();
    this.drawChoices();
    const { input, photo, text } = this.state;
    if (input === "photo" && this.coming && !this.coming.aborted) return undefined; // shown as chosen, once it is here
    if (!this.isListed) return this.start(); // a photo that came first has called that off
    if (!model) return this.lacksModel();
    if (input === "photo" ? !photo : !text) return this.rest("");
    if (input === "photo" && photo && photo !== this.photo.name) return this.fetchNamed(photo);
    const questions = partsOf(this.state, model).map(({ layer, head }) => questionOf(this.state, model, layer, head));
    const replies = isWritten(measureOf(this.state, model))
      ? await this.writer.ask(questions, model)
      : (this.asker.findAll(questions) ?? (await this.fetch(questions, model)));
    if (replies) this.present(model, replies);
    return undefined;
  }

  /** There is no model for this: say which the link names, or what the server lacks. */
  lacksModel() {
    const { model, version, input } = this.state;
    this.rest(lackingWords(input, this.models));
    if (!model) return;
    const wanted = `model: '${model}', version '${version}'; expected one for ${input}s that is served`;
    this.status.fail(new Problem("NOT_FOUND", wanted), () => this.start());
  }

  /**
   * Ask what is not in the page; null where that failed or was called off.
   * @param {Question[]} questions
   * @param {Model} model
   */
  async fetch(questions, model) {
    const again = () => this.show();
    const signal = this.begin(`Asking ${model.name}`, again);
    try {
      const replies = await this.asker.askAll(questions, signal);
      return signal.aborted ? null : replies;
    } catch (error) {
      this.status.fail(error, again);
      return null;
    }
  }

  /**
   * Draw the answers: nothing is waited for any more.
   * @param {Model} model
   * @param {Reply[]} replies
   */
  present(model, replies) {
    this.status.end();
    this.status.serverIs("", true);
    this.lay(model, replies);
  }

  /**
   * Draw answers, of which some may still grow, or be lacking.
   * @param {Model} model
   * @param {(Reply | null)[]} replies
   */
  lay(model, replies) {
    const measure = measureOf(this.state, model);
    const [main, other] = partsOf(this.state, model).map((part, at) => {
      const reply = replies[at];
      const picture = reply && pictureOf(reply, measure, part);
      return picture && this.state.words_only && hasSpecial(picture)
        ? withoutSpecial(picture, !isMixed(model, picture.layer, measure))
        : picture;
    });
    if (!main) return;
    byId("shown").classList.remove("stale");
    const { reply } = main;
    this.keepPlace(model, reply);
    const { query } = this.state;
    const grows = reply.writing && !reply.writing.end;
    if (!grows && typeof query === "number" && query >= lengthOf(reply)) this.state = { ...this.state, query: null };
    const lags = other?.reply.writing && lengthOf(other.reply) < lengthOf(reply); // whoever looks is not written there
    const ground = reply.patches && this.photo.groundFor(reply.patches);
    const bare = reply.patches && this.state.original ? this.photo.bareFor(reply.patches) : null;
    this.shown = { model, main, other: lags ? null : (other ?? null), ground, bare };
    enable(true);
    drawFacts(reply, measure);
    this.draw();
    this.drawChoices();
    this.sections.show(model, main);
  }

  /**
   * Let who looks stay at its place, where another layer of the model has a grid of its own.
   * @param {Model} model
   * @param {Reply} reply
   */
  keepPlace(model, reply) {
    const before = this.shown?.model === model ? this.shown.main.reply : null;
    if (!before?.patches || !reply.patches || lengthOf(reply) === lengthOf(before)) return;
    this.looking.forget();
    this.state = { ...this.state, query: carried(before.patches, reply.patches, this.state.query) };
    this.remember();
  }

  /** Draw what is shown, soon; several calls before then are one. */
  draw() {
    if (this.drawing || !this.shown) return;
    this.drawing = requestAnimationFrame((began) => {
      this.drawing = 0;
      if (!this.shown) return;
      this.view.draw(this.seen());
      this.whatIf.draw(this.seen());
      this.counted?.(began);
    });
  }

  /**
   * What is seen: the answers, and who looks. Only where something is shown.
   * @returns {Seen}
   */
  seen() {
    const shown = /** @type {Shown} */ (this.shown);
    const query = this.looking.queryOf(shown.main.reply);
    const measure = measureOf(this.state, shown.model);
    return { ...shown, state: this.state, measure, query, key: this.looking.key };
  }

  drawChoices() {
    const model = this.model();
    /** @param {number} layer */
    const inPage = (layer) => Boolean(model && this.asker.find(questionOf(this.state, model, layer, this.state.head)));
    drawControls({ state: this.state, model, models: this.models }, inPage, (fields) => this.change(fields));
    drawSamples(this.state, model, (fields) => this.changeSample(fields));
    byId("can").hidden = !isSample(this.state);
  }

  /**
   * Show a photo: keep it here, give it to the explorer, ask.
   * @param {Blob} blob
   */
  async give(blob) {
    const again = () => this.give(blob);
    const signal = this.begin("Handing over the photo", again);
    Object.assign(this, { given: blob, coming: signal });
    try {
      const fault = await faultOf(blob, this.limits.photo_bytes);
      if (fault) throw fault;
      const kept = await sendPhoto(blob, signal);
      await this.photo.take(blob, kept.photo, kept, signal);
      Object.assign(this, { given: null, coming: null });
      /** @type {Partial<State>} */
      const input =
        this.state.input === "photo" ? {} : { input: "photo", model: "", version: "", layer: null, query: null };
      await this.change({ ...input, photo: kept.photo });
      this.reveal();
    } catch (error) {
      if (!isAbort(error)) this.given = null;
      this.status.fail(error, isOfFile(error) ? () => byId("file").click() : again);
    }
    return undefined;
  }

  /** On a screen so narrow that the picture is not beside the choices, go there, once it is drawn. */
  reveal() {
    if (this.shown && window.matchMedia("(max-width: 780px)").matches)
      requestAnimationFrame(() => byId("view").scrollIntoView());
  }

  /**
   * Begin to wait, ending what was waited for before.
   * @param {string} what
   * @param {() => unknown} again
   */
  begin(what, again) {
    byId("shown").classList.add("stale");
    byId("empty").hidden = true;
    return this.status.begin(what, again);
  }

  /**
   * Nothing to show yet.
   * @param {string} words
   */
  rest(words) {
    this.status.end();
    this.sections.close();
    this.shown = null;
    enable(false);
    byId("shown").hidden = true;
    byId("empty").hidden = Boolean(words);
    if (words) this.status.note(words);
  }

  /** Write the state into the address, so that it is a link to what is seen. */
  remember() {
    history.replaceState(null, "", `#${toFragment(linkedState(this.state, this.model()))}`);
  }

  /**
   * Save what is seen as a picture or as numbers.
   * @param {string} kind
   */
  async take(kind) {
    if (this.shown) await take(kind, this.seen(), this.view.pictures(this.seen()));
  }

  /**
   * Show what another link says.
   * @param {string} fragment
   */
  follow(fragment) {
    this.state = fromFragment(fragment);
    this.given = null;
    return this.restore();
  }
}

const page = new Page();
listen(page);
page.start();
