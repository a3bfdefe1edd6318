/**
 * Definitions of every term that the page uses: for the definitions on the page, and for the glossary, which is made from the
 * same source. This module knows nothing of the document.
 */

/** @typedef {{title: string, text: string}} Definition */

/** @type {Readonly<Record<string, Definition>>} */
export const GLOSSARY = Object.freeze({
  attention: {
    title: "Attention",
    text: "How a token reads the tokens before it: each head of each layer gives every earlier token a weight, and the weights add up to 1.",
  },
  branch: {
    title: "Branch",
    text: "A text that begins like another one and goes on differently from one token on. The tokens before it are shared.",
  },
  context: {
    title: "Context",
    text: "The tokens that the model reads before it predicts the next one. Their number is limited: 1,024 in GPT-2.",
  },
  entropy: {
    title: "Entropy",
    text: "The surprisal that is expected at a place, in nats: high where many tokens may follow, 0 where only one can.",
  },
  kl: {
    title: "Kullback–Leibler divergence",
    text: "How far one distribution is from another: the surprisal, in nats, that the second adds on average to what the first draws.",
  },
  frequency_penalty: {
    title: "Frequency penalty",
    text: "A number subtracted from a token's logit for each time that the token already occurs in the text.",
  },
  logit: {
    title: "Logit",
    text: "The number that the model gives a token. Only differences count: a logit higher by 1 makes a token 2.72 times as likely.",
  },
  max_tokens: {
    title: "Length",
    text: "The most tokens that are drawn. A text is shorter if the model ends it.",
  },
  min_p: {
    title: "Min-p",
    text: "Drops every token that is less probable than this fraction of the likeliest token's probability.",
  },
  nat: {
    title: "Nat",
    text: "The unit of surprisal with natural logarithms. One nat is 1.44 bits: a token of probability 37 %.",
  },
  perplexity: {
    title: "Perplexity",
    text: "e to the power of the mean surprisal: the number of equally likely tokens among which the choice would be as hard.",
  },
  presence_penalty: {
    title: "Presence penalty",
    text: "A number subtracted from the logit of every token that already occurs in the text, however often.",
  },
  probability: {
    title: "Probability",
    text: "e to the power of a token's logit, divided by the sum of these for all tokens. All probabilities together are 1.",
  },
  repetition_penalty: {
    title: "Repetition penalty",
    text: "Divides positive logits of tokens that already occur in the text by this number, and multiplies negative ones with it.",
  },
  seed: {
    title: "Seed",
    text: "The number from which all random numbers of a text follow. The same model, prompt, settings and seed give the same text.",
  },
  surprisal: {
    title: "Surprisal",
    text: "Minus the logarithm of a token's probability, in nats. A certain token has 0, one of probability 1/20 has 3.",
  },
  temperature: {
    title: "Temperature",
    text: "Divides all logits. Below 1, likely tokens become likelier; above 1, unlikely ones do. 0 always takes the likeliest.",
  },
  token: {
    title: "Token",
    text: "A piece of text that the model reads or writes at once: a word, a part of one, a sign. A word's token includes the space before it.",
  },
  top_k: {
    title: "Top-k",
    text: "Keeps the k likeliest tokens and cuts all others, however probable they are.",
  },
  top_p: {
    title: "Top-p",
    text: "Keeps the likeliest tokens that together reach the probability p, and cuts the others.",
  },
  vocabulary: {
    title: "Vocabulary",
    text: "All tokens that a model knows, each with a number, its id. GPT-2 has 50,257.",
  },
});
