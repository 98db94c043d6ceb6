// A photo with one row of attention over it: drawn, pointed at, moved over by keys.

/** @import { Grid, PhotoReply, PhotoView, PictureEvents, Rect, Scale } from "../types.d.ts" */

import { DIMMED, heatTable, paint } from "./colour.js";
import { CONTOUR_SHARE, edgesOf, holdingMass } from "./contour.js";
import { contextOf, make } from "./dom.js";
import { isPinned, patchAt, prefixOf, rectOf, seenOf } from "./places.js";
import { placer, smoothed } from "./scales.js";
import { MOST_PIXELS } from "./upright.js";

const MAP_PIXELS = 256; // of the longer side, however large it is drawn

/**
 * A photo in the proportions that the server saw, at the size at which it is drawn.
 * @param {OffscreenCanvas | null} picture
 * @param {Grid} patches
 */
export function bareOf(picture, patches) {
  const scale = MOST_PIXELS / Math.max(patches.image_width, patches.image_height);
  const [width, height] = [patches.image_width, patches.image_height].map((side) =>
    Math.max(1, Math.round(side * scale)),
  );
  const canvas = new OffscreenCanvas(width, height);
  const context = contextOf(canvas);
  context.fillStyle = "#777";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  if (picture) context.drawImage(picture, 0, 0, width, height);
  return canvas;
}

/**
 * The same grey and darker: the ground for every map over it.
 * @param {OffscreenCanvas | null} picture
 * @param {Grid} patches
 */
export function groundOf(picture, patches) {
  const canvas = bareOf(picture, patches);
  const context = contextOf(canvas);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < image.data.length; at += 4) {
    const [red, green, blue] = image.data.subarray(at, at + 3);
    image.data.fill((0.299 * red + 0.587 * green + 0.114 * blue) * DIMMED, at, at + 3);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * The weights of a row as colours: one pixel a patch, or where the map is smooth some more, an odd number in a row, so
 * that one has the patch's own colour. To be drawn before the next map is asked for.
 * @param {PhotoReply} reply
 * @param {Float32Array} row
 * @param {Scale} scale
 * @param {number} pixels
 */
function mapOf(reply, row, scale, pixels) {
  const { rows, cols } = reply.patches;
  // What lies beyond the end would else spread while it is smoothed.
  const weights = row.subarray(prefixOf(reply)).map((weight) => Math.min(weight, scale.end));
  const most = Math.floor(Math.min(MAP_PIXELS, pixels) / Math.max(rows, cols)); // pixels a patch
  const times = scale.smooth ? Math.max(1, most - 1 + (most % 2)) : 1;
  const canvas = canvasOf(cols * times, rows * times);
  paint(canvas, times > 1 ? smoothed(weights, cols, rows, times) : weights, heatTable(scale.opacity), placer(scale));
  return canvas;
}

/** @type {Map<string, OffscreenCanvas>} One for each size of a map */
const canvases = new Map();
const MAX_CANVASES = 8;

/**
 * A canvas of a size, drawn anew by everybody who asks for it.
 * @param {number} width
 * @param {number} height
 */
function canvasOf(width, height) {
  const size = `${width}x${height}`;
  const known = canvases.get(size);
  if (known) return known;
  if (canvases.size === MAX_CANVASES) canvases.clear();
  const canvas = new OffscreenCanvas(width, height);
  canvases.set(size, canvas);
  return canvas;
}

/**
 * Draw the ground, the map over what the network saw, and a frame around the patch that looks.
 * `part` is the rectangle of the photo to show, in its pixels; without it all, dark where the network saw nothing.
 * @param {HTMLCanvasElement} canvas
 * @param {Pick<PhotoView, "reply" | "row" | "query" | "key" | "ground" | "bare" | "scale"> & { part?: Rect }} view
 */
export function paintPhoto(canvas, { reply, row, query, key, ground, bare, scale, part }) {
  const { patches } = reply;
  const { left, top, right, bottom } = patches.box;
  const view = part ?? { x: 0, y: 0, width: patches.image_width, height: patches.image_height };
  const context = contextOf(canvas);
  const zoom = { x: canvas.width / view.width, y: canvas.height / view.height };
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.drawImage(fitting(bare ?? ground, patches, view, canvas), 0, 0);
  context.setTransform(zoom.x, 0, 0, zoom.y, -view.x * zoom.x, -view.y * zoom.y);
  if (!part) darken(context, patches);
  context.imageSmoothingEnabled = scale.smooth;
  context.imageSmoothingQuality = "low"; // "high" blurs
  withinSeen(context, patches, () => {
    if (!bare) context.drawImage(mapOf(reply, row, scale, canvas.width), left, top, right - left, bottom - top);
    if (scale.contour) outline(context, patches, row.subarray(prefixOf(reply)), zoom, part ? 1 : 2);
  });
  if (isPinned(reply, query)) frame(context, rectOf(patches, query), zoom, "#fff", part ? 1.5 : 3);
  if (key !== null && key !== query && key >= prefixOf(reply)) frame(context, rectOf(patches, key), zoom, "#7fd8ff", 2);
}

/**
 * Draw on that part of a photo which the network saw, and on nothing else.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {Grid} patches
 * @param {() => void} draw
 */
export function withinSeen(context, patches, draw) {
  const { left, top, right, bottom } = seenOf(patches);
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  draw();
  context.restore();
}

/**
 * Where the pointer is on a canvas that shows a whole photo, in the photo's pixels.
 * @param {HTMLCanvasElement} canvas
 * @param {MouseEvent} event
 * @param {Grid} patches
 */
export function pixelAt(canvas, { clientX, clientY }, { image_width, image_height }) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return { x: ((clientX - left) / width) * image_width, y: ((clientY - top) / height) * image_height };
}

/** @type {WeakMap<OffscreenCanvas, Map<string, OffscreenCanvas>>} Parts of a photo as large as they were drawn */
const fitted = new WeakMap();

/**
 * A part of a photo that is as large as what it is drawn on: resized well once, since that takes longer than all else.
 * @param {OffscreenCanvas} photo
 * @param {Grid} patches
 * @param {Rect} part In the photo's pixels
 * @param {{ width: number, height: number }} size
 */
function fitting(photo, { image_width }, { x, y, width, height }, size) {
  if (width === image_width && size.width === photo.width && size.height === photo.height) return photo;
  const scale = photo.width / image_width;
  const sizes = fitted.get(photo) ?? new Map();
  fitted.set(photo, sizes);
  const key = [x, y, width, height, size.width, size.height].join();
  const known = sizes.get(key);
  if (known) return known;
  const canvas = new OffscreenCanvas(size.width, size.height);
  const context = contextOf(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, x * scale, y * scale, width * scale, height * scale, 0, 0, size.width, size.height);
  sizes.set(key, canvas);
  return canvas;
}

/**
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {Grid} patches
 */
export function darken(context, patches) {
  const { image_width: width, image_height: height } = patches;
  const box = seenOf(patches);
  context.fillStyle = "rgb(12 12 16 / 65%)";
  context.fillRect(0, 0, width, box.top);
  context.fillRect(0, box.bottom, width, height - box.bottom);
  context.fillRect(0, box.top, box.left, box.bottom - box.top);
  context.fillRect(box.right, box.top, width - box.right, box.bottom - box.top);
}

/**
 * A line around the patches that hold most of a map, white on a dark rim.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {Grid} patches
 * @param {Float32Array} numbers
 * @param {{ x: number }} scale
 * @param {number} pixels
 */
export function outline(context, patches, numbers, scale, pixels) {
  const path = new Path2D();
  for (const [x, y, toX, toY] of edgesOf(holdingMass(numbers, CONTOUR_SHARE), patches)) {
    path.moveTo(x, y);
    path.lineTo(toX, toY);
  }
  context.lineCap = "square";
  for (const [stroke, thick] of /** @type {const} */ ([
    ["#000", 2.2 * pixels],
    ["#fff", pixels],
  ])) {
    Object.assign(context, { strokeStyle: stroke, lineWidth: thick / scale.x });
    context.stroke(path);
  }
}

/**
 * A line that stands out on any ground: the colour, with black beside it.
 * @param {OffscreenCanvasRenderingContext2D} context
 * @param {Rect} rect
 * @param {{ x: number }} scale
 * @param {string} colour
 * @param {number} pixels
 */
export function frame(context, { x, y, width, height }, scale, colour, pixels) {
  const line = pixels / scale.x;
  for (const { stroke, thick } of [
    { stroke: "#000", thick: line * 2 },
    { stroke: colour, thick: line },
  ]) {
    context.strokeStyle = stroke;
    context.lineWidth = thick;
    context.strokeRect(x, y, width, height);
  }
}

/**
 * The picture as an element that answers the pointer and keys. `events`: point(position or null), pin(position),
 * key(name), true where it was used, release().
 * @param {PictureEvents} events
 */
export function photoView(events) {
  const canvas = make("canvas", {
    class: "photo",
    tabindex: "0",
    role: "application",
    "aria-label":
      "Photo with attention over it. Arrow keys move the patch that looks, Enter pins it, Escape releases it.",
    "aria-describedby": "spoken",
  });
  /** @type {PhotoView | null} */
  let view = null;
  /**
   * @param {MouseEvent} event
   * @returns {[position: number | null, first?: number | null]}
   */
  const at = (event) => {
    if (!view) return [null];
    const { x, y } = pixelAt(canvas, event, view.reply.patches);
    return [patchAt(view.reply.patches, x, y), view.home ? patchAt(view.home, x, y) : undefined];
  };
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") events.point(...at(event));
    else events.scrub(...at(event));
  });
  canvas.addEventListener("pointerup", (event) => {
    const [position, first] = at(event);
    if (event.pointerType !== "mouse" && position !== null) events.pin(position, first);
  });
  canvas.addEventListener("pointerleave", () => events.point(null));
  canvas.addEventListener("blur", () => events.point(null));
  canvas.addEventListener("click", (event) => {
    const [position, first] = at(event);
    if (position === null) events.release();
    else events.pin(position, first);
  });
  canvas.addEventListener("keydown", (event) => events.key(event.key) && event.preventDefault());
  return {
    node: canvas,
    /** @param {PhotoView} next */
    draw(next) {
      view = next;
      const { width, height } = next.ground;
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      paintPhoto(canvas, next);
    },
  };
}
