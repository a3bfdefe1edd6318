/**
 * The curves of a run with what one can do to them: axes, smoothing, a cursor that reads them off, the numbers as a table.
 */

import { element } from "./elements.js";
import { Chart } from "./watch_chart.js";
import {
  COUNT, FIRST, HIGH, LAST, LOW, MEAN, RATE, SPEED,
  count, decayAt, evenly, lossText, middle, nearest, rateText, smoothed, tickText, upTo,
} from "./watch_run.js";

const TABLE_ROWS = 40;
const TABLE_PAUSE_MS = 5000; // between two tables: nobody can read one that changes every second
const CHOICES = ["loss-scale", "step-scale", "smoothing", "others"];
const STORED = "gpt2lab.watch";
const SMOOTHING = 43; // a decay of 0.95

export class Curves {
  #parts;
  #charts;
  #run = null;
  #others = [];
  #means = [];
  #mark = null;
  #following = true; // the cursor is at the newest row
  #tabled = 0;

  constructor() {
    const names = [...CHOICES, "smoothing-value", "others-choice", "legend", "cursor", "readout", "numbers", "table"];
    this.#parts = Object.fromEntries(names.map((name) => [name, document.getElementById(name)]));
    const pointed = (step) => {
      if (this.#run) this.#read(step === null ? this.#cursorAt() : nearest(this.#run.updates, step));
    };
    this.#charts = Object.fromEntries(
      ["loss", "rate", "speed"].map((name) => [name, new Chart(document.getElementById(`${name}-chart`), pointed)]),
    );
    this.#restore();
    for (const name of CHOICES) this.#parts[name].addEventListener("input", () => this.#choose());
    this.#parts.cursor.addEventListener("input", () => {
      this.#following = this.#cursorAt() === this.#run.updates.length - 1;
      this.#read(this.#cursorAt());
    });
    this.#parts.numbers.addEventListener("toggle", () => this.#table(true));
  }

  /** Draw `run`, and `others` if that is chosen. */
  show(run, others) {
    if (run !== this.#run) this.#following = true;
    this.#run = run;
    this.#others = others;
    this.#parts["others-choice"].hidden = !others.length;
    this.#draw();
  }

  /** Mark the checkpoint whose samples are shown; null for none. Whether that is another than before. */
  mark(step) {
    const changed = step !== this.#mark;
    this.#mark = step;
    return changed;
  }

  // ---- choices

  #choose() {
    const values = Object.fromEntries(CHOICES.map((name) => [name, valueOf(this.#parts[name])]));
    try {
      localStorage.setItem(STORED, JSON.stringify(values));
    } catch {
      // it is chosen anew next time
    }
    if (this.#run) this.#draw();
    this.#label();
  }

  #restore() {
    this.#parts.smoothing.value = String(SMOOTHING);
    try {
      const values = JSON.parse(localStorage.getItem(STORED) ?? "{}");
      for (const name of CHOICES) if (name in values) give(this.#parts[name], values[name]);
    } catch {
      // something else wrote it
    }
    this.#label();
  }

  #label() {
    const { smoothing, "smoothing-value": shown } = this.#parts;
    shown.textContent = this.#decay ? String(Number(this.#decay.toPrecision(3 + Math.floor(Number(smoothing.value) / 67)))) : "none";
    smoothing.setAttribute("aria-valuetext", shown.textContent);
  }

  get #decay() {
    return decayAt(Number(this.#parts.smoothing.value));
  }

  // ---- drawing

  #draw() {
    const { updates, validations, facts } = this.#run;
    this.#means = smoothed(updates, this.#decay);
    const common = { logX: this.#parts["step-scale"].value === "log", end: facts.last_step };
    this.#charts.loss.show({
      ...common,
      lines: this.#lossLines(),
      logY: this.#parts["loss-scale"].value === "log",
      best: facts.best && validations.length > 1 ? { step: facts.best.step, value: facts.best.loss } : null,
      marks: this.#mark === null ? [] : [this.#mark],
      title: lossTitle(this.#run, this.#means),
    });
    for (const [name, column, title] of [["rate", RATE, "Learning rate"], ["speed", SPEED, "Tokens a second"]]) {
      const points = updates.filter((row) => row[column] !== null).map((row) => [middle(row), row[column]]);
      this.#charts[name].show({ ...common, lines: [{ kind: name, points }], zero: true, title: `${title} over updates.` });
    }
    this.#legend();
    this.#moveCursor();
    this.#table(false);
  }

  #lossLines() {
    const { updates, validations } = this.#run;
    const means = this.#means;
    const thick = updates.filter((row) => row[COUNT] > 1).length > updates.length / 2;
    const lines = [
      {
        kind: "raw",
        points: updates.map((row) => [middle(row), row[MEAN]]),
        band: thick ? updates.map((row) => [middle(row), row[LOW], row[HIGH]]) : [],
      },
      { kind: "smoothed", points: updates.map((row, at) => [middle(row), means[at]]) },
      { kind: "held-out", points: validations.map((row) => [middle(row), row[MEAN]]), dots: true },
    ];
    if (!this.#parts.others.checked) return lines;
    const others = this.#others.filter((run) => run.updates.length).map((run) => {
      const theirs = smoothed(run.updates, this.#decay);
      return { kind: "other", points: run.updates.map((row, at) => [middle(row), theirs[at]]), label: run.name };
    });
    return [...others, ...lines];
  }

  #legend() {
    const { validations } = this.#run;
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

  #moveCursor() {
    const { cursor } = this.#parts;
    const last = this.#run.updates.length - 1;
    cursor.closest("label").hidden = this.#parts.readout.hidden = last < 0;
    if (last < 0) return;
    cursor.max = String(last);
    if (this.#following) cursor.value = String(last);
    this.#read(this.#cursorAt());
  }

  /** Tell the numbers of row `at` and put the cursor there. */
  #read(at) {
    const row = this.#run.updates[at];
    if (!row) return;
    const held = upTo(this.#run.validations, row[LAST]);
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

  #table(now) {
    if (!this.#parts.numbers.open || !this.#run) return;
    if (!now && performance.now() - this.#tabled < TABLE_PAUSE_MS) return;
    this.#tabled = performance.now();
    const heads = ["Updates", "Training loss", "Smoothed", "Held-out loss", "Learning rate", "Tokens a second"];
    const { updates, validations } = this.#run;
    const rows = evenly(updates.length, TABLE_ROWS).map((at) => {
      const row = updates[at];
      const held = upTo(validations, row[LAST]);
      return [lossText(row[MEAN]), lossText(this.#means[at]), held ? lossText(held[MEAN]) : "–", optional(row[RATE], rateText),
        optional(row[SPEED], count), span(row)];
    });
    this.#parts.table.replaceChildren(
      element("table", {},
        element("caption", {}, `${this.#run.name}: ${rows.length} of ${count(updates.length)} rows; held-out losses are the latest so far.`),
        element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
        element("tbody", {}, ...rows.map((cells) => {
          const head = cells.pop();
          return element("tr", {}, element("th", { scope: "row" }, head), ...cells.map((cell) => element("td", {}, cell)));
        }))),
    );
  }
}

function valueOf(control) {
  return control.type === "checkbox" ? control.checked : control.value;
}

function give(control, value) {
  if (control.type === "checkbox") control.checked = value === true;
  else if (typeof value === "string") control.value = value;
}

function span(row) {
  return row[FIRST] === row[LAST] ? count(row[FIRST]) : `${count(row[FIRST])}–${count(row[LAST])}`;
}

function optional(value, text) {
  return value === null || value === undefined ? "–" : text(value);
}

function readout(row, mean, held) {
  const words = [`update ${span(row)}`, `loss ${lossText(row[MEAN])}`];
  if (row[COUNT] > 1) words[1] += ` (${lossText(row[LOW])} to ${lossText(row[HIGH])})`;
  words.push(`smoothed ${lossText(mean)}`);
  if (held) words.push(`held out ${lossText(held[MEAN])} at ${span(held)}`);
  if (row[RATE] !== null) words.push(`learning rate ${rateText(row[RATE])}`);
  if (row[SPEED] !== null) words.push(`${count(row[SPEED])} tokens a second`);
  return words.join(" · ");
}

function lossTitle({ name, updates, validations, facts }, means) {
  const words = [`Loss of ${name} over updates.`];
  if (updates.length) words.push(`In training from ${tickText(means[0])} to ${tickText(means.at(-1))} after ${count(updates.at(-1)[LAST])} updates, smoothed.`);
  if (facts.best && validations.length) words.push(`Held out at best ${lossText(facts.best.loss)} after ${count(facts.best.step)} updates.`);
  return words.join(" ");
}
