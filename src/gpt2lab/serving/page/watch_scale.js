/**
 * What a chart of losses shows and how smooth it is: arithmetic on numbers. This module knows nothing of the document.
 */

const NEIGHBOURS = 2; // on either side: a spike of two updates disappears
const BODY = 0.05; // share of the values on either side that are not the body
const REACH = 8; // the axis extends beyond the body by at most this many times the range of the body
const FEWEST = 20; // values of which an outlier can be told
const SLIDER = 100 / 3; // positions of the slider per power of ten
const SHARE = 30; // smoothing reaches over this part of a run

/**
 * Return the lowest and the highest value of an axis on which outliers do not flatten the curves; null without values.
 * Short spikes count nothing; longer stretches count as far as they lie near the body of all values.
 * @param {number[][]} curves  values of each, in their order
 * @param {boolean} [log]
 * @returns {[number, number] | null}
 */
export function typicalRange(curves, log = false) {
  const scale = log ? Math.log : (/** @type {number} */ value) => value;
  const usable = (/** @type {number} */ value) => Number.isFinite(value) && (!log || value > 0);
  const values = curves.flatMap((curve) => steady(curve.filter(usable))).sort((a, b) => a - b);
  if (!values.length) return null;
  const [least, most] = [values[0], values[values.length - 1]];
  if (values.length < FEWEST) return [least, most];
  const [low, high] = [BODY, 1 - BODY].map((share) => scale(values[Math.round(share * (values.length - 1))]));
  const room = REACH * (high - low);
  if (room === 0) return [least, most];
  const inside = values.filter((value) => scale(value) >= low - room && scale(value) <= high + room);
  return [inside[0], inside[inside.length - 1]];
}

/** Return the median of each value and its neighbours on both sides; short curves as they are. @param {number[]} values */
function steady(values) {
  if (values.length < FEWEST) return values;
  return values.map((_, at) => {
    const half = Math.min(NEIGHBOURS, at, values.length - 1 - at);
    return values.slice(at - half, at + half + 1).sort((a, b) => a - b)[half];
  });
}

/**
 * Return the decay at a position of the slider: 0, then ever closer to 1 (0.9 at 33, 0.99 at 67, 0.999 at 100).
 * @param {number} position
 */
export function decayAt(position) {
  return 1 - 10 ** (-position / SLIDER);
}

/** Return the position that smooths over a thirtieth of a run of `updates` updates. @param {number} updates */
export function fittedPosition(updates) {
  return updates > SHARE ? Math.round(SLIDER * Math.log10(updates / SHARE)) : 0;
}

/**
 * Return the number of values that lie beyond a chart, and the one that is farthest from it; null if none does.
 * @param {number[]} values @param {(value: number) => number} beyond  the distance from the chart, 0 inside
 */
export function outside(values, beyond) {
  const found = values.filter((value) => beyond(value) !== 0);
  if (!found.length) return null;
  const distance = (/** @type {number} */ value) => Math.abs(beyond(value));
  return { count: found.length, farthest: found.reduce((far, value) => (distance(value) > distance(far) ? value : far)) };
}
