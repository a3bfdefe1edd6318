/**
 * The steps of the tour: at most 50 words each, and one thing to do. This module knows nothing of the document.
 */

/**
 * @typedef {object} Step
 * @property {string} title
 * @property {string} text  `{word|term}` is a word with a definition in the glossary
 * @property {string} task
 * @property {readonly string[]} parts  selectors of what the task needs: first what the user acts on, then what shows the effect
 * @property {readonly string[]} [narrowParts]  the same where the page has one column
 * @property {boolean} [example]  the step needs the example, which follows the settings, instead of the text on display
 * @property {boolean} [inside]  the step looks inside the model and needs nothing of the column beside it
 * @property {number} [after]  the step looks at the token this many after the first one after the prompt
 * @property {"always" | "narrow"} [pinned]  it is pinned; narrow: where the list of alternatives is there only for a pinned token
 */

/** @type {readonly Step[]} */
export const STEPS = Object.freeze([
  {
    title: "Tokens",
    text:
      "A model reads and writes {tokens|token}: whole words, or pieces of rarer ones. The tokens of your prompt are below it: " +
      "␣ stands for a space, and the number says how much the token {surprised|surprisal} the model.",
    task: "Add a long, rare word to the prompt and count its pieces.",
    parts: ["#prompt", "#prompt-tokens"],
    example: true,
  },
  {
    title: "The distribution",
    text:
      "At each place in a text, the model gives every token it knows a {probability|probability}. The one in the text, " +
      "marked ◂ in the list, was drawn at random, according to these probabilities.",
    task: "Point at tokens of the text, or tap them. Find one that was not the likeliest.",
    parts: ["#tokens", "#inspector"],
    example: true,
    pinned: "narrow",
  },
  {
    title: "Temperature",
    text:
      "The model gives each token a number, its {logit|logit}: the higher, the likelier. The lower the " +
      "{temperature|temperature}, the more often the likeliest token wins; at 0, it always does. Above 1, unlikely tokens gain.",
    task: "Drag the temperature from 0 to 100. Watch the text and the list's dark bars.",
    parts: ["#controls [data-field=temperature]", "#tokens", "#inspector"],
    narrowParts: ["#sheet-controls [data-field=temperature]", "#tokens", "#inspector"],
    example: true,
    pinned: "narrow",
  },
  {
    title: "The cuts",
    text:
      "{Top-k|top_k} keeps the k likeliest tokens and cuts all others: at top-k 40, the 41st token can never be drawn. " +
      "{Top-p|top_p} and {min-p|min_p} cut by probability.",
    task: "Set top-k to 3. Which tokens are cut?",
    parts: ["#controls [data-field=top_k]", "#inspector"],
    narrowParts: ["#sheet-controls [data-field=top_k]", "#tokens", "#inspector"],
    example: true,
    pinned: "narrow",
  },
  {
    title: "The random number",
    text:
      "All tokens lie on a line from 0 to 1, each as long as its probability. The {seed|seed} gives a random number for this " +
      "place; the token it falls on is drawn.",
    task: "Raise the temperature slowly. The number stays; at what temperature does it fall on another token?",
    parts: ["#controls [data-field=temperature]", "#stage-table .draw-part"],
    narrowParts: ["#sheet-controls [data-field=temperature]", "#stage-table .draw-part"],
    example: true,
    pinned: "always",
  },
  {
    title: "Branching",
    text:
      "You can put another token at any place. The text continues from there as a {branch|branch}: every later token depends " +
      "on those before it, so it is drawn again.",
    task: "Click a token in the text, then another one in the list. Which tokens stay?",
    parts: ["#tokens", "#inspector"],
    example: true,
    pinned: "narrow",
  },
  {
    title: "The seed",
    text:
      "The {seed|seed} fixes the random numbers, one for each place. The same model, prompt, settings and seed give the same " +
      "text, token for token. The line below the text names the seed.",
    task: "Press Write, then Replay. Do the two texts differ?",
    parts: ["#run", "#replay", "#made"],
  },
  {
    title: "Attention",
    text:
      "To predict a token, the model reads those before it in several {layers|layer}, each with several " +
      "{heads|attention_head}. A head gives each token a weight, which says how much it reads from that token; the weights add up to 1.",
    task: "Choose another layer and head. Which token does it read most?",
    parts: ["#inside-reads"],
    inside: true,
    after: 3,
  },
  {
    title: "What a layer would have said",
    text:
      "Each layer adds to what the layers before it found. A row shows which token would be likeliest if the model stopped " +
      "there: wild guesses first, its real prediction in the last row.",
    task: "Read “likeliest” from the last row up. For how many rows does the token stay the same?",
    parts: ["#inside-lens tbody tr:last-child", "#inside-said"],
    inside: true,
    after: 11,
  },
]);
