/**
 * The next token, stage by stage: a table with a column for each stage of sampling, a bar for each of the likeliest
 * tokens, what each stage cut and left open, and below it the draw: the stretch of [0, 1) that its number fell into.
 *
 * Everything is computed here from the logits, so that moving a slider needs nothing from the server.
 */

import { element } from "./elements.js";
import { cutBy, draw, likeliest, measured, stages as stagesOf, stretch } from "./sampling.js";
import { PARAMETERS, STAGES } from "./stages.js";
import { probabilityText } from "./tokens.js";
import { tokenLabel, tokenName } from "./vocabulary.js";

const TOP = 10; // rows for the likeliest tokens of the model
const TOP_LEFT = 3; // and for those of what is left, where penalties moved others up
const TITLES = { model: "model", ...STAGES };

/**
 * @typedef {object} Place
 * @property {ArrayLike<number>} logits  [n_vocab], of the unmodified model
 * @property {import("./sampling.js").SamplingParams} params
 * @property {number[]} history  ids before the place, for the penalties
 * @property {string[]} vocabulary
 * @property {number | null} u  the number that draws; null if there is none yet
 * @property {number | null} chosen  the id that stands at the place
 * @property {import("./sampling.js").Stage[]} [stages]  of these logits and parameters, if they are known already
 */

export class StageTable {
  #element;
  #wide = element("div.stage-table-scroll", { tabindex: 0, role: "region", "aria-label": "Stages of sampling" });
  #below = element("div");

  /** @param {HTMLElement} element  it becomes the bars' own */
  constructor(element) {
    this.#element = element;
    element.classList.add("stage-table");
    this.clear();
  }

  clear() {
    this.#element.replaceChildren(
      element("p.hint", {}, "Point at a token, or move to it with the arrow keys, to see how it was drawn."),
    );
  }

  /** @param {Place} place */
  show({ logits, params, history, vocabulary, u, chosen, stages = stagesOf(logits, params, history) }) {
    const left = stages[stages.length - 1].probabilities;
    const drawn = u === null ? null : draw(left, u);
    const view = { stages, measures: measured(stages), params, vocabulary, u, chosen, drawn, left };
    const rows = rowsOf(view);
    this.#wide.replaceChildren(table(view, rows));
    this.#below.replaceChildren(...drawOf(view, rows));
    if (!this.#wide.isConnected) this.#element.replaceChildren(this.#wide, this.#below); // else focus and scroll stay
  }
}

/** Ids of the rows, the model's likeliest first. */
function rowsOf({ stages, left, chosen, drawn }) {
  const model = stages[0].probabilities;
  const ids = new Set([...likeliest(model, TOP), ...likeliest(left, TOP_LEFT)]);
  for (const id of [chosen, drawn]) if (id !== null) ids.add(id);
  return [...ids].filter((id) => model[id] > 0 || id === chosen).sort((a, b) => model[b] - model[a] || a - b);
}

// ---- the table ------------------------------------------------------------------------------------------------------

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
      row(`${count(others)} others`, columns, ({ stage }) => probabilityText(restOf(stage, rows))),
      row("left", columns, ({ measure }) => `${count(measure.kept)} tokens`),
      row("cut here", columns, ({ measure }) => cutText(measure)),
      row("entropy", columns, ({ measure }) => `${measure.entropy.toFixed(2)} nats`),
    ),
  );
}

/** One for each stage there may be: `{name, setting, stage, measure}`, without the last two if it is off. */
function columnsOf({ stages, measures, params }) {
  const settable = new Set(["model", ...PARAMETERS.map(({ stage }) => stage)]);
  const names = Object.keys(TITLES).filter((name) => settable.has(name) || stages.some((stage) => stage.name === name));
  return names.map((name) => {
    const at = stages.findIndex((stage) => stage.name === name);
    return { name, setting: settingOf(name, params), stage: stages[at] ?? null, measure: measures[at] ?? null, at };
  });
}

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

function heading({ name, setting, stage }) {
  const value = stage ? setting || "\u00a0" : "off";
  return element(
    stage ? "th" : "th.off",
    { scope: "col", "data-stage": name },
    TITLES[name],
    element("small", {}, value),
  );
}

function tokenRow(view, columns, id, longest) {
  const label = element("th", { scope: "row" }, element("code", {}, tokenLabel(view.vocabulary, id)));
  if (id === view.drawn) label.append(element("small.drawn", {}, "drawn"));
  else if (id === view.chosen) label.append(element("small", {}, "here"));
  const cutAt = view.stages.findIndex(({ name }) => name === cutBy(view.stages, id));
  const cells = columns.map(({ stage, at }) => {
    if (!stage) return element("td.off", {}, "·");
    if (cutAt >= 0 && at >= cutAt) return element("td.cut", {}, at === cutAt ? "✕ cut" : "–");
    const cell = element("td", {}, probabilityText(stage.probabilities[id]), element("span.bar"));
    cell.lastChild.style.setProperty("--share", stage.probabilities[id] / longest);
    return cell;
  });
  const state = id === view.drawn ? "tr.is-drawn" : id === view.chosen ? "tr.is-chosen" : "tr";
  return element(state, { "data-id": id }, label, ...cells);
}

function row(title, columns, textOf) {
  const cells = columns.map((column) =>
    column.stage ? element("td", {}, textOf(column)) : element("td.off", {}, "·"),
  );
  return element("tr", {}, element("th", { scope: "row" }, title), ...cells);
}

function cutText({ cut, cutProbability }) {
  return cut ? `${probabilityText(cutProbability)}: ${count(cut)} tokens` : "–";
}

function restOf({ probabilities }, rows) {
  return Math.max(0, 1 - rows.reduce((sum, id) => sum + probabilities[id], 0));
}

// ---- the draw -------------------------------------------------------------------------------------------------------

function drawOf(view, rows) {
  if (view.u === null)
    return [element("p.draw", {}, "No seed is set, so the number that draws here is not known yet.")];
  const [low, high] = stretch(view.left, view.drawn);
  return [element("p.draw", {}, ...sentence(view, low, high)), line(view, rows)];
}

function sentence({ u, drawn, chosen, vocabulary, left }, low, high) {
  const quoted = (id) => element("code", {}, tokenLabel(vocabulary, id));
  const parts = ["The number ", element("b", {}, u.toFixed(6)), " draws ", quoted(drawn)];
  parts.push(
    `, which has ${low.toFixed(4)} to ${high.toFixed(4)} of the line below (${probabilityText(left[drawn])}).`,
  );
  if (chosen !== null && chosen !== drawn) parts.push(" The text has ", quoted(chosen), " here.");
  return parts;
}

/** The line from 0 to 1: tokens in order of their ids, each as long as it is probable, and the number on it. */
function line({ left, vocabulary, u, drawn }, rows) {
  const name = `From 0 to 1, in order of token ids; ${u.toFixed(3)} falls on ${tokenName(vocabulary, drawn)}`;
  const strip = element("div.draw-line", { role: "img", "aria-label": name });
  const ends = cumulative(left, rows);
  for (const id of rows.filter((each) => left[each] > 0)) {
    const part = element(id === drawn ? "span.part.is-drawn" : "span.part", { title: tokenLabel(vocabulary, id) });
    const share = ends.get(id)[1] - ends.get(id)[0];
    if (share > 0.045) part.append(tokenLabel(vocabulary, id));
    part.style.setProperty("--from", ends.get(id)[0]);
    part.style.setProperty("--share", share);
    strip.append(part);
  }
  const mark = element("span.mark");
  mark.style.setProperty("--from", u);
  strip.append(mark);
  return strip;
}

/** The stretch of each of `ids`, in one pass. @returns {Map<number, [number, number]>} */
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

function count(number) {
  return number.toLocaleString("en");
}
