/**
 * Where a value lies on its slider. No straight line reaches both 1.1 and 100 with care, so a scale is given by a few
 * points with their values and is straight between them; what is read off has the digits that can be told apart there.
 */

import { PARAMETERS } from "./stages.js";

export const STEPS = 1000; // positions of a slider: 0 to this

/** The temperatures that the article tried by hand, each at a point of the scale. */
export const ARTICLE = Object.freeze([0, 0.5, 1, 1.1, 1.2, 1.3, 2, 100]);

export class Scale {
  #points;
  #digits;
  #end;

  /**
   * @param {[number, number][]} points  position and value, both ascending
   * @param {{digits?: number, end?: number}} how  the most digits behind the point; what the last position means instead
   */
  constructor(points, { digits = 4, end = null } = {}) {
    this.#points = points;
    this.#digits = digits;
    this.#end = end;
  }

  /** The value at a position. */
  value(position) {
    if (this.#end !== null && position >= STEPS) return this.#end;
    const [[x0, y0], [x1, y1]] = this.#segment((point) => position <= point[0]);
    const slope = (y1 - y0) / (x1 - x0);
    const digits = Math.min(this.#digits, Math.max(0, Math.round(-Math.log10(slope))));
    return Number((y0 + (position - x0) * slope).toFixed(digits));
  }

  /** The position of a value; the nearest end for one beyond. */
  position(value) {
    if (value === this.#end) return STEPS;
    const [[x0, y0], [x1, y1]] = this.#segment((point) => value <= point[1]);
    const position = Math.round(x0 + ((value - y0) / (y1 - y0)) * (x1 - x0));
    return Math.min(Math.max(position, 0), this.#end === null ? STEPS : STEPS - 1);
  }

  /** The two points around what is `reached` first at the second of them. */
  #segment(reached) {
    const found = this.#points.findIndex(reached);
    const after = found < 0 ? this.#points.length - 1 : Math.max(found, 1);
    return [this.#points[after - 1], this.#points[after]];
  }
}

/** A scale for each setting that has a slider. */
export const SCALES = Object.freeze({
  ...Object.fromEntries(PARAMETERS.map((each) => [each.name, scaleOf(each)])),
  max_tokens: new Scale(evenly([1, 20, 50, 100, 200, 500, 1000]), { digits: 0 }),
});

function scaleOf({ slider, digits, off_last, off }) {
  return new Scale(Array.isArray(slider[0]) ? slider : evenly(slider), { digits, end: off_last ? off : null });
}

function evenly(values) {
  return values.map((value, at) => [Math.round((at / (values.length - 1)) * STEPS), value]);
}
