/** Figures on samples, computed as in `gpt2lab explore sweep` (gpt2lab/exploring/figures.py). */

/**
 * @typedef {{id: number, logprob: number}[]} Sample
 * @typedef {{tokens: number, surprisal: number | null, distinct: (number | null)[], repeated: number | null}} TextFigures
 *   surprisal: mean of minus the log-probability under the unmodified model, in nats per token; distinct: share of different
 *   ones among a sample's single tokens, pairs and triples; repeated: share of runs of four that occurred before
 */

/** @param {Sample[]} samples @returns {TextFigures} null for a figure that is not defined */
export function textFigures(samples) {
  const all = samples.flat();
  const ids = samples.map((sample) => sample.map(({ id }) => id));
  const four = distinct(ids, 4);
  return {
    tokens: all.length,
    surprisal: all.length ? all.reduce((sum, { logprob }) => sum - logprob, 0) / all.length : null,
    distinct: [1, 2, 3].map((n) => distinct(ids, n)),
    repeated: four === null ? null : 1 - four,
  };
}

/**
 * Return the share of different n-grams within each sample among all n-grams; null if there are none.
 * @param {number[][]} samples @param {number} n
 */
function distinct(samples, n) {
  let [different, total] = [0, 0];
  for (const ids of samples) {
    const grams = ids.slice(0, Math.max(0, ids.length - n + 1)).map((_, at) => ids.slice(at, at + n).join());
    different += new Set(grams).size;
    total += grams.length;
  }
  return total ? different / total : null;
}
