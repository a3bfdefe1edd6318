/**
 * Lines over updates, drawn as SVG, with a cursor. Sized in pixels as its element is, and drawn anew when that changes.
 *
 * Colours and strokes are the style sheet's, by the class of a line; every kind of line differs in more than colour.
 */

import { tickText, ticks } from "./watch_run.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 46, right: 14, top: 10, bottom: 24 };
const MOST_DOTS = 80;

/**
 * @typedef {object} Line
 * @property {string} kind  a class: raw, smoothed, held-out, other, …
 * @property {[number, number][]} points  update and value, updates ascending
 * @property {[number, number, number][]} [band]  update, lowest and highest value
 * @property {boolean} [dots]  whether single points are to be seen
 * @property {string} [label]  at the end of the line
 *
 * @typedef {object} Figure
 * @property {Line[]} lines
 * @property {string} title  what there is to see, in a sentence
 * @property {boolean} [logX]
 * @property {boolean} [logY]
 * @property {boolean} [zero]  the axis of values begins at zero
 * @property {number} [end]  the last update of the axis
 * @property {number[]} [marks]  updates that are marked beneath
 * @property {{step: number, value: number}|null} [best]
 * @property {(value: number) => string} [text]  a value at the axis
 */

export class Chart {
  #element;
  #figure = null;
  #x = null;
  #y = null;
  #cursor = null;

  /**
   * @param {HTMLElement} element
   * @param {(step: number|null) => void} pointed  the update that the pointer is at; null when it has left
   */
  constructor(element, pointed) {
    this.#element = element;
    element.addEventListener("pointermove", (event) => {
      if (!this.#x) return;
      pointed(this.#x.invert(event.clientX - element.getBoundingClientRect().left));
    });
    element.addEventListener("pointerleave", () => pointed(null));
    new ResizeObserver(() => this.#draw()).observe(element);
  }

  /** @param {Figure} figure */
  show(figure) {
    this.#figure = figure;
    this.#draw();
  }

  /** Put the cursor at an update, with a dot for each of `values`, which may be null; or nowhere. */
  point(step, values = []) {
    this.#cursor?.remove();
    this.#cursor = null;
    const [x, y] = [this.#x, this.#y];
    const svg = this.#element.querySelector("svg");
    if (step === null || !svg || !x) return;
    const at = x.place(step);
    this.#cursor = made("g", { class: "cursor-mark" }, line(at, y.to, at, y.from));
    for (const [kind, value] of values)
      if (value !== null && y.has(value)) this.#cursor.append(made("circle", { class: kind, cx: at, cy: y.place(value), r: 4 }));
    svg.append(this.#cursor);
  }

  #draw() {
    const [width, height] = [this.#element.clientWidth, this.#element.clientHeight];
    if (!this.#figure || width < 60 || height < 60) return;
    const figure = this.#figure;
    const domain = domainOf(figure);
    this.#cursor = null;
    const svg = made("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": figure.title });
    this.#x = this.#y = null;
    if (domain) {
      this.#x = new Axis(domain.x, MARGIN.left, width - MARGIN.right, figure.logX);
      this.#y = new Axis(domain.y, height - MARGIN.bottom, MARGIN.top, figure.logY);
      svg.append(...frame(this.#x, this.#y, figure.text ?? tickText));
      for (const each of figure.lines) svg.append(...drawn(each, this.#x, this.#y));
      svg.append(...names(figure.lines, this.#x, this.#y));
      svg.append(...marks(figure, this.#x, this.#y));
    }
    this.#element.replaceChildren(svg);
  }
}

/** Where values lie on an axis; a logarithmic one has places for what is above zero alone. */
class Axis {
  constructor([low, high], from, to, log = false) {
    Object.assign(this, { low, high, from, to, log });
    this.scale = log ? Math.log : (value) => value;
    this.begin = this.scale(low);
    this.unit = (to - from) / (this.scale(high) - this.begin);
  }

  has(value) {
    return Number.isFinite(value) && (!this.log || value > 0);
  }

  place(value) {
    return Math.round((this.from + (this.scale(Math.max(value, this.log ? this.low : -Infinity)) - this.begin) * this.unit) * 10) / 10;
  }

  invert(place) {
    const value = this.begin + (place - this.from) / this.unit;
    return this.log ? Math.exp(value) : value;
  }

  ticks(distance) {
    return ticks(this.low, this.high, Math.max(2, Math.floor(Math.abs(this.to - this.from) / distance) + 1), this.log);
  }
}

/** The ranges of a figure; null if there is nothing in it. */
function domainOf({ lines, logX, logY, zero, end }) {
  const x = [Infinity, -Infinity];
  const y = [Infinity, -Infinity];
  const widen = (range, value, log) => {
    if (!Number.isFinite(value) || (log && value <= 0)) return;
    range[0] = Math.min(range[0], value);
    range[1] = Math.max(range[1], value);
  };
  for (const { points, band = [] } of lines) {
    for (const [step, value] of points) {
      widen(x, step, logX);
      widen(y, value, logY);
    }
    for (const [, low, high] of band) {
      widen(y, low, logY);
      widen(y, high, logY);
    }
  }
  if (!(x[0] <= x[1] && y[0] <= y[1])) return null;
  if (end) x[1] = Math.max(x[1], end);
  if (zero && !logY) y[0] = Math.min(0, y[0]);
  if (x[0] === x[1]) x[1] = x[0] + 1;
  return { x, y: padded(y, logY, zero) };
}

function padded([low, high], log, zero) {
  if (log) {
    const factor = low === high ? 1.2 : (high / low) ** 0.04;
    return [low / factor, high * factor];
  }
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.05;
  return [zero && low === 0 ? 0 : low - room, high + room];
}

// ---- pieces ----------------------------------------------------------------------------------------------------

function frame(x, y, text) {
  const grid = made("g", { class: "grid", "aria-hidden": "true" });
  for (const value of y.ticks(y.from - y.to > 200 ? 46 : 34)) {
    const at = y.place(value);
    grid.append(line(x.from, at, x.to, at), label(text(value), x.from - 7, at + 4, "end"));
  }
  for (const value of x.ticks(64)) {
    const at = x.place(value);
    grid.append(line(at, y.from, at, y.from + 4), label(tickText(value), at, y.from + 17, "middle"));
  }
  grid.append(line(x.from, y.from, x.to, y.from));
  return [grid];
}

function drawn({ kind, points, band = [], dots }, x, y) {
  const parts = [];
  if (band.length > 1) {
    const edge = (rows, side) => rows.map((row) => `${x.place(row[0])} ${y.place(row[side])}`);
    parts.push(made("path", { class: `band ${kind}`, d: `M${edge(band, 2).join("L")}L${edge([...band].reverse(), 1).join("L")}Z` }));
  }
  const seen = points.filter(([step, value]) => x.has(step) && y.has(value)).map(([step, value]) => [x.place(step), y.place(value)]);
  if (seen.length > 1) parts.push(made("path", { class: `line ${kind}`, d: `M${seen.map((each) => each.join(" ")).join("L")}` }));
  if (seen.length === 1 || (dots && seen.length <= MOST_DOTS))
    parts.push(...seen.map(([cx, cy]) => made("circle", { class: `dot ${kind}`, cx, cy, r: 3 })));
  return parts;
}

/** The names of lines at their ends, one below the other where they would meet. */
function names(lines, x, y) {
  const ends = lines.filter(({ label: name, points }) => name && points.length).map(({ label: name, points }) => {
    const [step, value] = points.at(-1);
    return { name, at: x.place(step), height: y.has(value) ? y.place(value) : y.from };
  });
  ends.sort((a, b) => a.height - b.height);
  let taken = -Infinity;
  return ends.map(({ name, at, height }) => {
    taken = Math.max(height - 8, taken + 14);
    return label(name, at - 4, taken, "end", "name");
  });
}

function marks({ marks: steps = [], best = null }, x, y) {
  const parts = steps.filter((step) => x.has(step) && step <= x.high).map((step) => {
    const at = x.place(step);
    return made("path", { class: "sample-mark", d: `M${at} ${y.from - 8}l4 7h-8z` });
  });
  if (best && y.has(best.value) && x.has(best.step))
    parts.push(made("circle", { class: "best", cx: x.place(best.step), cy: y.place(best.value), r: 7 }));
  return parts;
}

function line(x1, y1, x2, y2) {
  return made("line", { x1, y1, x2, y2 });
}

function label(words, x, y, anchor, kind = "tick") {
  const text = made("text", { x, y, "text-anchor": anchor, class: kind });
  text.textContent = words;
  return text;
}

function made(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
