/**
 * A training run as the page knows it, and the arithmetic on its curves. This module knows nothing of the document.
 *
 * A row of a curve is `[first, last, count, low step, low, high, mean, …]`: on a long curve one row covers many updates.
 * In rows of updates, learning rate and tokens per second follow the mean loss.
 */

export const FIRST = 0;
export const LAST = 1;
export const COUNT = 2;
export const LOW = 4;
export const HIGH = 5;
export const MEAN = 6;
export const RATE = 7;
export const SPEED = 8;

/**
 * @typedef {[number, number, number, number, number, number, number, number | null, number | null]} Row  a validation's
 *   row ends with the mean
 * @typedef {{from: number, rows: Row[]}} Change
 *
 * @typedef {object} Facts  the latest facts besides the curves; unknown ones are null or missing
 * @property {string} [state]
 * @property {string | null} [problem]
 * @property {number | null} [unread]  lines that could not be read
 * @property {number | null} [reading]  the share of the file read so far, while it is read for the first time
 * @property {string | null} [reason]  why training ended, as the trainer wrote it
 * @property {number | null} [vocabulary]  the number of tokens in the model's vocabulary
 * @property {{model: string, base: string | null, newer: boolean} | null} [served]  the run's model on this server
 * @property {number | null} [changed_at]
 * @property {number | null} [ends_at]
 * @property {number | null} [step]
 * @property {number | null} [last_step]
 * @property {number | null} [loss]
 * @property {number | null} [average]
 * @property {number | null} [learning_rate]
 * @property {number | null} [tokens_per_second]
 * @property {number | null} [seconds]
 * @property {number | null} [memory]
 * @property {{step: number, loss: number} | null} [validation]
 * @property {{step: number, loss: number} | null} [best]
 * @property {Record<string, any> | null} [settings]
 * @property {[number, number][]} [samples]  steps and versions
 */

export class Run {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    /** @type {Facts} */
    this.facts = {};
    /** @type {Row[]} */
    this.updates = [];
    /** @type {Row[]} */
    this.validations = [];
  }

  /**
   * Take the data of a `run` event: changed facts, and rows that replace all rows from a given one on.
   * @param {{updates?: Change, validations?: Change} & Facts} data
   */
  take({ updates, validations, ...facts }) {
    if (updates) replace(this.updates, updates);
    if (validations) replace(this.validations, validations);
    Object.assign(this.facts, facts);
  }
}

/** @param {Row[]} rows @param {Change} change */
function replace(rows, { from, rows: later }) {
  rows.length = from;
  for (const row of later) rows.push(row);
}

/**
 * Return the exponential moving average of the loss, a value for each row. `decay` is the decay from one update to the next,
 * so a row of many updates has the weight of all of them; early values are not biased towards zero.
 * @param {Row[]} rows @param {number} decay
 * @returns {number[]}
 */
export function smoothed(rows, decay) {
  let sum = 0;
  let weight = 0;
  return rows.map((row) => {
    const kept = decay ** row[COUNT];
    sum = kept * sum + (1 - kept) * row[MEAN];
    weight = kept * weight + (1 - kept);
    return sum / weight;
  });
}

/** Return the middle of a row's updates. @param {Row} row */
export function middle(row) {
  return (row[FIRST] + row[LAST]) / 2;
}

/**
 * Return the index of the row nearest to `step`; rows ascend. -1 if there are none.
 * @param {Row[]} rows @param {number} step
 */
export function nearest(rows, step) {
  let low = 0;
  let high = rows.length - 1;
  while (low < high) {
    const between = (low + high) >> 1;
    if ((middle(rows[between]) + middle(rows[between + 1])) / 2 < step) low = between + 1;
    else high = between;
  }
  return high < 0 ? -1 : low;
}

/** Return the last row that begins at or before `step`; null if there is none. @param {Row[]} rows @param {number} step */
export function upTo(rows, step) {
  let found = null;
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const between = (low + high) >> 1;
    if (rows[between][FIRST] <= step) {
      found = rows[between];
      low = between + 1;
    } else high = between;
  }
  return found;
}

/**
 * Return at most `most` evenly spaced numbers from 0 to `n` - 1, with the first and the last.
 * @param {number} n @param {number} most
 */
export function evenly(n, most) {
  if (n <= most) return Array.from({ length: n }, (_, at) => at);
  return Array.from({ length: most }, (_, at) => Math.round((at * (n - 1)) / (most - 1)));
}

/**
 * Return round numbers in a range, for an axis.
 * @param {number} low @param {number} high @param {number} most
 * @param {boolean} [log]  on a logarithmic axis: powers of ten with 2 and 5 between, if those are enough
 */
export function ticks(low, high, most, log = false) {
  if (log) {
    const found = logTicks(low, high);
    if (found.length >= 3) return found.length <= most ? found : found.filter((_, at) => at % Math.ceil(found.length / most) === 0);
  }
  const rough = (high - low) / Math.max(1, most - 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

/** @param {number} low @param {number} high */
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
    for (const factor of [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(12));
      if (value >= low && value <= high) found.push(value);
    }
  return found;
}

// ---- in words --------------------------------------------------------------------------------------------------

/** Format a duration as `1:02:03` or `2:03`. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
}

/** Return the time since an event in round words. @param {number} seconds */
export function ago(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/** @param {number} value */
export function count(value) {
  return Math.round(value).toLocaleString("en-US");
}

/** @param {number} value */
export function lossText(value) {
  return value < 100 ? value.toFixed(3) : value.toPrecision(4);
}

/** @param {number} value */
export function rateText(value) {
  return value === 0 ? "0" : value.toExponential(1).replace("e+", "e");
}

/** @param {number} value */
export function bytesText(value) {
  return value >= 2 ** 30 ? `${(value / 2 ** 30).toFixed(1)} GiB` : `${Math.round(value / 2 ** 20)} MiB`;
}

/** Return the text of a number at a tick of an axis. @param {number} value */
export function tickText(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size > 0 && size < 1e-3) return value.toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}
