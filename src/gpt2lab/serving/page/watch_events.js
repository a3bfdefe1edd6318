/**
 * The server's events about its runs, as long as the page is open. After a connection is lost, silent or refused, the page
 * connects again, each time a little later.
 */

import { ApiError, events, request } from "./api.js";

const SILENCE_MS = 40_000; // the server sends something every 15 seconds
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;

/**
 * @param {object} to
 * @param {(event: string, data: any) => void} to.take  called with each event
 * @param {(state: "connecting"|"live"|"lost"|"key", seconds?: number) => void} to.tell  called with the state of the
 *     connection and, when it is lost, the seconds until the next attempt
 * @param {() => Promise<boolean>} to.ask  called when the server asks for a key; returns whether there is one now
 */
export async function follow({ take, tell, ask }) {
  for (let failures = 0; ; ) {
    if (!failures) tell("connecting");
    try {
      await listen((event, data) => {
        if (failures || event === "runs") tell("live");
        failures = 0;
        take(event, data);
      });
      failures += 1; // it ended normally: the server is stopping
    } catch (problem) {
      if (problem instanceof ApiError && problem.status === 401) {
        tell("key");
        if (!(await ask())) return;
        continue;
      }
      failures += 1;
    }
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (failures - 1));
    tell("lost", Math.round(wait / 1000));
    await pause(wait);
  }
}

/**
 * Read one connection's events. Throws when it is lost, refused, or silent for too long.
 * @param {(event: string, data: any) => void} take
 */
async function listen(take) {
  const controller = new AbortController();
  let watchdog = 0;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => controller.abort(), SILENCE_MS);
  };
  heard();
  try {
    const answer = await request("watch/events", { cache: "no-store", signal: controller.signal });
    for await (const { event, data } of events(answer, { heard })) take(event, JSON.parse(data));
  } finally {
    clearTimeout(watchdog);
    controller.abort();
  }
}

/**
 * Wait, but only until the network or the user is back.
 * @param {number} milliseconds @returns {Promise<void>}
 */
function pause(milliseconds) {
  return new Promise((resolve) => {
    const back = () => {
      if (!document.hidden) end();
    };
    const timer = setTimeout(end, milliseconds);
    function end() {
      clearTimeout(timer);
      removeEventListener("online", end);
      document.removeEventListener("visibilitychange", back);
      resolve();
    }
    addEventListener("online", end);
    document.addEventListener("visibilitychange", back);
  });
}
