/**
 * Six examples to click: each writes one or two texts and explains them. This module knows nothing of how texts
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
 * @property {string} note  the explanation
 */

const SEED = 1;

/** @type {readonly Example[]} */
export const EXAMPLES = Object.freeze([
  {
    title: "A trailing space",
    prompts: ["Once upon a time there was a", "Once upon a time there was a "],
    note:
      "The second prompt ends with a space. Words bring their own space (␣king), so after a lone space token the model " +
      "has to write a word without one, which it has rarely seen. Press Back to compare.",
  },
  {
    title: "Repetition at 0",
    prompts: ["Once upon a time"],
    params: { temperature: 0 },
    length: 80,
    note:
      "Temperature 0 always takes the likeliest token. Once the text returns to earlier words, the same words are likely " +
      "to follow, so it goes round in circles. Every seed gives this text.",
  },
  {
    title: "Temperature 100",
    prompts: ["Once upon a time"],
    params: { temperature: 100 },
    note:
      "All logits are divided by 100, so hardly anything distinguishes the tokens: all of them have nearly the same " +
      "probability, and the text is made of random pieces of words. Move the slider back and watch.",
  },
  {
    title: "Two names, two stories",
    prompts: ["Hi! My name is Isamu!", "Hi! My name is John!"],
    params: { temperature: 0.5 },
    length: 60,
    note:
      "Both texts have the same seed and settings; only the name differs. A different name in the prompt changes all " +
      "distributions after it, so the same random numbers draw another story. Press Back to compare.",
  },
  {
    title: "A rare word",
    prompts: ["The queen found an antidisestablishmentarianist"],
    note:
      "Look at the prompt's tokens. Frequent words are one token each; a rare word is put together from pieces. A model that " +
      "has read the word often expects its later pieces. For tales it is new, so every piece is a surprise.",
  },
  {
    title: "A wall of <|endoftext|>",
    prompts: ["Once upon a time"],
    params: { temperature: 0 },
    length: 20,
    note:
      "The original program divided the logits by the temperature, even by 0. GPT-2's logits are all negative, so all " +
      "became −∞, all tokens tied, and the last one won: 50256, <|endoftext|>, forever. Here, 0 takes the likeliest token instead.",
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
