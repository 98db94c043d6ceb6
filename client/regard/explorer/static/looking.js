// Who looks: the position under the pointer or the focus, unless one is pinned.

/** @import { Places, Query, Reply, Shown } from "../types.d.ts" */

/** @import { Page } from "./main.js" */

import { byId } from "./dom.js";
import { partnerOf } from "./partners.js";
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
    /**
     * The same as positions of the second picture, where it is that which is pointed at.
     * @type {{ query: number | null, key: number | null }}
     */
    this.there = { query: null, key: null };
  }

  /** Nothing is pointed at any more. */
  forget() {
    this.hover = null;
    this.key = null;
    this.there = { query: null, key: null };
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
   * Who looks in the second picture, and what is pointed at there: what belongs to the places of the first, unless it is
   * the second that was pointed at.
   * @param {Shown} shown
   * @param {Places} places
   * @returns {Places | null}
   */
  beside({ main, other }, { query, key }) {
    if (!other) return null;
    const pinned = this.page.state.query === null ? null : (this.page.state.other?.query ?? null);
    const own = this.hover === null ? pinned : this.there.query;
    const isThere = typeof own === "number" && own < lengthOf(other.reply);
    return {
      query: isThere ? own : (partnerOf(main, other, query) ?? "all"),
      key: this.there.key ?? partnerOf(main, other, key),
    };
  }

  /**
   * The position of the first picture that belongs to one of the second.
   * @param {number | null} position
   */
  firstOf(position) {
    const { main, other } = this.page.shown ?? {};
    return main && other ? partnerOf(other, main, position) : position;
  }

  /**
   * The pointer or the focus is on a position, or on none: that looks, unless another is pinned.
   * @param {number | null} position
   * @param {number | null} [first]
   * @param {boolean} [ofSecond]
   */
  point(position, first, ofSecond = false) {
    if (this.pinned()) this.set({ query: null, key: position }, first, ofSecond);
    else this.set({ query: position, key: null }, first, ofSecond);
  }

  /**
   * A finger is dragged over a position: that looks, whatever is pinned.
   * @param {number | null} position
   * @param {number | null} [first]
   * @param {boolean} [ofSecond]
   */
  scrub(position, first, ofSecond = false) {
    if (position !== null) this.set({ query: position, key: null }, first, ofSecond);
  }

  /**
   * The pointer is on a cell of the matrix.
   * @param {number | null} query
   * @param {number | null} key
   * @param {boolean} [ofSecond]
   */
  cell(query, key, ofSecond = false) {
    this.set({ query: this.pinned() ? null : query, key }, undefined, ofSecond);
  }

  /**
   * What is pointed at, in the first picture or in the second.
   * @param {{ query: number | null, key: number | null }} places
   * @param {number | null | undefined} first The position in the first picture, where that is known
   * @param {boolean} ofSecond
   */
  set(places, first, ofSecond) {
    /** @param {number | null} position */
    const there = (position) => (position === null ? null : ofSecond ? (first ?? this.firstOf(position)) : position);
    this.hover = there(places.query);
    this.key = there(places.key);
    this.there = ofSecond ? places : { query: null, key: null };
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
   * Let a position look until it is released; one of the second picture that belongs to none of the first is kept too.
   * @param {Query | null} query
   * @param {number | null} [first]
   * @param {boolean} [ofSecond]
   */
  pin(query, first, ofSecond = false) {
    this.forget();
    const position = ofSecond && typeof query === "number" ? (first ?? this.firstOf(query)) : query;
    const { state, shown } = this.page;
    const isPartner = !ofSecond || !shown?.other || partnerOf(shown.main, shown.other, position) === query;
    const own = isPartner || typeof query !== "number" ? null : query;
    this.page.state = { ...state, query: position, other: state.other && { ...state.other, query: own } };
    this.page.remember();
    this.page.draw();
  }

  /** Let the pointer choose again. */
  release() {
    if (this.pinned()) this.pin(null);
    else this.point(null);
  }
}
