// Files as they are given: what is no photo that a server takes, and pasted pictures that one can see through.

import { Problem } from "./api.js";
import { contextOf } from "./dom.js";

const FIRST_BYTES = 16;
/** How files of other kinds begin. @type {[kind: string, pattern: RegExp][]} */
const OTHERS = [
  ["HEIC", /^.{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)/s],
  ["AVIF", /^.{4}ftypavi[fs]/s],
  ["GIF", /^GIF8/],
  ["TIFF", /^(II\*\0|MM\0\*)/],
  ["BMP", /^BM/],
  ["PDF", /^%PDF/],
  ["SVG", /^\s*<(svg|\?xml)/],
];

/**
 * What is wrong with a file that is given as a photo, or null.
 * @param {Blob} blob
 * @param {number} maxBytes
 */
export async function faultOf(blob, maxBytes) {
  if (blob.size > maxBytes)
    return new Problem("RESOURCE_EXHAUSTED", `photo: ${blob.size} bytes; expected at most ${maxBytes}`);
  const start = new TextDecoder("latin1").decode(await blob.slice(0, FIRST_BYTES).arrayBuffer());
  const kind = OTHERS.find(([, pattern]) => pattern.test(start))?.[0];
  return kind ? new Problem("FILE_KIND", `photo: ${kind}; expected JPEG, PNG or WebP`) : null;
}

/**
 * A pasted picture on white where one can see through it: the server takes colours as they are, and those of pixels that
 * nobody sees may be any. Else the same.
 * @param {Blob} blob
 */
export async function flattened(blob) {
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (!bitmap) return blob;
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = contextOf(canvas);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  if (!data.some((value, at) => at % 4 === 3 && value < 255)) return blob;
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/png" });
}
