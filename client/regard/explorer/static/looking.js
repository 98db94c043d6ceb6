// Who looks: the position under the pointer or the focus, unless one is pinned.

/** @import { Query, Reply } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { byId } from "./dom.js";
import { isPinned, lengthOf, moved, usualQuery } from "./places.js";
import { spokenOf } from "./view.js";

/** What the pointer and the keys are on in a page. What is pinned is in the page's state, and so in its link. */
export class Looking {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    /** @type {number | null} */
    this.hover = null;
    /** @type {number | null} */
    this.key = null;
  }

  /** Nothing is pointed at any more. */
  forget() {
    this.hover = null;
    this.key = null;
  }

  /**
   * The position that looks at an answer.
   * @param {Reply} reply
   */
  queryOf(reply) {
    if (reply.layers[0]?.class_attention) return 0; // nothing else looks
    const wanted = this.hover ?? this.page.state.query;
    const isThere = wanted === "all" || (wanted !== null && wanted < lengthOf(reply)); // it may not be written yet
    return isThere ? wanted : usualQuery(reply);
  }

  /** Whether a position is pinned in what is shown. */
  pinned() {
    const { shown, state } = this.page;
    return Boolean(shown && isPinned(shown.main.reply, state.query));
  }

  /**
   * The pointer or the focus is on a position, or on none: that looks, unless another is pinned.
   * @param {number | null} position
   */
  point(position) {
    const pinned = this.pinned();
    this.hover = pinned ? null : position;
    this.key = pinned ? position : null;
    this.page.draw();
  }

  /**
   * A finger is dragged over a position: that looks, whatever is pinned.
   * @param {number | null} position
   */
  scrub(position) {
    if (position === null) return;
    this.hover = position;
    this.key = null;
    this.page.draw();
  }

  /**
   * The pointer is on a cell of the matrix.
   * @param {number | null} query
   * @param {number | null} key
   */
  cell(query, key) {
    this.hover = this.pinned() ? null : query;
    this.key = key;
    this.page.draw();
  }

  /**
   * A key on the photo moves to another patch, which looks, and is pinned if the one before was; Enter pins it.
   * @param {string} key
   */
  press(key) {
    const { query, main } = this.page.seen();
    if (!main.reply.patches) return false;
    const next = moved(main.reply.patches, query, key);
    if (next === null && !(["Enter", " "].includes(key) && typeof query === "number")) return false;
    if (next === null || this.pinned()) this.pin(next ?? query);
    else this.point(next);
    byId("spoken").textContent = spokenOf(this.page.seen());
    return true;
  }

  /**
   * Let a position look until it is released.
   * @param {Query | null} query
   */
  pin(query) {
    this.forget();
    this.page.state = { ...this.page.state, query };
    this.page.remember();
    this.page.draw();
  }

  /** Let the pointer choose again. */
  release() {
    if (this.pinned()) this.pin(null);
    else this.point(null);
  }
}
