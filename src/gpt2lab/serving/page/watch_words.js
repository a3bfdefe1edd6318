/** Finds the words of a text that are new compared with another. This module knows nothing of the document. */

/** @typedef {{text: string, isNew: boolean}} Piece */

const MOST_WORDS = 1500; // of either text: the table below has a cell for each pair

/**
 * Split a text into pieces and mark the words that `before` lacks at their place (longest common subsequence).
 * @param {string} before
 * @param {string} after
 * @returns {Piece[] | null} pieces that make up `after`; null if the texts are too long to compare
 */
export function whatIsNew(before, after) {
  const [old, now] = [words(before), words(after)];
  if (old.length > MOST_WORDS || now.length > MOST_WORDS) return null;
  const kept = inBoth(old, now);
  /** @type {Piece[]} */
  const pieces = [];
  now.forEach((word, at) => {
    const isNew = !kept.has(at);
    const last = pieces.at(-1);
    if (last && last.isNew === isNew) last.text += word;
    else pieces.push({ text: word, isNew });
  });
  return pieces;
}

/**
 * Return the words, each with the space before it; space at the end is a piece of its own.
 * @param {string} text @returns {string[]}
 */
function words(text) {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/** Return the places of `now` whose words `old` has in the same order. @param {string[]} old @param {string[]} now */
function inBoth(old, now) {
  const width = now.length + 1;
  const lengths = new Uint16Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i -= 1)
    for (let j = now.length - 1; j >= 0; j -= 1)
      lengths[i * width + j] =
        old[i].trim() === now[j].trim()
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
  const places = new Set();
  for (let i = 0, j = 0; i < old.length && j < now.length; ) {
    if (old[i].trim() === now[j].trim()) {
      places.add(j);
      i += 1;
      j += 1;
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return places;
}
