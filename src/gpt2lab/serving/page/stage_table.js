/**
 * The next token, stage by stage: a table with a column for each stage of sampling and a bar for each of the likeliest
 * tokens, each stage's cut and entropy, and below it the draw: the stretch of [0, 1) into which its number fell.
 *
 * Everything is computed here from the logits, so that moving a slider needs nothing from the server.
 */

import { bar, element } from "./elements.js";
import { cutBy, draw, likeliest, measured, stages as stagesOf, stretch } from "./sampling.js";
import { PARAMETERS, STAGES } from "./stages.js";
import { probabilityText } from "./token_spans.js";
import { tokenLabel, tokenName } from "./vocabulary.js";

const TOP = 10; // rows for the likeliest tokens of the model
const TOP_LEFT = 3; // and for the likeliest after the last stage, where penalties moved others up
/** @type {Record<string, string>} */
const TITLES = { model: "model", ...STAGES };

/**
 * @typedef {object} Place
 * @property {ArrayLike<number>} logits  [n_vocab], of the unmodified model
 * @property {import("./sampling.js").SamplingParams} params
 * @property {number[]} history  ids before the place, for the penalties
 * @property {string[]} vocabulary
 * @property {number | null} u  the random number of the draw; null if there is none yet
 * @property {number | null} chosen  the id at the place
 * @property {Stage[]} [stages]  of these logits and parameters, if already known
 *
 * @typedef {import("./sampling.js").Stage} Stage
 * @typedef {import("./sampling.js").Measure} Measure
 *
 * @typedef {object} View
 * @property {Stage[]} stages
 * @property {Measure[]} measures
 * @property {Record<string, any>} params
 * @property {string[]} vocabulary
 * @property {number | null} chosen
 * @property {Draw | null} draw  null if the random number is not known yet
 * @property {import("./sampling.js").Doubles} left  probabilities after the last stage
 *
 * @typedef {{u: number, id: number}} Draw  a number and the token that it draws
 * @typedef {{name: string, setting: string, at: number, stage: Stage | null, measure: Measure | null}} Column  at: index of
 *   the stage; if the stage is off, `at` is -1 and the others are null
 */

export class StageTable {
  #host;
  #wide = element("div.stage-table-scroll", { tabindex: 0, role: "region", "aria-label": "Stages of sampling" });
  #below = element("div");

  /** @param {HTMLElement} host  the table takes it over */
  constructor(host) {
    this.#host = host;
    host.classList.add("stage-table");
    this.clear();
  }

  clear() {
    this.#host.replaceChildren(
      element("p.hint", {}, "Point at a token, or move to it with the arrow keys, to see how it was drawn."),
    );
  }

  /** @param {Place} place */
  show({ logits, params, history, vocabulary, u, chosen, stages = stagesOf(logits, params, history) }) {
    const left = stages[stages.length - 1].probabilities;
    const drawn = u === null ? null : { u, id: draw(left, u) };
    const view = { stages, measures: measured(stages), params, vocabulary, chosen, draw: drawn, left };
    const rows = rowsOf(view);
    this.#wide.replaceChildren(table(view, rows));
    this.#below.replaceChildren(...drawOf(view, rows));
    if (!this.#wide.isConnected) this.#host.replaceChildren(this.#wide, this.#below); // once: keeps focus and scroll
  }
}

/** Return the ids of the rows, the model's likeliest first. @param {View} view */
function rowsOf({ stages, left, chosen, draw: drawn }) {
  const model = stages[0].probabilities;
  const ids = new Set([...likeliest(model, TOP), ...likeliest(left, TOP_LEFT)]);
  if (chosen !== null) ids.add(chosen);
  if (drawn) ids.add(drawn.id);
  return [...ids].filter((id) => model[id] > 0 || id === chosen).sort((a, b) => model[b] - model[a] || a - b);
}

// ---- the table ------------------------------------------------------------------------------------------------------

/** @param {View} view @param {number[]} rows */
function table(view, rows) {
  const columns = columnsOf(view);
  const longest = Math.max(...view.stages.flatMap(({ probabilities }) => rows.map((id) => probabilities[id])));
  const others = view.left.length - rows.length;
  return element(
    "table",
    {},
    element("caption.visually-hidden", {}, "Probability of the likeliest tokens after each stage of sampling"),
    element("colgroup", {}, element("col.token"), ...columns.map(({ stage }) => element(stage ? "col.on" : "col.off"))),
    element("thead", {}, element("tr", {}, element("td"), ...columns.map(heading))),
    element("tbody", {}, ...rows.map((id) => tokenRow(view, columns, id, longest))),
    element(
      "tfoot",
      {},
      row(`${count(others)} others`, columns, (_, stage) => probabilityText(restOf(stage, rows))),
      row("left", columns, ({ kept }) => `${count(kept)} tokens`),
      row("cut here", columns, cutText),
      row("entropy", columns, ({ entropy }) => `${entropy.toFixed(2)} nats`),
    ),
  );
}

/** Return a column for each possible stage. @param {View} view @returns {Column[]} */
function columnsOf({ stages, measures, params }) {
  const settable = new Set(["model", ...PARAMETERS.map(({ stage }) => stage)]);
  const names = Object.keys(TITLES).filter((name) => settable.has(name) || stages.some((stage) => stage.name === name));
  return names.map((name) => {
    const at = stages.findIndex((stage) => stage.name === name);
    return { name, setting: settingOf(name, params), stage: stages[at] ?? null, measure: measures[at] ?? null, at };
  });
}

/** @param {string} name @param {Record<string, any>} params */
function settingOf(name, params) {
  if (name !== "penalties") return params[name] === undefined ? "" : String(params[name]);
  const { repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0 } = params;
  const parts = [
    repetition_penalty === 1 ? "" : `×${repetition_penalty}`,
    presence_penalty === 0 ? "" : `−${presence_penalty}`,
    frequency_penalty === 0 ? "" : `−${frequency_penalty}·n`,
  ];
  return parts.filter(Boolean).join(" ").replaceAll("−-", "+");
}

/** @param {Column} column */
function heading({ name, setting, stage }) {
  const value = stage ? setting || "\u00a0" : "off";
  return element(
    stage ? "th" : "th.off",
    { scope: "col", "data-stage": name },
    TITLES[name],
    element("small", {}, value),
  );
}

/** @param {View} view @param {Column[]} columns @param {number} id @param {number} longest */
function tokenRow(view, columns, id, longest) {
  const isDrawn = id === view.draw?.id;
  const label = element("th", { scope: "row" }, element("code", {}, tokenLabel(view.vocabulary, id)));
  if (isDrawn) label.append(element("small.drawn", {}, "drawn"));
  else if (id === view.chosen) label.append(element("small", {}, "here"));
  const cutAt = view.stages.findIndex(({ name }) => name === cutBy(view.stages, id));
  const cells = columns.map(({ stage, at }) => {
    if (!stage) return element("td.off", {}, "·");
    if (cutAt >= 0 && at >= cutAt) return element("td.cut", {}, at === cutAt ? "✕ cut" : "–");
    const probability = stage.probabilities[id];
    return element("td", {}, probabilityText(probability), bar(probability / longest));
  });
  const state = isDrawn ? "tr.is-drawn" : id === view.chosen ? "tr.is-chosen" : "tr";
  return element(state, { "data-id": id }, label, ...cells);
}

/** @param {string} title @param {Column[]} columns @param {(measure: Measure, stage: Stage) => string} textOf */
function row(title, columns, textOf) {
  const cells = columns.map(({ measure, stage }) =>
    measure && stage ? element("td", {}, textOf(measure, stage)) : element("td.off", {}, "·"),
  );
  return element("tr", {}, element("th", { scope: "row" }, title), ...cells);
}

/** @param {Measure} measure */
function cutText({ cut, cutProbability }) {
  return cut ? `${probabilityText(cutProbability)}: ${count(cut)} tokens` : "–";
}

/** @param {Stage} stage @param {number[]} rows */
function restOf({ probabilities }, rows) {
  return Math.max(0, 1 - rows.reduce((sum, id) => sum + probabilities[id], 0));
}

// ---- the draw -------------------------------------------------------------------------------------------------------

/** @param {View} view @param {number[]} rows */
function drawOf(view, rows) {
  if (!view.draw) return [element("p.draw", {}, "No seed is set, so the random number for this token is not known yet.")];
  return [element("p.draw", {}, ...sentence(view, view.draw)), line(view, view.draw, rows)];
}

/** @param {View} view @param {Draw} draw */
function sentence({ chosen, vocabulary, left }, { u, id: drawn }) {
  const [low, high] = stretch(left, drawn);
  const quoted = (/** @type {number} */ id) => element("code", {}, tokenLabel(vocabulary, id));
  /** @type {(string | Node)[]} */
  const parts = ["The number ", element("b", {}, u.toFixed(6)), " draws ", quoted(drawn)];
  parts.push(
    `, which covers ${low.toFixed(4)} to ${high.toFixed(4)} on the line below (${probabilityText(left[drawn])}).`,
  );
  if (chosen !== null && chosen !== drawn) parts.push(" The text has ", quoted(chosen), " here.");
  return parts;
}

/**
 * Draw the line from 0 to 1: tokens in order of their ids, each as long as its probability, and the number on it.
 * @param {View} view @param {Draw} draw @param {number[]} rows
 */
function line({ left, vocabulary }, { u, id: drawn }, rows) {
  const name = `From 0 to 1, in order of token ids; ${u.toFixed(3)} falls on ${tokenName(vocabulary, drawn)}`;
  const strip = element("div.draw-line", { role: "img", "aria-label": name });
  const ends = cumulative(left, rows);
  for (const id of rows.filter((each) => left[each] > 0)) {
    const [low, high] = ends.get(id) ?? [0, 0];
    const part = element(id === drawn ? "span.part.is-drawn" : "span.part", { title: tokenLabel(vocabulary, id) });
    if (high - low > 0.045) part.append(tokenLabel(vocabulary, id));
    part.style.setProperty("--from", String(low));
    part.style.setProperty("--share", String(high - low));
    strip.append(part);
  }
  const mark = element("span.mark");
  mark.style.setProperty("--from", String(u));
  strip.append(mark);
  return strip;
}

/**
 * Return the stretch of each of `ids`, in one pass.
 * @param {import("./sampling.js").Doubles} probabilities @param {number[]} ids @returns {Map<number, [number, number]>}
 */
function cumulative(probabilities, ids) {
  const wanted = new Set(ids);
  const found = new Map();
  let sum = 0;
  for (let id = 0; id < probabilities.length; id++) {
    const low = sum;
    sum += probabilities[id];
    if (wanted.has(id)) found.set(id, [low, sum]);
  }
  return found;
}

/** @param {number} number */
function count(number) {
  return number.toLocaleString("en");
}
