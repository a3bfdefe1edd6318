/**
 * The state of a run in words, and the links to its model in the playground.
 */

import { byId, element } from "./elements.js";
import { ago, count, lossText } from "./watch_run.js";

/** @typedef {import("./watch_run.js").Run} Run */
/** @typedef {import("./watch_run.js").Facts} Facts */

/** Return the state in a few words, with the reason if training has ended. @param {Facts} facts @param {number} now */
export function stateOf({ state = "", reading, reason, changed_at: changedAt }, now) {
  if (reading !== null && reading !== undefined) return `reading the file: ${Math.floor(100 * reading)} %`;
  /** @type {Record<string, string>} */
  const words = {
    waiting: "not there yet",
    starting: "about to begin",
    running: "in training",
    finished: "finished",
    stopped: "stopped",
    diverged: "diverged",
    failed: "failed",
    quiet: `quiet for ${ago(now - (changedAt ?? 0))}`,
    gone: "its folder is gone",
  };
  return reason ? `${words[state] ?? state}: ${reason}` : (words[state] ?? "");
}

/** Return what the user should know or do; "" if nothing. @param {Run} run */
export function noteOf(run) {
  const { state = "", problem, unread } = run.facts;
  if (problem) return `The server ${problem}.`;
  /** @type {Record<string, string>} */
  const words = {
    waiting: `${run.name} does not exist yet. This page waits for it; gpt2lab train --run_name ${run.name.split("/").at(-1)} starts it.`,
    starting: `${run.name} has no updates yet. Reading the text and the first update may take a while.`,
    gone: "The folder of this run no longer exists. Its figures stay here until you close the page or a new run begins there.",
    stopped: "The training process ended before the last update. Run the same command again to continue from the last saved state.",
    failed: "Once the cause is removed, run the same command again to continue from the last saved state.",
  };
  if (words[state]) return words[state];
  return unread ? `${count(unread)} lines of metrics.jsonl could not be read and are left out.` : "";
}

/** Return the title of the page. @param {Run} [run] */
export function titleOf(run) {
  const { step, last_step: last, loss } = run?.facts ?? {};
  if (!run || !step) return "gpt2lab: training";
  return `${step}${last ? `/${last}` : ""} · ${lossText(loss ?? NaN)} · ${run.name}`;
}

/** Show the links to the run's model in the playground. @param {Facts} facts */
export function showLinks({ served, best }) {
  const place = byId("model-links");
  const key = JSON.stringify([served, best]);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.hidden = !served && !best;
  if (!served) {
    place.replaceChildren("The playground has no model of this run: a server that you start now, without --model_name, has it.");
    return;
  }
  const { model, base, newer } = served;
  const which = newer ? "an earlier checkpoint" : "this checkpoint";
  /** @type {(Node | string)[]} */
  const links = [link(`Open ${which} in the playground`, { model })];
  if (base) links.push(" · ", link(`compare with the base, ${base}`, { model, beside: base }));
  if (newer) links.push(". The run has a newer model since the server started: start it again to open that.");
  else if (best) links.push(`. It is the best so far, of update ${count(best.step)}.`);
  place.replaceChildren(...links);
}

/** @param {string} words @param {Record<string, string>} query */
function link(words, query) {
  return element("a", { href: `./?${new URLSearchParams(query)}` }, words);
}
