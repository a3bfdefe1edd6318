/**
 * Patience with a busy server: an attempt that it refuses for now is repeated after the delay that it names. This module
 * knows nothing of the document.
 */

import { ApiError } from "./api.js";

const WAIT_S = 1; // if the server names no delay

/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal]  ends the waiting
 * @property {number} [attempts]  without a limit by default: the user can stop
 * @property {() => boolean} [begun]  returns whether the attempt has had an effect, after which none follows
 * @property {(seconds: number) => void} [busy]  called before each pause
 */

/**
 * Return the result of `attempt`, which is repeated while the server answers 429.
 * @template T @param {() => Promise<T>} attempt @param {Options} [options] @returns {Promise<T>}
 */
export async function withPatience(attempt, { signal, attempts = Infinity, begun = () => false, busy = () => {} } = {}) {
  for (let left = attempts; ; left -= 1) {
    try {
      return await attempt();
    } catch (problem) {
      if (!(problem instanceof ApiError) || problem.status !== 429 || begun() || left <= 1) throw problem;
      const seconds = problem.retryAfter ?? WAIT_S;
      busy(seconds);
      await pause(seconds * 1000, signal);
    }
  }
}

/** Wait; an abort of `signal` throws its reason. @param {number} milliseconds @param {AbortSignal} [signal] */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    const leave = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { once: true });
  });
}

/** Return the sentence about the next attempt. @param {number} seconds */
export function busyText(seconds) {
  return `The server is busy; trying again in ${seconds} s …`;
}
