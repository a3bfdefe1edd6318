/**
 * Six examples to click: each writes one or two texts and says what to see in them. This module knows nothing of how texts
 * are drawn.
 */

import { byId, element } from "./elements.js";
import { DEFAULTS, samplingParams } from "./settings.js";
import { mountToolbar } from "./toolbar.js";

/**
 * @typedef {object} Example
 * @property {string} title
 * @property {string[]} prompts  a text is written for each, the last one is on display
 * @property {Record<string, number>} [params]  the sampling parameters that differ from the defaults
 * @property {number} [length]
 * @property {string} note  what to see
 */

const SEED = 1;

/** @type {readonly Example[]} */
export const EXAMPLES = Object.freeze([
  {
    title: "A trailing space",
    prompts: ["Once upon a time there was a", "Once upon a time there was a "],
    note:
      "The second prompt ends with a space. Words bring their own space along (␣king), so after a lone space token the model " +
      "has to write a word without one, which it has rarely seen. Go Back to compare.",
  },
  {
    title: "Repetition at 0",
    prompts: ["Once upon a time"],
    params: { temperature: 0 },
    length: 80,
    note:
      "Temperature 0 always takes the likeliest token. Once the text comes back to words that it had before, they are likely " +
      "again, and it goes round in circles. Every seed gives this text.",
  },
  {
    title: "Temperature 100",
    prompts: ["Once upon a time"],
    params: { temperature: 100 },
    note:
      "All logits are divided by 100, so nothing distinguishes the tokens any more: each of them has nearly the same " +
      "probability, and what is drawn are random pieces of words. Move the slider back and watch.",
  },
  {
    title: "Two names, two stories",
    prompts: ["Hi! My name is Isamu!", "Hi! My name is John!"],
    params: { temperature: 0.5 },
    length: 60,
    note:
      "Both texts have the same seed and settings; only the name differs. One other token in the prompt changes all " +
      "distributions after it, so the same random numbers draw another story. Go Back to compare.",
  },
  {
    title: "A rare word",
    prompts: ["The queen found an antidisestablishmentarianist"],
    note:
      "Look at the prompt's tokens. Frequent words are one token each; a rare word is put together from pieces. Inside the word, " +
      "the model knows each next piece better than the one before.",
  },
  {
    title: "A wall of <|endoftext|>",
    prompts: ["Once upon a time"],
    params: { temperature: 0 },
    length: 20,
    note:
      "The original program divided by the temperature, also by 0. GPT-2's logits are all negative, so all became −∞, all " +
      "tokens tied, and the last one won: 50256, <|endoftext|>, for ever. Here, 0 takes the likeliest token instead.",
  },
]);

/**
 * @param {HTMLElement} host
 * @param {typeof import("./settings.js").settings} settings
 * @param {() => Promise<unknown>} write  draws a text for the current settings
 */
export function mountExamples(host, settings, write) {
  const note = byId("lesson");
  const buttons = EXAMPLES.map((example) => {
    const button = element("button.button.quiet", { type: "button" }, example.title);
    button.addEventListener("click", () => run(example));
    return button;
  });
  const run = async (/** @type {Example} */ { prompts, params = {}, length = 40, title, note: text }) => {
    note.hidden = false;
    note.replaceChildren(element("strong", {}, title), ` ${text}`);
    for (const prompt of prompts) {
      settings.set({ ...samplingParams(DEFAULTS), ...params, prompt, seed: SEED, max_tokens: length });
      await write();
    }
  };
  host.replaceChildren(...buttons);
  mountToolbar(host);
}
