/**
 * Conversion of token ids to text. A vocabulary is a list of strings, one for each id, in which every character
 * represents one byte (U+0000 to U+00FF): tokens may end in the middle of a character. This module knows nothing of the
 * document.
 */

/**
 * Return the bytes of token `id`; none for an id outside the vocabulary.
 * @param {string[]} vocabulary @param {number} id
 */
function tokenBytes(vocabulary, id) {
  return Uint8Array.from(vocabulary[id] ?? "", (character) => character.charCodeAt(0));
}

/** A decoder that turns ids into text as they come, and holds back the bytes of a character until it is complete. */
export class Decoder {
  #vocabulary;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** @param {string[]} vocabulary */
  constructor(vocabulary) {
    this.#vocabulary = vocabulary;
  }

  /** Add token `id` and return the text that is now certain. @param {number} id */
  push(id) {
    return this.#decoder.decode(tokenBytes(this.#vocabulary, id), { stream: true });
  }

  /** Return the rest at the end: U+FFFD for an unfinished character, else nothing. */
  rest() {
    return this.#decoder.decode();
  }
}

/** Return the text of `ids`. @param {string[]} vocabulary @param {number[]} ids */
export function textOf(vocabulary, ids) {
  const decoder = new Decoder(vocabulary);
  return ids.map((id) => decoder.push(id)).join("") + decoder.rest();
}

const VISIBLE = new Map([
  [" ", "␣"],
  ["\n", "↵"],
  ["\t", "⇥"],
  ["\u00a0", "⍽"],
]);
const strict = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/**
 * Return a token for bars and lists: visible white space, and `\xNN` for bytes that are not text.
 * @param {string[]} vocabulary @param {number} id
 */
export function tokenLabel(vocabulary, id) {
  if (vocabulary[id] === undefined || vocabulary[id] === "") return `token ${id}`;
  const bytes = tokenBytes(vocabulary, id);
  try {
    return Array.from(strict.decode(bytes), visible).join("");
  } catch {
    return Array.from(bytes, hex).join("");
  }
}

/**
 * Return a token to be read aloud or quoted in a sentence: without marks where possible.
 * @param {string[]} vocabulary @param {number} id
 */
export function tokenName(vocabulary, id) {
  const label = tokenLabel(vocabulary, id);
  const bare = label.replace(/^␣/, "");
  if (bare === "") return "space";
  if (/^↵+$/.test(bare)) return bare.length > 1 ? `${bare.length} new lines` : "new line";
  return bare;
}

/** @param {string} character */
function visible(character) {
  const known = VISIBLE.get(character);
  if (known) return known;
  return /\p{C}|\p{Z}/u.test(character) ? Array.from(new TextEncoder().encode(character), hex).join("") : character;
}

/** @param {number} byte */
function hex(byte) {
  return `\\x${byte.toString(16).padStart(2, "0").toUpperCase()}`;
}
