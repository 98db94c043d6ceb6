// The page's calls to the explorer it came from.

/** @import { Change, Question, Reply, Served, Why, WhyQuestion, WrittenPart } from "../types.d.ts" */

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

/** @typedef {(share: number) => void} Told What is told how much of something has been sent or received, from 0 to 1 */

/**
 * Give the explorer a photo: { photo: the name it keeps it under, orientation: as EXIF has it, 1 to 8, type }. An
 * XMLHttpRequest says how much has been sent; fetch does not.
 * @param {Blob} blob
 * @param {AbortSignal} signal
 * @param {Told} [told]
 * @returns {Promise<{ photo: string, orientation: number, type: string }>}
 */
export async function sendPhoto(blob, signal, told) {
  signal.throwIfAborted();
  const request = new XMLHttpRequest();
  const abort = () => request.abort();
  signal.addEventListener("abort", abort);
  try {
    const answer = await new Promise((resolve, reject) => {
      request.upload.addEventListener("progress", ({ loaded, total }) => total && told?.(loaded / total));
      request.addEventListener("load", () => resolve(new Response(request.response, { status: request.status })));
      request.addEventListener("error", () => reject(new TypeError("no answer")));
      request.addEventListener("abort", () => reject(signal.reason));
      request.open("POST", "api/photos");
      request.setRequestHeader("content-type", "application/octet-stream");
      request.send(blob);
    }).catch(gone);
    return (await checked(answer)).json();
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/**
 * A photo that the explorer still holds: { blob, orientation, type }.
 * @param {string} name
 * @param {AbortSignal} signal
 * @param {Told} [told]
 */
export async function fetchPhoto(name, signal, told) {
  const answer = await call(`api/photos/${name}`, { signal });
  const orientation = Number(answer.headers.get("orientation"));
  const type = answer.headers.get("content-type") ?? "";
  return { blob: new Blob([await received(answer, told)], { type }), orientation, type };
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
 * @param {Told} [told]
 * @returns {Promise<Reply>}
 */
export async function attend(question, signal, told) {
  return decode(await received(await post("api/attend", question, signal), told));
}

/**
 * The bytes of an answer, told how much of it has come where that is known.
 * @param {Response} answer
 * @param {Told} [told]
 * @returns {Promise<ArrayBuffer>}
 */
async function received(answer, told) {
  const isPacked = answer.headers.has("content-encoding"); // by whoever stands between; its size is another
  const size = isPacked ? 0 : Number(answer.headers.get("content-length"));
  if (!answer.body || !size || !told) return answer.arrayBuffer().catch(gone);
  const [bytes, reader] = [new Uint8Array(size), answer.body.getReader()];
  for (let at = 0; ; ) {
    const { done, value } = await reader.read().catch(gone);
    if (done) return bytes.buffer;
    bytes.set(value, at);
    at += value.length;
    told(at / size);
  }
}

/**
 * How the answer to another input differs.
 * @param {object} question
 * @param {AbortSignal} signal
 * @returns {Promise<Change>}
 */
export async function compare(question, signal) {
  return (await post("api/compare", question, signal)).json();
}

/**
 * Why a model gives a label to an input.
 * @param {WhyQuestion} question
 * @param {AbortSignal} signal
 * @returns {Promise<Why>}
 */
export async function explain(question, signal) {
  return (await post("api/explain", question, signal)).json();
}

/**
 * Let a model write; each line of the answer as it comes.
 * @param {Question} question
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<WrittenPart>}
 */
export async function* write(question, signal) {
  const answer = await post("api/write", question, signal);
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
 * Ask something in JSON.
 * @param {string} path
 * @param {object} question
 * @param {AbortSignal} signal
 */
function post(path, question, signal) {
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", body: JSON.stringify(question), headers, signal });
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>}
 */
async function call(path, options) {
  return checked(await fetch(path, options).catch(gone));
}

/**
 * An answer; what the explorer says went wrong is thrown.
 * @param {Response} answer
 */
async function checked(answer) {
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
