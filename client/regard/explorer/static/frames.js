// The page's own counter of frames: on where the address has "?frames" before its "#". Each frame that draws is a
// measure of the browser's own, "frame", beside which "draw" is the script's part of it.

import { byId } from "./dom.js";

const LAST = 300; // frames that are told of
const EVERY = 15; // frames

/**
 * A share of some numbers is at most this.
 * @param {number[]} numbers
 * @param {number} share
 */
const quantile = (numbers, share) =>
  numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(share * numbers.length))];

/**
 * What is to be called at the end of drawing, with the time at which the frame began; null where nothing is counted.
 * @returns {((began: number) => void) | null}
 */
export function frameCounter() {
  if (!new URLSearchParams(location.search).has("frames")) return null;
  const node = byId("frames");
  node.hidden = false;
  /** @type {number[]} */
  let frames = [];
  let count = 0;
  return (began) => {
    performance.measure("draw", { start: began });
    requestAnimationFrame((next) => {
      performance.measure("frame", { start: began, end: next });
      frames = [...frames.slice(1 - LAST), next - began];
      count += 1;
      if (count % EVERY) return;
      const [median, p95] = [0.5, 0.95].map((share) => quantile(frames, share).toFixed(1));
      node.textContent = `${count} frames; of the last ${frames.length}: median ${median} ms, p95 ${p95} ms`;
    });
  };
}
