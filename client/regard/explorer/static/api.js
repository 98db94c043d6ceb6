// The page's calls to the explorer it came from.

/** @import { Change, Question, Reply, Served, WrittenPart } from "../types.d.ts" */

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
 * A photograph that comes with the page.
 * @param {string} file
 * @param {AbortSignal} signal
 */
export const fetchSample = async (file, signal) => (await call(`static/${file}`, { signal })).blob();

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
 * How the answer to another input differs.
 * @param {object} question
 * @param {AbortSignal} signal
 * @returns {Promise<Change>}
 */
export async function compare(question, signal) {
  const headers = { "content-type": "application/json" };
  return (await call("api/compare", { method: "POST", body: JSON.stringify(question), headers, signal })).json();
}

/**
 * Let a model write; each line of the answer as it comes.
 * @param {Question} question
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<WrittenPart>}
 */
export async function* write(question, signal) {
  const headers = { "content-type": "application/json" };
  const answer = await call("api/write", { method: "POST", body: JSON.stringify(question), headers, signal });
  if (!answer.body) return;
  for await (const line of linesOf(answer.body)) {
    /** @type {WrittenPart} */
    const part = JSON.parse(line);
    if (part.problem) throw said(part.problem);
    yield part;
  }
}

/** @param {ReadableStream<Uint8Array<ArrayBuffer>>} body */
async function* linesOf(body) {
  const [reader, decoder] = [body.getReader(), new TextDecoder()];
  let begun = "";
  for (;;) {
    const { done, value } = await reader.read().catch(gone);
    if (done) return;
    const lines = (begun + decoder.decode(value, { stream: true })).split("\n");
    begun = lines.pop() ?? "";
    yield* lines;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>}
 */
async function call(path, options) {
  const answer = await fetch(path, options).catch(gone);
  if (answer.ok) return answer;
  throw said(await answer.json().catch(() => ({ code: "INTERNAL", message: `HTTP status ${answer.status}` })));
}

/**
 * No answer, or no more of it.
 * @param {unknown} error
 * @returns {never}
 */
function gone(error) {
  if (isAbort(error)) throw error;
  throw new Problem("EXPLORER_GONE", `no answer from ${location.origin}, where this page came from`);
}

/**
 * What the explorer says of a problem.
 * @param {{ code: string, message: string, retry_seconds?: number | null, server?: string }} problem
 */
const said = ({ code, message, retry_seconds, server }) =>
  new Problem(code, message, retry_seconds ?? null, server ?? null);
