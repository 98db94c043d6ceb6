// The page's entry: holds what is chosen and given, asks when it must, and draws after every change.

/** @import { Model, Other, Question, Reply, Seen, Shown, Side, SidePicture, State } from "../types.d.ts" */

import { fetchModels, fetchPhoto, fetchSample, isAbort, Problem, problemOf, sendPhoto } from "./api.js";
import { Asker, questionOf } from "./asking.js";
import { besideState, chosenModel, linkedState, sidesOf, withOther } from "./choosing.js";
import { drawBeside } from "./beside.js";
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
import { fromFragment, NO_WHY, toFragment } from "./state.js";
import { isOfFile, Status } from "./status.js";
import { isMixed, View } from "./view.js";
import { WhatIf } from "./whatif.js";
import { Why } from "./why.js";
import { carried } from "./windows.js";
import { Writer } from "./writer.js";
import { pictureOf } from "./writing.js";

const MODELS_RETRY_SECONDS = 5;
/**
 * What takes as long as some questions: others of the same models and measures.
 * @param {Question[]} questions
 */
const likeOf = (questions) =>
  questions.map(({ model, version, measure }) => [model, version, measure].join()).join("; ");

/** The page. One object, made once below. */
export class Page {
  constructor() {
    this.state = fromFragment(location.hash);
    /** @type {Model[]} */
    this.models = [];
    this.isListed = false;
    this.limits = { photo_bytes: Infinity };
    this.photo = new HeldPhoto("drop", "thumb");
    this.second = new HeldPhoto("beside-drop", "beside-thumb");
    /**
     * Lasts while a photo is on its way into the page.
     * @type {AbortSignal | null}
     */
    this.coming = null;
    /**
     * The photo that is being handed over, until that is done or has failed.
     * @type {{ blob: Blob, ofSecond: boolean } | null}
     */
    this.given = null;
    /** @type {Shown | null} */
    this.shown = null;
    this.drawing = 0;
    this.counted = frameCounter();
    this.status = new Status();
    this.asker = new Asker((name) => this.held(name)?.blob ?? null);
    this.writer = new Writer(this);
    this.looking = new Looking(this);
    this.view = new View({
      point: (...where) => this.looking.point(...where),
      scrub: (...where) => this.looking.scrub(...where),
      cell: (...where) => this.looking.cell(...where),
      pin: (...where) => this.looking.pin(...where),
      key: (key) => this.looking.press(key),
      release: () => this.looking.release(),
      arcHead: (head) => this.turnArcs(head),
      query: (query) => this.looking.pin(query),
      head: (head) => this.change({ head }),
      other: (fields) => this.changeOther(fields),
    });
    this.whatIf = new WhatIf(this);
    this.why = new Why(this);
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
    if (this.given) return this.give(this.given.blob, this.given.ofSecond); // asking what is served has called that off
    if (!location.hash) this.state = { ...this.state, ...firstSample(this.models) };
    byId("text").value = this.state.text || byId("text").value;
    byId("second").value = this.state.second;
    byId("candidates").value = this.state.labels;
    byId("beside-text").value = this.state.other?.text ?? "";
    return this.show();
  }

  /**
   * Fetch the photo that a link names from the explorer, or from the samples, and show the state.
   * @param {string} name
   * @param {HeldPhoto} held Who takes it
   */
  async fetchNamed(name, held) {
    const signal = this.begin("Fetching the photo", () => this.show());
    this.coming = signal;
    try {
      const sample = sampleOf(name);
      if (sample) {
        const blob = await fetchSample(sample.file, signal);
        await held.take(blob, name, await sendPhoto(blob, signal, this.status.told()), signal);
      } else {
        const fetched = await fetchPhoto(name, signal, this.status.told());
        await held.take(fetched.blob, name, fetched, signal);
      }
    } catch (error) {
      this.status.fail(error, () => (isOfFile(error) ? this.askForFile(held === this.second) : this.show()));
      return;
    }
    this.coming = null;
    await this.show();
  }

  /** @param {boolean} ofSecond */
  askForFile(ofSecond) {
    byId("beside").open ||= ofSecond;
    byId(ofSecond ? "beside-file" : "file").click();
  }

  /**
   * Who holds the photo of this name.
   * @param {string | null | undefined} name
   */
  held(name) {
    return [this.photo, this.second].find((each) => name && each.name === name);
  }

  /**
   * What the pictures are of, as far as the server has the models.
   * @param {Model} model
   */
  sides(model) {
    return sidesOf(this.state, model, this.models);
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
   * Take changes of the second picture into the state, and show them.
   * @param {Partial<Other>} fields
   */
  changeOther(fields) {
    this.state = withOther(this.state, fields);
    return this.show();
  }

  /**
   * Draw the arcs of a head beside those of others, or no longer.
   * @param {number} head
   */
  turnArcs(head) {
    const others = this.state.arc_heads.filter((each) => each !== head);
    const isNew = others.length === this.state.arc_heads.length;
    return this.change({ arc_heads: isNew ? [...others, head].sort((a, b) => a - b) : others });
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
    const beside = model && besideState(this.state, model);
    if (!model) return this.lacksModel(this.state);
    if (beside && !chosenModel(beside, this.models)) return this.lacksModel(beside);
    if (input === "photo" ? !photo : !text) return this.rest("");
    if (input === "photo" && photo && photo !== this.photo.name) return this.fetchNamed(photo, this.photo);
    if (input === "photo" && beside?.photo && !this.held(beside.photo))
      return this.fetchNamed(beside.photo, this.second);
    const questions = this.sides(model).map((side) => questionOf(side.state, side.model, side.layer, side.head));
    const replies = isWritten(measureOf(this.state, model))
      ? await this.writer.ask(questions, model)
      : (this.asker.findAll(questions) ?? (await this.fetch(questions, model)));
    if (replies) this.present(model, replies);
    return undefined;
  }

  /**
   * There is no model for this: say which the link names, or what the server lacks.
   * @param {State} state
   */
  lacksModel({ model, version, input }) {
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
    const signal = this.begin(`Asking ${model.name}`, again, likeOf(questions));
    try {
      const replies = await this.asker.askAll(questions, signal, this.status.told());
      if (signal.aborted) return null;
      this.status.came();
      return replies;
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
    const [main, other] = this.sides(model).map((side, at) => this.pictureOf(side, replies[at]));
    if (!main) return;
    byId("shown").classList.remove("stale");
    const { reply } = main;
    this.keepPlace(model, reply);
    const { query } = this.state;
    const grows = reply.writing && !reply.writing.end;
    if (!grows && typeof query === "number" && query >= lengthOf(reply)) this.state = { ...this.state, query: null };
    const lags = other?.reply.writing && lengthOf(other.reply) < lengthOf(reply); // whoever looks is not written there
    this.shown = { model, main, other: lags ? null : (other ?? null) };
    enable(true);
    drawFacts(this.shown);
    this.draw();
    this.drawChoices();
    this.why.show(main);
    this.sections.show(model, main);
  }

  /**
   * The picture of an answer, if that has it by now.
   * @param {Side} side
   * @param {Reply | null} reply
   * @returns {SidePicture | null}
   */
  pictureOf(side, reply) {
    const { model, measure, state } = side;
    const whole = reply && pictureOf(reply, measure, side);
    if (!whole) return null;
    const picture =
      state.words_only && hasSpecial(whole) ? withoutSpecial(whole, !isMixed(model, whole.layer, measure)) : whole;
    const { patches } = picture.reply;
    const held = this.held(state.photo);
    const ground = (patches && held?.groundFor(patches)) ?? null;
    return { ...picture, side, ground, bare: (patches && state.original && held?.bareFor(patches)) || null };
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
    const { measure } = shown.main.side;
    const places = { query: this.looking.queryOf(shown.main.reply), key: this.looking.key };
    return { ...shown, state: this.state, measure, ...places, beside: this.looking.beside(shown, places) };
  }

  drawChoices() {
    const model = this.model();
    /** @param {number} layer */
    const inPage = (layer) => Boolean(model && this.asker.find(questionOf(this.state, model, layer, this.state.head)));
    drawControls({ state: this.state, model, models: this.models }, inPage, (fields) => this.change(fields));
    drawBeside(this.state, model, this.models, (fields) => this.changeOther(fields));
    drawSamples(this.state, model, (fields) => this.changeSample(fields));
    byId("can").hidden = !isSample(this.state);
  }

  /**
   * Show a photo, in the first picture or beside it: keep it here, give it to the explorer, ask.
   * @param {Blob} blob
   * @param {boolean} ofSecond
   */
  async give(blob, ofSecond = false) {
    const again = () => this.give(blob, ofSecond);
    const signal = this.begin("Handing over the photo", again);
    Object.assign(this, { given: { blob, ofSecond }, coming: signal });
    try {
      const fault = await faultOf(blob, this.limits.photo_bytes);
      if (fault) throw fault;
      const kept = await sendPhoto(blob, signal, this.status.told());
      await (ofSecond ? this.second : this.photo).take(blob, kept.photo, kept, signal);
      Object.assign(this, { given: null, coming: null });
      if (ofSecond) return await this.changeOther({ photo: kept.photo, query: null });
      /** @type {Partial<State>} */
      const input =
        this.state.input === "photo"
          ? {}
          : { input: "photo", model: "", version: "", layer: null, query: null, ...NO_WHY };
      await this.change({ ...input, photo: kept.photo });
      this.reveal();
    } catch (error) {
      if (!isAbort(error)) this.given = null;
      this.status.fail(error, isOfFile(error) ? () => this.askForFile(ofSecond) : again);
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
   * @param {string} like What other waits are for the same
   */
  begin(what, again, like = what) {
    byId("shown").classList.add("stale");
    byId("empty").hidden = true;
    return this.status.begin(what, again, like);
  }

  /**
   * Nothing to show yet.
   * @param {string} words
   */
  rest(words) {
    this.status.end();
    this.sections.close();
    this.why.close();
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
    if (kind.startsWith("why-")) return this.why.take(kind.slice("why-".length));
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
