/**
 * Definitions of every term that the page uses: for the definitions on the page, and for the glossary, which is made from the
 * same source. This module knows nothing of the document.
 */

/** @typedef {{title: string, text: string}} Definition */

/** @type {Readonly<Record<string, Definition>>} */
export const GLOSSARY = Object.freeze({
  attention: {
    title: "Attention",
    text:
      "How the model reads the text so far: at each token, each head of each layer gives that token and every earlier one " +
      "a weight. The weights add up to 1.",
  },
  attention_head: {
    title: "Attention head",
    text:
      "One of several parts of a layer's attention. Each head has its own weights for the tokens so far, and copies what it " +
      "finds there into the residual stream.",
  },
  branch: {
    title: "Branch",
    text: "A text that shares its beginning with another text and continues differently from one token on.",
  },
  context: {
    title: "Context",
    text: "The tokens that the model reads before it predicts the next one. Their number is limited: 1,024 in GPT-2.",
  },
  cosine: {
    title: "Cosine",
    text: "How alike two directions are: 1 for the same direction, 0 for directions that have nothing in common, −1 for opposite ones.",
  },
  direct_logit_attribution: {
    title: "Direct logit attribution",
    text:
      "A token's logit as a sum: what the embeddings, and the attention and the MLP of each layer, add to it. It counts what a " +
      "part adds itself, not what later layers make of it.",
  },
  embedding: {
    title: "Embedding",
    text: "The list of numbers that stands for a token inside the model. GPT-2's smallest model has 768 numbers for each token.",
  },
  entropy: {
    title: "Entropy",
    text: "The expected surprisal of the next token, in nats: high where many tokens may follow, 0 where only one can.",
  },
  kl: {
    title: "Kullback–Leibler divergence",
    text: "How far one distribution is from another: the extra surprisal, in nats, of an average token of the first under the second.",
  },
  frequency_penalty: {
    title: "Frequency penalty",
    text: "A number subtracted from a token's logit once for each time the token occurs in the text so far.",
  },
  layer: {
    title: "Layer",
    text:
      "One of the model's steps, all built alike: attention, which reads earlier tokens, and then an MLP. GPT-2's smallest model " +
      "has 12, the largest 48.",
  },
  layer_norm: {
    title: "Layer norm",
    text:
      "Brings the numbers at a token to the mean 0 and the standard deviation 1, then multiplies each by a learned gain and adds " +
      "a learned bias.",
  },
  logit: {
    title: "Logit",
    text:
      "The number that the model gives a token before probabilities are computed. Only differences count: a logit " +
      "higher by 1 makes a token 2.72 times as likely.",
  },
  logit_lens: {
    title: "Logit lens",
    text:
      "The prediction that the model would make if no layers followed: the residual stream so far, turned into logits as it is " +
      "at the end.",
  },
  max_tokens: {
    title: "Length",
    text: "The maximum number of tokens to draw. The text is shorter if the model ends it earlier.",
  },
  min_p: {
    title: "Min-p",
    text: "Cuts every token whose probability is below this fraction of the likeliest token's.",
  },
  mlp: {
    title: "MLP",
    text:
      "Multilayer perceptron: the second half of a layer. It works on each token by itself, where attention moves information " +
      "between tokens.",
  },
  nat: {
    title: "Nat",
    text:
      "The unit of surprisal measured with natural logarithms. One nat is 1.44 bits, the surprisal of a token with a " +
      "probability of 37 %.",
  },
  patching: {
    title: "Activation patching",
    text:
      "Replacing what a part of the model computes with zeros, or with what it computes in another text. If the prediction " +
      "changes, the part matters for it.",
  },
  perplexity: {
    title: "Perplexity",
    text: "e to the power of the mean surprisal: the number of equally likely tokens among which the choice would be as hard.",
  },
  position: {
    title: "Position embedding",
    text: "The list of numbers that tells the model where a token stands: one for each position, added to the token's embedding.",
  },
  presence_penalty: {
    title: "Presence penalty",
    text: "A number subtracted once from the logit of every token that occurs in the text so far, however often.",
  },
  probability: {
    title: "Probability",
    text: 
      "How likely a token is to come next: e to the power of its logit, divided by the sum of these powers over all tokens. " +
      "All probabilities add up to 1.",
  },
  repetition_penalty: {
    title: "Repetition penalty",
    text: "For tokens that occur in the text so far, divides positive logits by this number and multiplies negative ones by it.",
  },
  residual_stream: {
    title: "Residual stream",
    text:
      "The numbers that pass through the model at a token. They begin as the token's and the position's embedding; each layer's " +
      "attention and MLP read them and add to them; the logits are computed from them at the end.",
  },
  seed: {
    title: "Seed",
    text: "The number that determines all random numbers of a text. The same model, prompt, settings and seed give the same text.",
  },
  steering: {
    title: "Steering",
    text:
      "Adding a direction to the residual stream at every token, here the difference between the residual streams of two texts. " +
      "The text leans toward the first; a large scale breaks it.",
  },
  surprisal: {
    title: "Surprisal",
    text:
      "Minus the natural logarithm of a token's probability; the unit is the nat. A token that is certain has 0; one with a " +
      "probability of 1/20 has about 3. The first token of a text has none: nothing precedes it.",
  },
  temperature: {
    title: "Temperature",
    text: "Divides all logits. Below 1, likely tokens become likelier; above 1, unlikely ones do. 0 always takes the likeliest.",
  },
  token: {
    title: "Token",
    text:
      "A piece of text that the model reads or writes as one unit: a word, part of a word, or a punctuation mark. The space " +
      "before a word usually belongs to its token.",
  },
  token_id: {
    title: "Token id",
    text: "A token's number in the model's vocabulary, from 0 on. In GPT-2, the id of “The” is 464.",
  },
  top_k: {
    title: "Top-k",
    text: "Keeps the k likeliest tokens and cuts all others, however probable they are.",
  },
  top_p: {
    title: "Top-p",
    text: "Keeps the fewest likeliest tokens whose probabilities add up to at least p, and cuts all others.",
  },
  vocabulary: {
    title: "Vocabulary",
    text: "All tokens that a model knows, each with a number, its id. GPT-2 has 50,257.",
  },
});
