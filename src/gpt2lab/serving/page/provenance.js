/**
 * The origin and the end of a text in words: its model, settings and seed. This module knows nothing of the document.
 */

import { PARAMETERS } from "./stages.js";

/** @typedef {import("./branches.js").Run} Run */

/**
 * Return the temperature and the other sampling parameters that are on: "temperature 1.1, top-k 60".
 * @param {Record<string, number>} params
 */
export function settingsText(params) {
  const on = PARAMETERS.filter(({ name, default: initial }) => name === "temperature" || params[name] !== initial);
  return on.map(({ name, title }) => `${title.toLowerCase()} ${params[name]}`).join(", ");
}

/** Return the model, the settings and the seed of `run`. @param {Run} run */
export function madeBy({ tree, plan }) {
  return `${tree.origin.model}, ${settingsText(plan.params)}, seed ${plan.seed}`;
}

/**
 * Return a sentence on the origin of `run`, and on the model of the next text if that is another one.
 * @param {Run} run @param {import("./api.js").ModelCard[]} cards @param {import("./api.js").ModelCard} next
 */
export function provenance(run, cards, next) {
  const { model, fingerprint } = run.tree.origin;
  const by = `Written by ${madeBy(run)}.`;
  const served = cards.find(({ id }) => id === model);
  if (!served) return `${by} This server does not have ${model}: Continue uses ${next.id}.`;
  if (served.gpt2lab.fingerprint !== fingerprint) return `${by} This server has another version of ${model}.`;
  return next.id === model ? by : `${by} The next text will be written by ${next.id}.`;
}

/** Return a sentence on a run that has ended by itself. @param {Run} run */
export function endOf(run) {
  const last = run.drawn[run.drawn.length - 1]?.id;
  const why = last === run.tree.origin.endOfText ? ": the model ended its text" : "";
  return `Done, ${run.drawn.length} ${run.drawn.length === 1 ? "token" : "tokens"}${why}.`;
}
