/**
 * From token ids to text. A vocabulary is a list of strings, one for each id, in which every character stands for one
 * byte (U+0000 to U+00FF): tokens may end in the middle of a character. Knows nothing of the document.
 */

/**
 * The bytes of token `id`; none for an id that the vocabulary does not have.
 * @param {string[]} vocabulary @param {number} id
 */
function tokenBytes(vocabulary, id) {
  return Uint8Array.from(vocabulary[id] ?? "", (character) => character.charCodeAt(0));
}

/** Turns ids into text as they come, and holds back the bytes of a character until it is whole. */
export class Decoder {
  #vocabulary;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** @param {string[]} vocabulary */
  constructor(vocabulary) {
    this.#vocabulary = vocabulary;
  }

  /** Text that is certain once token `id` is known. @param {number} id */
  push(id) {
    return this.#decoder.decode(tokenBytes(this.#vocabulary, id), { stream: true });
  }

  /** What is left at the end: U+FFFD for an unfinished character, else nothing. */
  rest() {
    return this.#decoder.decode();
  }
}

/** The text of `ids`. @param {string[]} vocabulary @param {number[]} ids */
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
 * A token for bars and lists: white space visible, bytes that are no text as `\xNN`.
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
 * A token as it is read aloud and quoted in sentences: without marks where it can do without.
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
