/**
 * The positions of values on sliders. A linear scale cannot resolve 1.1 and also reach 100, so a scale is linear between a
 * few given points. A value read off the slider has only the digits that its positions can distinguish.
 */

import { PARAMETERS } from "./stages.js";

export const STEPS = 1000; // positions of a slider: 0 to this

/** The temperatures that the article tried by hand; each is a point of the scale. */
export const ARTICLE = Object.freeze([0, 0.5, 1, 1.1, 1.2, 1.3, 2, 100]);

class Scale {
  #points;
  #digits;
  #end;

  /**
   * @param {[number, number][]} points  position and value, both ascending
   * @param {{digits?: number, end?: number | null}} [how]  the most decimal digits; the value of the last position instead
   */
  constructor(points, { digits = 4, end = null } = {}) {
    this.#points = points;
    this.#digits = digits;
    this.#end = end;
  }

  /** Return the value at a position. @param {number} position */
  value(position) {
    if (this.#end !== null && position >= STEPS) return this.#end;
    const [[x0, y0], [x1, y1]] = this.#segment((point) => position <= point[0]);
    const slope = (y1 - y0) / (x1 - x0);
    const digits = Math.min(this.#digits, Math.max(0, Math.round(-Math.log10(slope))));
    return Number((y0 + (position - x0) * slope).toFixed(digits));
  }

  /** Return the position of a value; the nearest end if the value is beyond it. @param {number} value */
  position(value) {
    if (value === this.#end) return STEPS;
    const [[x0, y0], [x1, y1]] = this.#segment((point) => value <= point[1]);
    const position = Math.round(x0 + ((value - y0) / (y1 - y0)) * (x1 - x0));
    return Math.min(Math.max(position, 0), this.#end === null ? STEPS : STEPS - 1);
  }

  /**
   * Return the first point for which `reached` is true, after the point before it.
   * @param {(point: [number, number]) => boolean} reached
   */
  #segment(reached) {
    const found = this.#points.findIndex(reached);
    const after = found < 0 ? this.#points.length - 1 : Math.max(found, 1);
    return [this.#points[after - 1], this.#points[after]];
  }
}

/** A scale for each setting that has a slider. @type {Readonly<Record<string, Scale>>} */
export const SCALES = Object.freeze({
  ...Object.fromEntries(PARAMETERS.map((each) => [each.name, scaleOf(each)])),
  max_tokens: new Scale(evenly([1, 20, 50, 100, 200, 500, 1000]), { digits: 0 }),
});

/** @param {import("./stages.js").Parameter} parameter */
function scaleOf({ slider, digits, off_last, off }) {
  const points = slider.map((each, at) => (typeof each === "number" ? placed(each, at, slider.length) : each));
  return new Scale(points, { digits, end: off_last ? off : null });
}

/** @param {number[]} values @returns {[number, number][]} */
function evenly(values) {
  return values.map((value, at) => placed(value, at, values.length));
}

/**
 * Return the `at`-th of `n` evenly spaced points.
 * @param {number} value @param {number} at @param {number} n @returns {[number, number]}
 */
function placed(value, at, n) {
  return [Math.round((at / (n - 1)) * STEPS), value];
}
