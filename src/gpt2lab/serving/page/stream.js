/**
 * Draws a run: sends the request, retries while the server is busy, and takes the tokens as they come. This module
 * knows nothing of the document.
 */

import { ApiError, complete } from "./api.js";
import { withPatience } from "./patience.js";

/** @typedef {import("./branches.js").Run} Run */

const ATTEMPTS = 6; // while the server is busy

/**
 * Draw `run` from the beginning until it is done, stopped or failed.
 * @param {Run} run
 * @param {object} [options]
 * @param {AbortSignal} [options.signal]  stops it; what is drawn stays
 * @param {() => void} [options.changed]  called whenever there is something new to show
 * @param {(seconds: number) => void} [options.busy]  called when the server is busy; the next attempt is after `seconds`
 * @returns {Promise<ApiError|null>} the failure, or null
 */
export async function draw(run, { signal, changed = () => {}, busy = () => {} } = {}) {
  run.reset();
  run.state = "waiting";
  changed();
  try {
    await withPatience(() => drawOnce(run, signal, changed), { signal, attempts: ATTEMPTS, begun: () => run.drawn.length > 0, busy });
    run.state = "done";
    return null;
  } catch (problem) {
    return ended(run, problem, signal);
  } finally {
    changed();
  }
}

/**
 * End `run` after a stop or a failure. A stopped run's limit becomes its length, so that it can be drawn again.
 * @param {Run} run @param {unknown} problem @param {AbortSignal} [signal]
 */
function ended(run, problem, signal) {
  if (signal?.aborted) {
    run.state = "stopped";
    run.plan.limit = Math.max(1, run.drawn.length);
    return null;
  }
  if (!(problem instanceof ApiError)) throw problem;
  run.state = "failed";
  run.problem = problem.message;
  return problem;
}

/** @param {Run} run @param {AbortSignal | undefined} signal @param {() => void} changed */
async function drawOnce(run, signal, changed) {
  const asked = performance.now();
  for await (const piece of complete(requestOf(run), { signal })) {
    const now = performance.now();
    if (piece.tokens.length) {
      run.firstTokenMs ??= now - asked;
      run.drawingMs = now - asked - run.firstTokenMs;
      run.state = "drawing";
      run.push(piece.tokens);
    }
    run.timings = piece.timings ?? run.timings;
    run.fingerprint = piece.fingerprint ?? run.fingerprint;
    changed();
  }
}

/** Return the body of the request that draws `run`. @param {Run} run */
function requestOf(run) {
  const { params, seed, limit } = run.plan;
  const { prompt } = run;
  return { model: run.tree.origin.model, prompt: prompt.length ? prompt : "", max_tokens: limit, seed, ...params };
}
