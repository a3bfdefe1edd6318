/**
 * The curves of a run with their controls: axes, smoothing, a cursor with a readout, and the numbers as a table.
 */

import { byId, element } from "./elements.js";
import { Chart } from "./watch_chart.js";
import { lossTitle, numbersTable, readout } from "./watch_numbers.js";
import { COUNT, FIRST, HIGH, LAST, LOW, MEAN, RATE, SPEED, count, lossText, middle, nearest, smoothed, upTo } from "./watch_run.js";
import { decayAt, fittedPosition, outside, typicalRange } from "./watch_scale.js";

const TABLE_PAUSE_MS = 5000; // between two tables: a table that changes every second is unreadable
const STORED = "gpt2lab.watch";

/** @typedef {import("./watch_run.js").Run} Run */
/** @typedef {import("./watch_run.js").Row} Row */
/** @typedef {HTMLInputElement | HTMLSelectElement} Control */

export class Curves {
  #parts = {
    lossScale: byId("loss-scale", HTMLSelectElement),
    stepScale: byId("step-scale", HTMLSelectElement),
    smoothing: byId("smoothing", HTMLInputElement),
    smoothingValue: byId("smoothing-value"),
    fitted: byId("smoothing-fitted", HTMLInputElement),
    range: byId("loss-range", HTMLSelectElement),
    outside: byId("outside"),
    legend: byId("legend"),
    cursor: byId("cursor", HTMLInputElement),
    readout: byId("readout"),
    numbers: byId("numbers", HTMLDetailsElement),
    table: byId("table"),
  };
  /** @type {Control[]} */
  #choices;
  #charts;
  #runList;
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

  /** @param {import("./watch_runs.js").RunList} runList */
  constructor(runList) {
    this.#runList = runList;
    const { lossScale, stepScale, range, smoothing, fitted, cursor, numbers } = this.#parts;
    this.#choices = [lossScale, stepScale, range, smoothing, fitted];
    const pointed = (/** @type {number | null} */ step) => {
      if (this.#run) this.#read(this.#run, step === null ? this.#cursorAt() : nearest(this.#run.updates, step));
    };
    const chart = (/** @type {string} */ name) => new Chart(byId(`${name}-chart`), pointed);
    this.#charts = { loss: chart("loss"), rate: chart("rate"), speed: chart("speed") };
    this.#restore();
    smoothing.addEventListener("input", () => (fitted.checked = false));
    for (const choice of this.#choices) choice.addEventListener("input", () => this.#choose());
    cursor.addEventListener("input", () => {
      if (!this.#run) return;
      this.#following = this.#cursorAt() === this.#run.updates.length - 1;
      this.#read(this.#run, this.#cursorAt());
    });
    numbers.addEventListener("toggle", () => this.#run && this.#table(this.#run, true));
  }

  /** Draw `run`, and those of `others` that are switched on. @param {Run} run @param {Run[]} others */
  show(run, others) {
    if (run !== this.#run) this.#following = true;
    this.#run = run;
    this.#others = others.filter(({ name, updates }) => updates.length && this.#runList.isShown(name));
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
  }

  #restore() {
    try {
      const values = JSON.parse(localStorage.getItem(STORED) ?? "{}");
      for (const choice of this.#choices) if (choice.id in values) give(choice, values[choice.id]);
    } catch {
      // the stored value is not this page's
    }
  }

  /** Show how much `run` is smoothed. @param {Run} run */
  #label(run) {
    const { smoothing, smoothingValue: shown } = this.#parts;
    const position = this.#smoothing(run);
    smoothing.value = String(position);
    shown.textContent = position ? String(Number(decayAt(position).toPrecision(3 + Math.floor(position / 67)))) : "none";
    smoothing.setAttribute("aria-valuetext", shown.textContent);
  }

  /** Return the position of the slider for `run`. @param {Run} run */
  #smoothing({ updates }) {
    if (!this.#parts.fitted.checked) return Number(this.#parts.smoothing.value);
    return fittedPosition(updates.reduce((sum, row) => sum + row[COUNT], 0));
  }

  /** @param {Run} run */
  #smoothed(run) {
    return smoothed(run.updates, decayAt(this.#smoothing(run)));
  }

  // ---- drawing

  /** @param {Run} run */
  #draw(run) {
    const { updates, validations, facts } = run;
    this.#label(run);
    this.#means = this.#smoothed(run);
    const [logX, logY] = [this.#parts.stepScale.value === "log", this.#parts.lossScale.value === "log"];
    const common = { logX, end: facts.last_step };
    const lines = this.#lossLines(run);
    const range = this.#parts.range.value === "typical" ? typicalRange([run, ...this.#others].flatMap(lossesOf), logY) : null;
    this.#charts.loss.show({
      ...common, lines, logY, range,
      reference: facts.vocabulary ? Math.log(facts.vocabulary) : null,
      best: facts.best && validations.length > 1 ? { step: facts.best.step, value: facts.best.loss } : null,
      marks: this.#mark === null ? [] : [this.#mark],
      title: lossTitle(run, this.#means),
    });
    this.#outside(updates);
    this.#charts.rate.show({ ...common, ...single(updates, "rate", RATE, "Learning rate") });
    this.#charts.speed.show({ ...common, ...single(updates, "speed", SPEED, "Tokens per second") });
    this.#legend(run);
    this.#moveCursor(run);
    this.#table(run, false);
  }

  /** @param {Run} run @returns {import("./watch_chart.js").Line[]} */
  #lossLines(run) {
    const { name, updates } = run;
    const colour = this.#runList.colour(name);
    const thick = updates.filter((row) => row[COUNT] > 1).length > updates.length / 2;
    /** @type {import("./watch_chart.js").Line} */
    const raw = {
      kind: `raw ${colour}`,
      points: updates.map((row) => point(row, row[MEAN])),
      band: thick ? updates.map((row) => [middle(row), row[LOW], row[HIGH]]) : [],
    };
    const others = this.#others.flatMap((other) => linesOf(other, this.#smoothed(other), `other ${this.#runList.colour(other.name)}`));
    return [...others, raw, ...linesOf(run, this.#means, colour, this.#others.length > 0)];
  }

  /** Say what the range leaves out. @param {Row[]} updates */
  #outside(updates) {
    const { outside: place } = this.#parts;
    const found = outside(updates.map((row) => row[MEAN]), (value) => this.#charts.loss.beyond(value));
    place.hidden = !found;
    if (!found) return;
    const farthest = lossText(found.farthest);
    const [which, them] = found.count === 1
      ? [`One point lies outside of the chart, at ${farthest}`, "it"]
      : [`${count(found.count)} points lie outside of the chart, the farthest at ${farthest}`, "them"];
    place.textContent = `${which}: choose “all values” to see ${them}.`;
  }

  /** @param {Run} run */
  #legend({ name, validations, facts }) {
    const shown = [["raw", "training, each update"], ["smoothed", "training, smoothed"]];
    if (validations.length) shown.push(["held-out", "held out"]);
    if (validations.length > 1) shown.push(["best", "the best, which is kept as the model"]);
    if (this.#mark !== null) shown.push(["sample-mark", "the text below"]);
    if (facts.vocabulary) shown.push(["reference", this.#guessing(facts.vocabulary)]);
    const { legend } = this.#parts;
    const key = JSON.stringify([this.#runList.colour(name), shown]);
    if (legend.dataset.key === key) return;
    legend.dataset.key = key;
    legend.className = `chart-legend ${this.#runList.colour(name)}`;
    legend.replaceChildren(...shown.map(([kind, words]) => element("li", {}, element(`span.swatch.${kind}`), words)));
  }

  /** Return the words for the loss of pure guessing. @param {number} vocabulary */
  #guessing(vocabulary) {
    const loss = Math.log(vocabulary);
    const beyond = this.#charts.loss.beyond(loss);
    const where = beyond === 0 ? "" : `, ${beyond > 0 ? "above" : "below"} this chart`;
    return `pure guessing among ${count(vocabulary)} tokens: ${lossText(loss)}${where}`;
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
  #read({ name, updates, validations }, at) {
    const row = updates[at];
    if (!row) return;
    const held = upTo(validations, row[LAST]);
    const words = readout(row, this.#means[at], held);
    this.#parts.readout.textContent = words;
    this.#parts.cursor.setAttribute("aria-valuetext", words);
    const [step, heldOut] = [middle(row), held?.[MEAN] ?? null];
    const isHere = held !== null && held[LAST] >= row[FIRST];
    const losses = { raw: row[MEAN], smoothed: this.#means[at], "held-out": isHere ? heldOut : null };
    this.#charts.loss.point(step, Object.entries(losses), this.#runList.colour(name));
    this.#charts.rate.point(step, [["rate", row[RATE]]]);
    this.#charts.speed.point(step, [["speed", row[SPEED]]]);
  }

  // ---- the table

  /** @param {Run} run @param {boolean} now */
  #table(run, now) {
    if (!this.#parts.numbers.open) return;
    if (!now && performance.now() - this.#tabled < TABLE_PAUSE_MS) return;
    this.#tabled = performance.now();
    this.#parts.table.replaceChildren(numbersTable(run, this.#means));
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

/**
 * Return the smoothed and the held-out line of a run.
 * @param {Run} run @param {number[]} means @param {string} classes @param {boolean} [named]  the line ends with the run's name
 * @returns {import("./watch_chart.js").Line[]}
 */
function linesOf({ name, updates, validations }, means, classes, named = true) {
  const label = named ? name : undefined;
  return [
    { kind: `smoothed ${classes}`, points: updates.map((row, at) => point(row, means[at])), label },
    { kind: `held-out ${classes}`, points: validations.map((row) => point(row, row[MEAN])), dots: true },
  ];
}

/** Return a run's losses, of updates and of validations; smoothed ones would spread a spike. @param {Run} run */
function lossesOf({ updates, validations }) {
  return [updates, validations].map((rows) => rows.map((row) => row[MEAN]));
}

/** Make a chart of one column. @param {Row[]} rows @param {string} kind @param {7 | 8} column @param {string} title */
function single(rows, kind, column, title) {
  const points = rows.flatMap((row) => (row[column] === null ? [] : [point(row, row[column])]));
  return { lines: [{ kind, points }], zero: true, title: `${title} over updates.` };
}
