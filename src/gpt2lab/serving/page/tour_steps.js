/**
 * The steps of the tour: at most 50 words each, and one thing to do. This module knows nothing of the document.
 */

/** @typedef {{title: string, text: string, task: string, target: string}} Step  target: a selector */

/** @type {readonly Step[]} */
export const STEPS = Object.freeze([
  {
    title: "Tokens",
    text:
      "A model reads and writes tokens: whole words, or pieces of rarer ones. The page shows the tokens of your prompt, " +
      "with the spaces that belong to them.",
    task: "Type a long, rare word into the prompt and count its pieces.",
    target: "#prompt-tokens",
  },
  {
    title: "The distribution",
    text:
      "At each place in a text, the model gives every token of its vocabulary a probability. The list shows the " +
      "likeliest tokens. The text contains the one that was drawn.",
    task: "Point at tokens of the text. Find one that was not the likeliest.",
    target: "#inspector",
  },
  {
    title: "Temperature",
    text:
      "Temperature divides the logits before they become probabilities. At 0, the likeliest token always wins. " +
      "Above 1, unlikely tokens gain.",
    task: "Drag the temperature from 0 to 100. Watch the bars and the text.",
    target: "#controls .slider",
  },
  {
    title: "The cuts",
    text:
      "Top-k keeps the k likeliest tokens and cuts all others: at top-k 40, the 41st token can never be drawn. " +
      "Top-p and min-p cut by probability.",
    task: "Set top-k to 3 and see which tokens are cut.",
    target: "#settings",
  },
  {
    title: "The random number",
    text:
      "All tokens lie on a line from 0 to 1, each as long as its probability. A random number falls on the " +
      "line, and the token there is drawn.",
    task: "Click a token and find its number on the line.",
    target: ".stages",
  },
  {
    title: "Branching",
    text:
      "You can put another token in any place. The text continues from there as a branch: every later " +
      "distribution depends on the tokens before it, so it has to be drawn again.",
    task: "Click a token, then an alternative in the list.",
    target: "#inspector",
  },
  {
    title: "The seed",
    text:
      "The seed determines all random numbers, one for each place. The same model, prompt, settings and seed " +
      "therefore give the same text, token for token.",
    task: "Press Write, then Replay.",
    target: ".seed",
  },
  {
    title: "Attention",
    text:
      "To predict a token, each head of each layer looks at the tokens so far, with weights that add up to 1. " +
      "Some heads look at the previous token, others at names.",
    task: "Choose another layer and head. Which token does it read most?",
    target: "#inside-attention",
  },
  {
    title: "What a layer would have said",
    text:
      "Every layer adds to what the layers before it found. If a layer were the last, it would predict a token, " +
      "too. Early layers guess wildly; later ones come close to the final answer.",
    task: "Go down the layers. Where does the final answer first lead?",
    target: "#inside-lens",
  },
]);
