// A photo with what each patch did for a label over it: pointed at, and picked to be covered.

/** @import { Grid, WhyEvents, WhyView } from "../types.d.ts" */

import { HEAT_OPACITY, paint } from "./colour.js";
import { contextOf, make } from "./dom.js";
import { darken, frame, outline, pixelAt, withinSeen } from "./photo.js";
import { moved, patchAt, rectOf } from "./places.js";
import { smoothed } from "./scales.js";
import { signedShare, signedTable } from "./signed.js";

const MAP_PIXELS = 256; // of the longer side of a smooth map

/**
 * The numbers of a photo's patches as they lie on it, [rows * cols]; 0 where none was sent.
 * @param {{ patches: Grid, values: number[], positions: number[] }} why
 */
export function onPatches({ patches, values, positions }) {
  const numbers = new Float32Array(patches.rows * patches.cols);
  positions.forEach((position, place) => {
    if (position >= patches.prefix_tokens) numbers[position - patches.prefix_tokens] = values[place];
  });
  return numbers;
}

/**
 * @param {WhyView} view
 * @param {Grid} patches
 */
function mapOf({ why, scale: { end }, state }, patches) {
  const numbers = onPatches({ ...why, patches }).map((number) => Math.min(end, Math.max(-end, number)));
  const { rows, cols } = patches;
  const times = state.smooth ? Math.max(1, Math.floor(MAP_PIXELS / Math.max(rows, cols))) | 1 : 1; // odd
  const canvas = new OffscreenCanvas(cols * times, rows * times);
  const fine = times > 1 ? smoothed(numbers, cols, rows, times) : numbers;
  const table = signedTable(state.opacity ?? HEAT_OPACITY);
  paint(canvas, fine, table, (number) => Math.round(255 * signedShare(number, end)));
  return canvas;
}

/**
 * Draw the grey photo, the map over what the network saw, and frames around what is picked and what is pointed at.
 * @param {HTMLCanvasElement} canvas
 * @param {WhyView} view
 * @param {Grid} patches
 * @param {OffscreenCanvas} ground
 * @param {OffscreenCanvas} map
 */
function paintWhy(canvas, view, patches, ground, map) {
  const { why, state, pointed, picked } = view;
  const { left, top, right, bottom } = patches.box;
  const context = contextOf(canvas);
  const zoom = { x: canvas.width / patches.image_width, y: canvas.height / patches.image_height };
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(ground, 0, 0, canvas.width, canvas.height);
  context.setTransform(zoom.x, 0, 0, zoom.y, 0, 0);
  darken(context, patches);
  context.imageSmoothingEnabled = state.smooth;
  withinSeen(context, patches, () => {
    context.drawImage(map, left, top, right - left, bottom - top);
    const spokeFor = () => onPatches({ ...why, patches }).map((number) => Math.max(0, number));
    if (state.contour) outline(context, patches, spokeFor(), zoom, 2);
  });
  const marked = [...[...picked].map((place) => ({ place, pixels: 4 })), { place: pointed, pixels: 2 }];
  for (const { place, pixels } of marked) {
    const position = place === null ? -1 : why.positions[place];
    if (position >= patches.prefix_tokens) frame(context, rectOf(patches, position), zoom, "#fff", pixels);
  }
}

/**
 * The picture as an element that answers the pointer and keys.
 * @param {WhyEvents} events
 */
export function whyPhoto(events) {
  const canvas = make("canvas", {
    class: "why-photo",
    tabindex: "0",
    role: "application",
    "aria-label": "Photo with what each patch did for the label. Arrow keys move, Enter picks a patch to be covered.",
    "aria-describedby": "why-spoken",
  });
  /** @type {WhyView | null} */
  let view = null;
  /** @type {OffscreenCanvas | null} It stays while one points */
  let map = null;
  /** @param {number | null} position */
  const placeOf = (position) => {
    const place = position === null ? -1 : (view?.why.positions.indexOf(position) ?? -1);
    return place < 0 ? null : place;
  };
  /** @param {MouseEvent} event */
  const at = (event) => {
    const patches = view?.why.patches;
    if (!patches) return null;
    const { x, y } = pixelAt(canvas, event, patches);
    return placeOf(patchAt(patches, x, y));
  };
  canvas.addEventListener("pointermove", (event) => events.point(at(event)));
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && events.point(null));
  canvas.addEventListener("blur", () => events.point(null));
  canvas.addEventListener("click", (event) => {
    const place = at(event);
    if (place !== null) events.pick(place);
  });
  canvas.addEventListener("keydown", (event) => {
    if (!view?.why.patches) return;
    const { why, pointed } = view;
    const next = moved(view.why.patches, pointed === null ? "all" : why.positions[pointed], event.key);
    if (next !== null) events.point(placeOf(next));
    else if (["Enter", " "].includes(event.key) && pointed !== null) events.pick(pointed);
    else return;
    event.preventDefault();
  });
  return {
    node: canvas,
    /** @param {WhyView} next */
    draw(next) {
      const { why, ground, state } = next;
      const [before, shown, end] = [view, view?.state, view?.scale.end];
      view = next;
      if (!why.patches || !ground) return;
      if (before?.why !== why || shown?.smooth !== state.smooth || shown.opacity !== state.opacity) map = null;
      if (end !== next.scale.end) map = null;
      map ??= mapOf(next, why.patches);
      if (canvas.width !== ground.width || canvas.height !== ground.height)
        Object.assign(canvas, { width: ground.width, height: ground.height });
      paintWhy(canvas, next, why.patches, ground, map);
    },
  };
}
