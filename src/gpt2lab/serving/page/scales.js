/**
 * Where a value lies on its slider. No straight line reaches both 1.1 and 100 with care, so a scale is given by a few
 * points with their values and is straight between them; what is read off has the digits that can be told apart there.
 */

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
  temperature: new Scale([
    [0, 0],
    [140, 0.5],
    [280, 1],
    [380, 1.1],
    [480, 1.2],
    [580, 1.3],
    [700, 2],
    [790, 5],
    [850, 10],
    [900, 20],
    [950, 50],
    [1000, 100],
  ]),
  top_k: new Scale(evenly([1, 10, 40, 100, 200, 500, 1000, 5000, 20_000, 50_000]), { digits: 0, end: 0 }),
  top_p: new Scale(evenly([0, 0.5, 0.8, 0.9, 0.95, 0.99, 1])),
  min_p: new Scale(evenly([0, 0.01, 0.05, 0.1, 0.2, 0.5, 1])),
  repetition_penalty: new Scale(evenly([0.5, 1, 1.1, 1.2, 1.5, 2]), { digits: 2 }),
  presence_penalty: new Scale(evenly([-2, 2]), { digits: 1 }),
  frequency_penalty: new Scale(evenly([-2, 2]), { digits: 1 }),
  max_tokens: new Scale(evenly([1, 20, 50, 100, 200, 500, 1000]), { digits: 0 }),
});

function evenly(values) {
  return values.map((value, at) => [Math.round((at / (values.length - 1)) * STEPS), value]);
}
