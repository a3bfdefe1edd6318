/**
 * The server's events about its runs, for as long as the page is open: a connection that is lost, silent or refused is
 * tried again, each time a little later.
 *
 * Not the browser's own EventSource, which cannot bring a key.
 */

import { ApiError, headers } from "./api.js";

export const SILENCE_MS = 40_000; // the server says something every 15 seconds
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;

/**
 * @param {object} to
 * @param {(event: string, data: object) => void} to.take  an event
 * @param {(state: "connecting"|"live"|"lost"|"key", seconds?: number) => void} to.tell  how the connection is; when it
 *     is lost, after how many seconds it is tried again
 * @param {() => Promise<boolean>} to.ask  the server asks for a key: whether there is one now
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
      failures += 1; // it ended in good order: the server is being stopped
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

/** One connection. Throws when it is lost, refused, or silent for too long. */
async function listen(take) {
  const controller = new AbortController();
  let watchdog = 0;
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => controller.abort(), SILENCE_MS);
  };
  alive();
  try {
    const answer = await fetch("watch/events", { headers: headers(), cache: "no-store", signal: controller.signal });
    if (!answer.ok) throw new ApiError(`The server answered with status ${answer.status}.`, { status: answer.status });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) deliver(part, take);
    }
  } finally {
    clearTimeout(watchdog);
    controller.abort();
  }
}

function deliver(part, take) {
  const lines = part.split("\n");
  const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  take(field("event"), JSON.parse(field("data")));
}

/** Wait, but no longer than until the network or the reader is back. */
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
