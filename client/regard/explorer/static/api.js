// The page's calls to the explorer it came from.

/** @import { Question, Reply, Served } from "../types.d.ts" */

import { decode } from "./wire.js";

/** What went wrong: a gRPC status, PHOTO_GONE, EXPLORER_GONE or CANCELLED; when to try again; which server said so. */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {number | null} retrySeconds
   * @param {string | null} server
   */
  constructor(code, message, retrySeconds = null, server = null) {
    super(message);
    this.code = code;
    this.retrySeconds = retrySeconds;
    this.server = server;
  }
}

/**
 * Whether a wait was ended by whoever waited.
 * @param {unknown} error
 * @returns {boolean}
 */
export const isAbort = (error) => error instanceof Error && error.name === "AbortError";

/**
 * What went wrong as a Problem; a fault of the page itself is INTERNAL.
 * @param {unknown} error
 */
export function problemOf(error) {
  if (error instanceof Problem) return error;
  return new Problem("INTERNAL", error instanceof Error ? error.message : String(error));
}

/**
 * What is served, by whom, and what the explorer takes.
 * @param {AbortSignal} signal
 * @returns {Promise<Served>}
 */
export async function fetchModels(signal) {
  return (await call("api/models", { signal })).json();
}

/**
 * Give the explorer a photo: { photo: the name it keeps it under, orientation: as EXIF has it, 1 to 8, type }.
 * @param {Blob} blob
 * @param {AbortSignal} signal
 * @returns {Promise<{ photo: string, orientation: number, type: string }>}
 */
export async function sendPhoto(blob, signal) {
  const headers = { "content-type": "application/octet-stream" };
  return (await call("api/photos", { method: "POST", body: blob, headers, signal })).json();
}

/**
 * A photo that the explorer still holds: { blob, orientation, type }.
 * @param {string} name
 * @param {AbortSignal} signal
 */
export async function fetchPhoto(name, signal) {
  const answer = await call(`api/photos/${name}`, { signal });
  const orientation = Number(answer.headers.get("orientation"));
  return { blob: await answer.blob(), orientation, type: answer.headers.get("content-type") ?? "" };
}

/**
 * Ask the server; the answer as wire.js describes it.
 * @param {Question} question
 * @param {AbortSignal} signal
 * @returns {Promise<Reply>}
 */
export async function attend(question, signal) {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(question);
  return decode(await (await call("api/attend", { method: "POST", body, headers, signal })).arrayBuffer());
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>}
 */
async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Problem("EXPLORER_GONE", `no answer from ${location.origin}, where this page came from`);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({ code: "INTERNAL", message: `HTTP status ${answer.status}` }));
  throw new Problem(said.code, said.message, said.retry_seconds ?? null, said.server ?? null);
}
