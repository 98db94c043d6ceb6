// The photo that the page holds: its file, its pixels, and the grey ground under the maps.

/** @import { Grid } from "../types.d.ts" */

import { byId, contextOf } from "./dom.js";
import { bareOf, groundOf } from "./photo.js";
import { openPhoto } from "./upright.js";

/** A photo, or none yet. */
export class HeldPhoto {
  /**
   * @param {"drop" | "beside-drop"} dropId Where it is dropped
   * @param {"thumb" | "beside-thumb"} thumbId Where it is seen in small
   */
  constructor(dropId, thumbId) {
    this.dropId = dropId;
    this.thumbId = thumbId;
    /** @type {Blob | null} */
    this.blob = null;
    /** @type {string | null} */
    this.name = null;
    /** @type {OffscreenCanvas | null} */
    this.picture = null;
    /** @type {{ of: string, canvas: OffscreenCanvas } | null} */
    this.ground = null;
  }

  /**
   * Take a photo, known to the explorer by a name, and show it in small; an AbortError where nobody waits any more.
   * @param {Blob} blob
   * @param {string} name
   * @param {{ orientation: number, type: string }} stored
   * @param {AbortSignal} signal
   */
  async take(blob, name, { orientation, type }, signal) {
    const picture = await openPhoto(blob, { orientation, type });
    signal.throwIfAborted();
    Object.assign(this, { blob, name, picture, ground: null });
    byId(this.dropId).classList.toggle("has-photo", Boolean(picture));
    if (picture) thumb(byId(this.thumbId), picture);
  }

  /**
   * The grey photo in the proportions that the server saw; kept until another is taken.
   * @param {Grid} patches
   */
  groundFor(patches) {
    const of = `${patches.image_width}x${patches.image_height}`;
    if (this.ground?.of !== of) this.ground = { of, canvas: groundOf(this.picture, patches) };
    return this.ground.canvas;
  }

  /**
   * The photo's own pixels, as far as they are kept, to be painted over: a small one is not enlarged.
   * @param {Grid} patches
   */
  copyFor(patches) {
    if (!this.picture) return bareOf(null, patches);
    const canvas = new OffscreenCanvas(this.picture.width, this.picture.height);
    contextOf(canvas).drawImage(this.picture, 0, 0);
    return canvas;
  }

  /**
   * The photo in colour, in the same proportions.
   * @param {Grid} patches
   */
  bareFor(patches) {
    return bareOf(this.picture, patches);
  }
}

/**
 * Show the middle of a picture in small, as wide as its place.
 * @param {HTMLCanvasElement} canvas
 * @param {OffscreenCanvas} picture
 */
function thumb(canvas, picture) {
  const scale = Math.max(canvas.width / picture.width, canvas.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  const context = contextOf(canvas);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}
