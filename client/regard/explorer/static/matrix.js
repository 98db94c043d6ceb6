// The matrix as an element: larger and smaller by buttons, keys, wheel and two fingers; only what is seen is painted.

/** @import { PictureEvents, TextView } from "../types.d.ts" */
/** @import { Place } from "./text.js" */

import { make } from "./dom.js";
import { AXIS, LARGEST_CELL, imageOf, paintPart, placeOf } from "./text.js";

const STEP = 2; // of a button or a key
const WHEEL_PIXELS = 250; // that make it twice as large
/** @type {Record<string, number>} By which a key makes it larger; 0: as small as it gets */
const KEYS = { "+": STEP, "=": STEP, "-": 1 / STEP, 0: 0 };

/** @typedef {{ x: number, y: number }} Point In the frame, in CSS pixels */

/**
 * A frame in which the matrix is scrolled; the names of its rows and columns stay at the sides. `events`: cell(query, key)
 * or cell(null, null), pin(query).
 * @param {PictureEvents} events
 */
export function matrixView(events) {
  const canvas = make("canvas", { class: "matrix", role: "img" });
  const [row, column] = [make("div"), make("div")];
  const marks = make("div", { class: "marks" }, row, column);
  const sheet = make("div", { class: "sheet" }, make("div", { class: "window" }, canvas, marks));
  const scroll = make(
    "div",
    {
      class: "zoomed",
      role: "group",
      "aria-label": "Matrix; plus and minus make it larger and smaller",
      tabindex: "0",
      keydown: (event) => {
        const factor = event.ctrlKey || event.metaKey ? undefined : KEYS[event.key];
        if (factor !== undefined && zoomBy(factor)) event.preventDefault();
      },
    },
    sheet,
  );
  const smaller = make("button", { type: "button", text: "−", "aria-label": "Smaller", click: () => zoomBy(1 / STEP) });
  const larger = make("button", { type: "button", text: "+", "aria-label": "Larger", click: () => zoomBy(STEP) });
  const buttons = make("div", { class: "zoom" }, smaller, larger);
  const node = make("div", {}, buttons, scroll);
  let [zoom, largest, available] = [1, 1, 0];
  /** @type {TextView | null} */
  let view = null;
  /** @type {Place} */
  let place = { band: 0, cell: 0, width: 0, height: 0 };
  let seen = { left: 0, top: 0, width: 0, height: 0 };
  let painted = "";
  /** @type {OffscreenCanvas | null} */
  let image = null;

  /** Lay the matrix out in the width that there is. */
  const lay = () => {
    if (!view) return;
    const fits = placeOf(view, available).cell;
    largest = LARGEST_CELL / fits;
    zoom = Math.max(1, Math.min(zoom, largest));
    buttons.hidden = largest < STEP;
    smaller.disabled = zoom <= 1;
    larger.disabled = zoom >= largest;
    const before = place;
    place = placeOf(view, available, zoom);
    if (before.width === place.width && before.height === place.height && before.band === place.band) return;
    Object.assign(sheet.style, { width: `${place.width}px`, height: `${place.height}px` });
    measure();
    const cells = { left: `${place.band}px`, top: `${place.band}px` };
    Object.assign(marks.style, cells);
    Object.assign(row.style, { width: `${place.width - place.band}px`, height: `${place.cell}px` });
    Object.assign(column.style, { width: `${place.cell}px`, height: `${place.height - place.band}px` });
  };
  /** See which part of the matrix is in the frame: kept, since asking has the page laid out. */
  const measure = () => {
    seen = {
      left: scroll.scrollLeft,
      top: scroll.scrollTop,
      width: Math.min(place.width, scroll.clientWidth || available),
      height: Math.min(place.height, scroll.clientHeight || place.height),
    };
  };

  /** Paint what is seen, where that is another than before. */
  const paint = () => {
    if (!view) return;
    const named = place.band > AXIS ? [view.query, view.key] : [];
    const fineness = window.devicePixelRatio || 1;
    const signature = JSON.stringify([seen, place, fineness, view.ink, named]);
    const next = imageOf(view.layer, view.head, view.scale, view.unit);
    if (signature !== painted || next !== image) paintPart(canvas, view, place, seen, fineness);
    [painted, image] = [signature, next];
    mark(row, view.query, 0, -seen.left, -seen.top);
    mark(column, view.key, 1, -seen.left, -seen.top);
  };
  /**
   * @param {HTMLElement} line
   * @param {number | "all" | null} position
   * @param {number} across
   * @param {number} x
   * @param {number} y
   */
  const mark = (line, position, across, x, y) => {
    line.hidden = typeof position !== "number";
    if (typeof position !== "number") return;
    const [left, top] = across ? [x + position * place.cell, y] : [x, y + position * place.cell];
    line.style.transform = `translate(${left}px, ${top}px)`;
  };

  /**
   * Make it larger by a factor, what is at a point of the frame stays there; false where nothing changes.
   * @param {number} factor
   * @param {Point} point
   */
  const zoomBy = (factor, point = { x: seen.width / 2, y: seen.height / 2 }) => {
    const before = zoom;
    const { left, top } = seen;
    const [query, key] = [(top + point.y - place.band) / place.cell, (left + point.x - place.band) / place.cell];
    zoom = Math.max(1, Math.min(zoom * factor, largest));
    if (zoom === before) return false;
    lay();
    scroll.scrollTo(key * place.cell + place.band - point.x, query * place.cell + place.band - point.y);
    measure();
    paint();
    return true;
  };
  listenToWheel(scroll, zoomBy);
  listenToFingers(scroll, zoomBy);
  scroll.addEventListener("scroll", () => {
    measure();
    paint();
  });
  new ResizeObserver(() => {
    if (!node.clientWidth) return;
    available = node.clientWidth;
    lay();
    measure();
    paint();
  }).observe(node);

  /**
   * @param {MouseEvent} event
   * @returns {[query: number, key: number] | [null, null]}
   */
  const at = (event) => {
    if (!view) return [null, null];
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - place.band, event.clientY - box.top - place.band];
    if (x < 0 || y < 0) return [null, null];
    const [, queries, keys] = view.layer.shape;
    const key = Math.floor((x + scroll.scrollLeft) / place.cell);
    const query = Math.floor((y + scroll.scrollTop) / place.cell);
    return key < keys && query < queries ? [query, key] : [null, null];
  };
  canvas.addEventListener("pointermove", (event) => {
    const [query, key] = at(event);
    if (event.pointerType === "mouse") events.cell(query, key);
  });
  canvas.addEventListener("pointerleave", () => events.cell(null, null));
  canvas.addEventListener("click", (event) => {
    const [query] = at(event);
    if (query !== null) events.pin(query);
  });
  return {
    node,
    /** @param {TextView} next */
    draw(next) {
      if (next.title !== view?.title)
        canvas.setAttribute(
          "aria-label",
          `Which positions attend to which: ${next.title}; rows attend to columns. The same numbers stand on the tokens.`,
        );
      view = next;
      available ||= node.clientWidth;
      lay();
      paint();
    },
  };
}

/**
 * The wheel with Ctrl or Command, and two fingers on a touchpad, which browsers tell as that.
 * @param {HTMLElement} scroll
 * @param {(factor: number, point: Point) => boolean} zoomBy
 */
function listenToWheel(scroll, zoomBy) {
  scroll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomBy(2 ** (-event.deltaY / WHEEL_PIXELS), pointIn(scroll, event.clientX, event.clientY));
  });
}

/**
 * Two fingers on the screen.
 * @param {HTMLElement} scroll
 * @param {(factor: number, point: Point) => boolean} zoomBy
 */
function listenToFingers(scroll, zoomBy) {
  let apart = 0;
  /** @param {TouchEvent} event */
  const begin = ({ touches }) => {
    apart = touches.length === 2 ? between(touches[0], touches[1]) : 0;
  };
  for (const kind of /** @type {const} */ (["touchstart", "touchend", "touchcancel"]))
    scroll.addEventListener(kind, begin, { passive: true });
  scroll.addEventListener(
    "touchmove",
    (event) => {
      if (event.touches.length !== 2 || !apart) return;
      event.preventDefault();
      const [a, b] = event.touches;
      const now = between(a, b);
      zoomBy(now / apart, pointIn(scroll, (a.clientX + b.clientX) / 2, (a.clientY + b.clientY) / 2));
      apart = now;
    },
    { passive: false },
  );
}

/**
 * How far two fingers are apart, in CSS pixels.
 * @param {Touch} a
 * @param {Touch} b
 */
const between = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

/**
 * @param {HTMLElement} scroll
 * @param {number} x
 * @param {number} y
 * @returns {Point}
 */
function pointIn(scroll, x, y) {
  const box = scroll.getBoundingClientRect();
  return { x: x - box.left, y: y - box.top };
}
