/**
 * A chart of lines over updates as SVG, with a cursor. It has its element's size in pixels and is redrawn when that changes.
 *
 * The style sheet sets colours and strokes by the class of a line; kinds of lines differ in more than colour.
 */

import { newId, svgElement } from "./elements.js";
import { tickText, ticks } from "./watch_run.js";

const MARGIN = { left: 46, right: 14, top: 10, bottom: 24 };
const EDGE = 4; // pixels beyond the axes in which dots are still whole
const MOST_DOTS = 80;

/**
 * @typedef {object} Line
 * @property {string} kind  classes: raw, smoothed or held-out; other; a colour
 * @property {[number, number][]} points  update and value, updates ascending
 * @property {[number, number, number][]} [band]  update, lowest and highest value
 * @property {boolean} [dots]  whether to show single points
 * @property {string} [label]  at the end of the line
 *
 * @typedef {[number, number]} Range
 *
 * @typedef {object} Figure
 * @property {Line[]} lines
 * @property {string} title  a sentence that describes the figure
 * @property {boolean} [logX]
 * @property {boolean} [logY]
 * @property {boolean} [zero]  the axis of values begins at zero
 * @property {Range | null} [range]  of the axis of values, in place of that of the points; lines beyond it are cut off
 * @property {number | null} [reference]  a value with a line of its own, where the axis has it
 * @property {number | null} [end]  the last update of the axis
 * @property {number[]} [marks]  updates marked below the axis
 * @property {{step: number, value: number}|null} [best]
 * @property {(value: number) => string} [text]  a value at the axis
 */

export class Chart {
  #element;
  /** @type {Figure | null} */
  #figure = null;
  /** @type {Axis | null} */
  #x = null;
  /** @type {Axis | null} */
  #y = null;
  /** @type {Element | null} */
  #cursor = null;

  /**
   * @param {HTMLElement} element
   * @param {(step: number|null) => void} pointed  called with the update at the pointer; null when the pointer leaves
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

  /**
   * Put the cursor at an update, with a dot for each of `values` that is not null; hide it if `step` is null.
   * @param {number | null} step @param {[string, number | null][]} values  each with the kind of its line
   * @param {string} [colour]  a class
   */
  point(step, values, colour = "") {
    this.#cursor?.remove();
    this.#cursor = null;
    const [x, y] = [this.#x, this.#y];
    const svg = this.#element.querySelector("svg");
    if (step === null || !svg || !x || !y) return;
    const at = x.place(step);
    const dots = values.map(([kind, value]) =>
      value !== null && y.shows(value) ? svgElement("circle", { class: kind, cx: at, cy: y.place(value), r: 4 }) : null,
    );
    this.#cursor = svgElement("g", { class: `cursor-mark ${colour}` }, line(at, y.to, at, y.from), ...dots);
    svg.append(this.#cursor);
  }

  /** Return how far a value lies above the chart, or below it (negative); 0 inside. @param {number} value */
  beyond(value) {
    const y = this.#y;
    if (!y || y.shows(value)) return 0;
    return value > y.high ? value - y.high : value - y.low;
  }

  #draw() {
    const [width, height] = [this.#element.clientWidth, this.#element.clientHeight];
    if (!this.#figure || width < 60 || height < 60) return;
    const figure = this.#figure;
    const domain = domainOf(figure);
    this.#cursor = null;
    const svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": figure.title });
    this.#x = domain && new Axis(domain.x, MARGIN.left, width - MARGIN.right, figure.logX);
    this.#y = domain && new Axis(domain.y, height - MARGIN.bottom, MARGIN.top, figure.logY);
    const [x, y] = [this.#x, this.#y];
    if (x && y) {
      svg.append(frame(x, y, figure.text ?? tickText));
      svg.append(clipped(x, y, figure.lines.flatMap((each) => drawn(each, x, y))));
      svg.append(...names(figure.lines, x, y), ...marks(figure, x, y));
    }
    this.#element.replaceChildren(svg);
  }
}

/** The positions of values on an axis; a logarithmic axis has positions only for values above zero. */
class Axis {
  /** @param {Range} range @param {number} from @param {number} to @param {boolean} [log] */
  constructor([low, high], from, to, log = false) {
    this.low = low;
    this.high = high;
    this.from = from;
    this.to = to;
    this.log = log;
    this.scale = log ? Math.log : (/** @type {number} */ value) => value;
    this.begin = this.scale(low);
    this.unit = (to - from) / (this.scale(high) - this.begin);
  }

  /** @param {number} value */
  has(value) {
    return Number.isFinite(value) && (!this.log || value > 0);
  }

  /** Return whether a value lies between the ends of the axis. @param {number} value */
  shows(value) {
    return this.has(value) && value >= this.low && value <= this.high;
  }

  /** @param {number} value */
  place(value) {
    return Math.round((this.from + (this.scale(Math.max(value, this.log ? this.low : -Infinity)) - this.begin) * this.unit) * 10) / 10;
  }

  /** @param {number} place */
  invert(place) {
    const value = this.begin + (place - this.from) / this.unit;
    return this.log ? Math.exp(value) : value;
  }

  /** @param {number} distance */
  ticks(distance) {
    return ticks(this.low, this.high, Math.max(2, Math.floor(Math.abs(this.to - this.from) / distance) + 1), this.log);
  }
}

/**
 * Return the ranges of a figure; null if it is empty.
 * @param {Figure} figure @returns {{x: Range, y: Range} | null}
 */
function domainOf({ lines, logX, logY, zero, range, end }) {
  /** @type {[Range, Range]} */
  const [x, y] = [[Infinity, -Infinity], [Infinity, -Infinity]];
  /** @type {(found: Range, value: number, log?: boolean) => void} */
  const widen = (found, value, log) => {
    if (!Number.isFinite(value) || (log && value <= 0)) return;
    found[0] = Math.min(found[0], value);
    found[1] = Math.max(found[1], value);
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
  if (range) y.splice(0, 2, ...range);
  if (end) x[1] = Math.max(x[1], end);
  if (zero && !logY) y[0] = Math.min(0, y[0]);
  if (x[0] === x[1]) x[1] = x[0] + 1;
  return { x, y: padded(y, logY, zero) };
}

/** @param {Range} range @param {boolean} [log] @param {boolean} [zero] @returns {Range} */
function padded([low, high], log, zero) {
  if (log) {
    const factor = low === high ? 1.2 : (high / low) ** 0.04;
    return [low / factor, high * factor];
  }
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.05;
  return [zero && low === 0 ? 0 : low - room, high + room];
}

// ---- pieces ----------------------------------------------------------------------------------------------------

/** @param {Axis} x @param {Axis} y @param {(value: number) => string} text */
function frame(x, y, text) {
  const grid = svgElement("g", { class: "grid", "aria-hidden": "true" });
  for (const value of y.ticks(y.from - y.to > 200 ? 46 : 34)) {
    const at = y.place(value);
    grid.append(line(x.from, at, x.to, at), label(text(value), x.from - 7, at + 4, "end"));
  }
  for (const value of x.ticks(64)) {
    const at = x.place(value);
    grid.append(line(at, y.from, at, y.from + 4), label(tickText(value), at, y.from + 17, "middle"));
  }
  grid.append(line(x.from, y.from, x.to, y.from));
  return grid;
}

/** Return a group of which nothing is seen outside of the axes. @param {Axis} x @param {Axis} y @param {Element[]} parts */
function clipped(x, y, parts) {
  const id = newId("inside-chart");
  const [width, height] = [x.to - x.from + 2 * EDGE, y.from - y.to + 2 * EDGE];
  const shape = svgElement("rect", { x: x.from - EDGE, y: y.to - EDGE, width, height });
  return svgElement("g", { "clip-path": `url(#${id})` }, svgElement("clipPath", { id }, shape), ...parts);
}

/** @param {Line} line @param {Axis} x @param {Axis} y */
function drawn({ kind, points, band = [], dots }, x, y) {
  const parts = [];
  if (band.length > 1) {
    /** @type {(rows: typeof band, side: 1 | 2) => string[]} */
    const edge = (rows, side) => rows.map((row) => `${x.place(row[0])} ${y.place(row[side])}`);
    parts.push(svgElement("path", { class: `band ${kind}`, d: `M${edge(band, 2).join("L")}L${edge([...band].reverse(), 1).join("L")}Z` }));
  }
  const seen = points.filter(([step, value]) => x.has(step) && y.has(value)).map(([step, value]) => [x.place(step), y.place(value)]);
  if (seen.length > 1) parts.push(svgElement("path", { class: `line ${kind}`, d: `M${seen.map((each) => each.join(" ")).join("L")}` }));
  if (seen.length === 1 || (dots && seen.length <= MOST_DOTS))
    parts.push(...seen.map(([cx, cy]) => svgElement("circle", { class: `dot ${kind}`, cx, cy, r: 3 })));
  return parts;
}

/**
 * Draw the names of lines at their ends, one below the other where they would overlap.
 * @param {Line[]} lines @param {Axis} x @param {Axis} y
 */
function names(lines, x, y) {
  const ends = lines.filter(({ label: name, points }) => name && points.length).map(({ kind, label: name = "", points }) => {
    const [step, value] = points[points.length - 1];
    const inside = Math.min(Math.max(value, y.low), y.high);
    return { kind, name, at: x.place(step), height: y.has(value) ? y.place(inside) : y.from };
  });
  ends.sort((a, b) => a.height - b.height);
  let taken = -Infinity;
  return ends.map(({ kind, name, at, height }) => {
    taken = Math.max(height - 8, taken + 14);
    return label(name, at - 4, taken, "end", `name ${kind}`);
  });
}

/** @param {Figure} figure @param {Axis} x @param {Axis} y */
function marks({ marks: steps = [], best = null, reference = null }, x, y) {
  const parts = steps.filter((step) => x.has(step) && step <= x.high).map((step) => {
    const at = x.place(step);
    return svgElement("path", { class: "sample-mark", d: `M${at} ${y.from - 8}l4 7h-8z` });
  });
  if (reference !== null && y.shows(reference)) {
    const at = y.place(reference);
    parts.push(svgElement("path", { class: "reference", d: `M${x.from} ${at}H${x.to}` }));
    parts.push(label("pure guessing", x.to - 4, at - 5, "end", "name"));
  }
  if (best && y.shows(best.value) && x.has(best.step))
    parts.push(svgElement("circle", { class: "best", cx: x.place(best.step), cy: y.place(best.value), r: 7 }));
  return parts;
}

/** @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2 */
function line(x1, y1, x2, y2) {
  return svgElement("line", { x1, y1, x2, y2 });
}

/** @param {string} words @param {number} x @param {number} y @param {"middle" | "end"} anchor @param {string} [kind] */
function label(words, x, y, anchor, kind = "tick") {
  return svgElement("text", { x, y, "text-anchor": anchor, class: kind }, words);
}
