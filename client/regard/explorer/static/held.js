// The photo that the page holds: its file, its pixels, and the grey ground under the maps; main.js owns one.

import { byId } from "./dom.js";
import { groundOf } from "./photo.js";
import { openPhoto } from "./upright.js";

/** A photo, or none yet. */
export class HeldPhoto {
  constructor() {
    this.blob = null;
    this.name = null;
    this.picture = null;
    this.ground = null;
  }

  /** Take a photo, known to the explorer by a name, and show it in small; an AbortError where nobody waits any more. */
  async take(blob, name, { orientation, type }, signal) {
    const picture = await openPhoto(blob, { orientation, type });
    signal.throwIfAborted();
    Object.assign(this, { blob, name, picture, ground: null });
    byId("drop").classList.toggle("has-photo", Boolean(picture));
    if (picture) thumb(picture);
  }

  /** The grey photo in the proportions that the server saw; kept until another is taken. */
  groundFor({ image_width: width, image_height: height }) {
    if (this.ground?.of !== `${width}x${height}`) {
      this.ground = {
        of: `${width}x${height}`,
        canvas: groundOf(this.picture, { image_width: width, image_height: height }),
      };
    }
    return this.ground.canvas;
  }
}

/** Show the middle of a picture in small, as wide as its place. */
function thumb(picture) {
  const canvas = byId("thumb");
  const scale = Math.max(canvas.width / picture.width, canvas.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}
