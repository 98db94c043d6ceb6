// Decodes a photo as people see it: turned by its EXIF orientation, as the server turns it.

import { contextOf } from "./dom.js";

/** The longer edge of a photo as it is kept and drawn. */
export const MOST_PIXELS = 1040;
// Two pixels side by side that EXIF turns by 90 degrees, in base64. Every browser turns JPEG.
/** @type {Record<string, string>} */
const TURNED = {
  "image/png":
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAAAAADRSSBWAAAAGmVYSWZNTQAqAAAACAABARIAAwAAAAEABgAAAAAAANZnS2kAAAALSURBVHicY2Bg" +
    "AAAAAwABuK06YwAAAABJRU5ErkJggg==",
  "image/webp":
    "UklGRk4AAABXRUJQVlA4WAoAAAAIAAAAAQAAAAAAVlA4TA4AAAAvAQAAAAcQEf0PRET/A0VYSUYaAAAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAA" +
    "AAA=",
};

/**
 * How a canvas must be set so that a picture of this size, turned as EXIF says, 1 to 8, stands upright in it.
 * @param {number} orientation
 * @param {number} width
 * @param {number} height
 * @returns {[number, number, number, number, number, number]}
 */
export function uprightTransform(orientation, width, height) {
  /** @type {[number, number, number, number, number, number][]} */
  const transforms = [
    [1, 0, 0, 1, 0, 0],
    [-1, 0, 0, 1, width, 0],
    [-1, 0, 0, -1, width, height],
    [1, 0, 0, -1, 0, height],
    [0, 1, 1, 0, 0, 0],
    [0, 1, -1, 0, height, 0],
    [0, -1, -1, 0, height, width],
    [0, -1, 1, 0, 0, width],
  ];
  return transforms[orientation - 1];
}

/**
 * Whether this browser turns such files by their EXIF orientation itself: asked of two pixels that are to stand up.
 * @param {string} type
 */
async function turnsItself(type) {
  if (!TURNED[type]) return true;
  const bytes = Uint8Array.from(atob(TURNED[type]), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type }));
  return bitmap.height > bitmap.width;
}

/**
 * Decode a photo, upright and no larger than it is drawn; null where this browser cannot decode it.
 * @param {Blob} blob
 * @param {{ orientation: number, type: string }} stored
 */
export async function openPhoto(blob, { orientation, type }) {
  const stored = await createImageBitmap(blob).catch(() => null);
  if (!stored) return null;
  const turn = (await turnsItself(type)) ? 1 : orientation;
  const scale = Math.min(1, MOST_PIXELS / Math.max(stored.width, stored.height));
  const [width, height] = [stored.width, stored.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = turn > 4 ? new OffscreenCanvas(height, width) : new OffscreenCanvas(width, height);
  const context = contextOf(canvas);
  context.setTransform(...uprightTransform(turn, width, height));
  context.imageSmoothingQuality = "high";
  context.drawImage(stored, 0, 0, width, height);
  stored.close();
  return canvas;
}
