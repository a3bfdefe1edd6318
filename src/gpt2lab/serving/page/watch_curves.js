/**
 * The curves of a run with their controls: axes, smoothing, a cursor with a readout, and the numbers as a table.
 */

import { byId, element } from "./elements.js";
import { Chart } from "./watch_chart.js";
import {
  COUNT, FIRST, HIGH, LAST, LOW, MEAN, RATE, SPEED,
  count, decayAt, evenly, lossText, middle, nearest, rateText, smoothed, tickText, upTo,
} from "./watch_run.js";

const TABLE_ROWS = 40;
const TABLE_PAUSE_MS = 5000; // between two tables: a table that changes every second is unreadable
const STORED = "gpt2lab.watch";
const SMOOTHING = 43; // a decay of 0.95

/** @typedef {import("./watch_run.js").Run} Run */
/** @typedef {import("./watch_run.js").Row} Row */
/** @typedef {HTMLInputElement | HTMLSelectElement} Control */

export class Curves {
  #parts = {
    lossScale: byId("loss-scale", HTMLSelectElement),
    stepScale: byId("step-scale", HTMLSelectElement),
    smoothing: byId("smoothing", HTMLInputElement),
    smoothingValue: byId("smoothing-value"),
    others: byId("others", HTMLInputElement),
    othersChoice: byId("others-choice"),
    legend: byId("legend"),
    cursor: byId("cursor", HTMLInputElement),
    readout: byId("readout"),
    numbers: byId("numbers", HTMLDetailsElement),
    table: byId("table"),
  };
  /** @type {Control[]} */
  #choices;
  #charts;
  /** @type {Run | null} */
  #run = null;
  /** @type {Run[]} */
  #others = [];
  /** @type {number[]} */
  #means = [];
  /** @type {number | null} */
  #mark = null;
  #following = true; // the cursor is at the newest row
  #tabled = 0;

  constructor() {
    const { lossScale, stepScale, smoothing, others, cursor, numbers } = this.#parts;
    this.#choices = [lossScale, stepScale, smoothing, others];
    const pointed = (/** @type {number | null} */ step) => {
      if (this.#run) this.#read(this.#run, step === null ? this.#cursorAt() : nearest(this.#run.updates, step));
    };
    const chart = (/** @type {string} */ name) => new Chart(byId(`${name}-chart`), pointed);
    this.#charts = { loss: chart("loss"), rate: chart("rate"), speed: chart("speed") };
    this.#restore();
    for (const choice of this.#choices) choice.addEventListener("input", () => this.#choose());
    cursor.addEventListener("input", () => {
      if (!this.#run) return;
      this.#following = this.#cursorAt() === this.#run.updates.length - 1;
      this.#read(this.#run, this.#cursorAt());
    });
    numbers.addEventListener("toggle", () => this.#run && this.#table(this.#run, true));
  }

  /** Draw `run`, and `others` if the user has chosen that. @param {Run} run @param {Run[]} others */
  show(run, others) {
    if (run !== this.#run) this.#following = true;
    this.#run = run;
    this.#others = others;
    this.#parts.othersChoice.hidden = !others.length;
    this.#draw(run);
  }

  /**
   * Mark the checkpoint whose samples are shown; null for none. Return whether the mark has changed.
   * @param {number | null} step
   */
  mark(step) {
    const changed = step !== this.#mark;
    this.#mark = step;
    return changed;
  }

  // ---- choices

  #choose() {
    const values = Object.fromEntries(this.#choices.map((choice) => [choice.id, valueOf(choice)]));
    try {
      localStorage.setItem(STORED, JSON.stringify(values));
    } catch {
      // storage failed: the user chooses again next time
    }
    if (this.#run) this.#draw(this.#run);
    this.#label();
  }

  #restore() {
    this.#parts.smoothing.value = String(SMOOTHING);
    try {
      const values = JSON.parse(localStorage.getItem(STORED) ?? "{}");
      for (const choice of this.#choices) if (choice.id in values) give(choice, values[choice.id]);
    } catch {
      // the stored value is not this page's
    }
    this.#label();
  }

  #label() {
    const { smoothing, smoothingValue: shown } = this.#parts;
    shown.textContent = this.#decay ? String(Number(this.#decay.toPrecision(3 + Math.floor(Number(smoothing.value) / 67)))) : "none";
    smoothing.setAttribute("aria-valuetext", shown.textContent);
  }

  get #decay() {
    return decayAt(Number(this.#parts.smoothing.value));
  }

  // ---- drawing

  /** @param {Run} run */
  #draw(run) {
    const { updates, validations, facts } = run;
    this.#means = smoothed(updates, this.#decay);
    const common = { logX: this.#parts.stepScale.value === "log", end: facts.last_step };
    this.#charts.loss.show({
      ...common,
      lines: this.#lossLines(run),
      logY: this.#parts.lossScale.value === "log",
      best: facts.best && validations.length > 1 ? { step: facts.best.step, value: facts.best.loss } : null,
      marks: this.#mark === null ? [] : [this.#mark],
      title: lossTitle(run, this.#means),
    });
    this.#charts.rate.show({ ...common, ...single(updates, "rate", RATE, "Learning rate") });
    this.#charts.speed.show({ ...common, ...single(updates, "speed", SPEED, "Tokens per second") });
    this.#legend(run);
    this.#moveCursor(run);
    this.#table(run, false);
  }

  /** @param {Run} run @returns {import("./watch_chart.js").Line[]} */
  #lossLines({ updates, validations }) {
    const means = this.#means;
    const thick = updates.filter((row) => row[COUNT] > 1).length > updates.length / 2;
    /** @type {import("./watch_chart.js").Line[]} */
    const lines = [
      {
        kind: "raw",
        points: updates.map((row) => point(row, row[MEAN])),
        band: thick ? updates.map((row) => [middle(row), row[LOW], row[HIGH]]) : [],
      },
      { kind: "smoothed", points: updates.map((row, at) => point(row, means[at])) },
      { kind: "held-out", points: validations.map((row) => point(row, row[MEAN])), dots: true },
    ];
    if (!this.#parts.others.checked) return lines;
    const others = this.#others.filter((run) => run.updates.length).map((run) => {
      const theirs = smoothed(run.updates, this.#decay);
      return { kind: "other", points: run.updates.map((row, at) => point(row, theirs[at])), label: run.name };
    });
    return [...others, ...lines];
  }

  /** @param {Run} run */
  #legend({ validations }) {
    const shown = [["raw", "training, each update"], ["smoothed", "training, smoothed"]];
    if (validations.length) shown.push(["held-out", "held out"]);
    if (validations.length > 1) shown.push(["best", "the best, which is kept as the model"]);
    if (this.#mark !== null) shown.push(["sample-mark", "the text below"]);
    if (this.#parts.others.checked && this.#others.length) shown.push(["other", "other runs, smoothed"]);
    const key = shown.map(([kind]) => kind).join();
    const { legend } = this.#parts;
    if (legend.dataset.key === key) return;
    legend.dataset.key = key;
    legend.replaceChildren(...shown.map(([kind, words]) => element("li", {}, element(`span.swatch.${kind}`), words)));
  }

  // ---- the cursor

  #cursorAt() {
    return Number(this.#parts.cursor.value);
  }

  /** @param {Run} run */
  #moveCursor(run) {
    const { cursor, readout: words } = this.#parts;
    const last = run.updates.length - 1;
    if (cursor.parentElement) cursor.parentElement.hidden = last < 0;
    words.hidden = last < 0;
    if (last < 0) return;
    cursor.max = String(last);
    if (this.#following) cursor.value = String(last);
    this.#read(run, this.#cursorAt());
  }

  /** Show the numbers of row `at` and put the cursor there. @param {Run} run @param {number} at */
  #read({ updates, validations }, at) {
    const row = updates[at];
    if (!row) return;
    const held = upTo(validations, row[LAST]);
    const words = readout(row, this.#means[at], held);
    this.#parts.readout.textContent = words;
    this.#parts.cursor.setAttribute("aria-valuetext", words);
    const [step, heldOut] = [middle(row), held?.[MEAN] ?? null];
    const isHere = held !== null && held[LAST] >= row[FIRST];
    this.#charts.loss.point(step, [["raw", row[MEAN]], ["smoothed", this.#means[at]], ["held-out", isHere ? heldOut : null]]);
    this.#charts.rate.point(step, [["rate", row[RATE]]]);
    this.#charts.speed.point(step, [["speed", row[SPEED]]]);
  }

  // ---- the table

  /** @param {Run} run @param {boolean} now */
  #table({ name, updates, validations }, now) {
    if (!this.#parts.numbers.open) return;
    if (!now && performance.now() - this.#tabled < TABLE_PAUSE_MS) return;
    this.#tabled = performance.now();
    const heads = ["Updates", "Training loss", "Smoothed", "Held-out loss", "Learning rate", "Tokens per second"];
    const rows = evenly(updates.length, TABLE_ROWS).map((at) => {
      const row = updates[at];
      const held = upTo(validations, row[LAST]);
      const cells = [lossText(row[MEAN]), lossText(this.#means[at]), held ? lossText(held[MEAN]) : "–",
        optional(row[RATE], rateText), optional(row[SPEED], count)];
      return element("tr", {}, element("th", { scope: "row" }, span(row)), ...cells.map((cell) => element("td", {}, cell)));
    });
    this.#parts.table.replaceChildren(
      element("table", {},
        element("caption", {}, `${name}: ${rows.length} of ${count(updates.length)} rows; held-out losses are the latest so far.`),
        element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
        element("tbody", {}, ...rows)),
    );
  }
}

/** @param {Control} control */
function valueOf(control) {
  return control instanceof HTMLInputElement && control.type === "checkbox" ? control.checked : control.value;
}

/** @param {Control} control @param {unknown} value */
function give(control, value) {
  if (control instanceof HTMLInputElement && control.type === "checkbox") control.checked = value === true;
  else if (typeof value === "string") control.value = value;
}

/** Return a point of a curve. @param {Row} row @param {number} value @returns {[number, number]} */
function point(row, value) {
  return [middle(row), value];
}

/** Make a chart of one column. @param {Row[]} rows @param {string} kind @param {7 | 8} column @param {string} title */
function single(rows, kind, column, title) {
  const points = rows.flatMap((row) => (row[column] === null ? [] : [point(row, row[column])]));
  return { lines: [{ kind, points }], zero: true, title: `${title} over updates.` };
}

/** @param {Row} row */
function span(row) {
  return row[FIRST] === row[LAST] ? count(row[FIRST]) : `${count(row[FIRST])}–${count(row[LAST])}`;
}

/** @param {number | null | undefined} value @param {(value: number) => string} text */
function optional(value, text) {
  return value === null || value === undefined ? "–" : text(value);
}

/** @param {Row} row @param {number} mean @param {Row | null} held */
function readout(row, mean, held) {
  const words = [`update ${span(row)}`, `loss ${lossText(row[MEAN])}`];
  if (row[COUNT] > 1) words[1] += ` (${lossText(row[LOW])} to ${lossText(row[HIGH])})`;
  words.push(`smoothed ${lossText(mean)}`);
  if (held) words.push(`held out ${lossText(held[MEAN])} at ${span(held)}`);
  if (row[RATE] !== null) words.push(`learning rate ${rateText(row[RATE])}`);
  if (row[SPEED] !== null) words.push(`${count(row[SPEED])} tokens per second`);
  return words.join(" · ");
}

/** @param {Run} run @param {number[]} means */
function lossTitle({ name, updates, validations, facts }, means) {
  const words = [`Loss of ${name} over updates.`];
  const [mean, last] = [means[means.length - 1], updates[updates.length - 1]];
  if (last) words.push(`Training loss, smoothed: ${tickText(means[0])} to ${tickText(mean)} after ${count(last[LAST])} updates.`);
  if (facts.best && validations.length) words.push(`Best held-out loss: ${lossText(facts.best.loss)} after ${count(facts.best.step)} updates.`);
  return words.join(" ");
}
