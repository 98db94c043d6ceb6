// The page's calls to the explorer it came from; main.js and asking.js await them.

import { decode } from "./wire.js";

/** What went wrong: a gRPC status, PHOTO_GONE, EXPLORER_GONE or CANCELLED; when to try again; which server said so. */
export class Problem extends Error {
  constructor(code, message, retrySeconds = null, server = null) {
    super(message);
    Object.assign(this, { code, retrySeconds, server });
  }
}

/** { server, limits, models }. */
export async function fetchModels(signal) {
  return (await call("api/models", { signal })).json();
}

/** Give the explorer a photo: { photo: the name it keeps it under, orientation: as EXIF has it, 1 to 8, type }. */
export async function sendPhoto(blob, signal) {
  const headers = { "content-type": "application/octet-stream" };
  return (await call("api/photos", { method: "POST", body: blob, headers, signal })).json();
}

/** A photo that the explorer still holds: { blob, orientation, type }. */
export async function fetchPhoto(name, signal) {
  const answer = await call(`api/photos/${name}`, { signal });
  const [orientation, type] = [Number(answer.headers.get("orientation")), answer.headers.get("content-type")];
  return { blob: await answer.blob(), orientation, type };
}

/** Ask the server; the answer as wire.js describes it. */
export async function attend(question, signal) {
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(question);
  return decode(await (await call("api/attend", { method: "POST", body, headers, signal })).arrayBuffer());
}

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("EXPLORER_GONE", `no answer from ${location.origin}, where this page came from`);
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({ code: "INTERNAL", message: `HTTP status ${answer.status}` }));
  throw new Problem(said.code, said.message, said.retry_seconds ?? null, said.server ?? null);
}
