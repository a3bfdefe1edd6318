/**
 * The samples that a run's model wrote at each of its checkpoints: a slider, and the texts beside earlier ones.
 *
 * A model's texts may contain anything, so they are inserted into the page as plain text.
 */

import { ApiError, request } from "./api.js";
import { byId, element, setEnabled } from "./elements.js";
import { count, lossText, upTo, LOW } from "./watch_run.js";
import { whatIsNew } from "./watch_words.js";

const KEPT = 200; // files of samples

/** @typedef {{texts: string[], cut: boolean}} File */

/** @type {Map<string, Promise<File>>} */
const files = new Map(); // by address and version

/**
 * Return the samples of a step; requested once, unless they were written again.
 * @param {string} run @param {[number, number]} sample
 */
function fetchSamples(run, [step, version]) {
  const address = `watch/samples?run=${encodeURIComponent(run)}&step=${step}`;
  const key = `${address} ${version}`;
  const known = files.get(key);
  if (known) return known;
  const asked = ask(address);
  asked.catch(() => files.delete(key));
  files.set(key, asked);
  for (const oldest of files.keys()) if (files.size > KEPT) files.delete(oldest);
  return asked;
}

/** @param {string} address @returns {Promise<File>} */
async function ask(address) {
  try {
    return await (await request(address, { cache: "no-store" })).json();
  } catch (problem) {
    if (!(problem instanceof ApiError)) throw problem;
    const { status } = problem;
    throw new ApiError(status ? "These samples no longer exist." : "The server does not answer.", { status });
  }
}

export class Samples {
  #parts = {
    samples: byId("samples"),
    hint: byId("samples-hint"),
    timeline: byId("timeline", HTMLInputElement),
    earlier: byId("earlier", HTMLButtonElement),
    later: byId("later", HTMLButtonElement),
    newest: byId("newest", HTMLInputElement),
    number: byId("number", HTMLSelectElement),
    numberChoice: byId("number-choice"),
    compare: byId("compare", HTMLSelectElement),
    title: byId("sample-title"),
    texts: byId("texts"),
  };
  /** @type {import("./watch_run.js").Run | null} */
  #run = null;
  /** @type {number | null} */
  #chosen = null; // the step that is shown
  #shown = ""; // identifies the source of the texts on the page
  #onChoice;

  /** @param {(step: number|null) => void} onChoice  called when another checkpoint is shown */
  constructor(onChoice) {
    this.#onChoice = onChoice;
    const { timeline, earlier, later, newest, number, compare } = this.#parts;
    timeline.addEventListener("input", () => this.#go(Number(timeline.value)));
    earlier.addEventListener("click", () => this.#go(this.#place - 1));
    later.addEventListener("click", () => this.#go(this.#place + 1));
    newest.addEventListener("change", () => this.#run && this.show(this.#run));
    for (const choice of [number, compare]) choice.addEventListener("change", () => this.#write());
  }

  /**
   * Show the samples of `run`; for the same run again, keep the chosen checkpoint.
   * @param {import("./watch_run.js").Run} run
   */
  show(run) {
    if (run !== this.#run) this.#chosen = null;
    this.#run = run;
    const { samples, timeline, newest } = this.#parts;
    const listed = this.#listed;
    samples.hidden = !listed.length;
    if (!listed.length) {
      this.#onChoice(null);
      return;
    }
    if (newest.checked || !listed.some(([step]) => step === this.#chosen)) this.#chosen = this.#newestOwn();
    timeline.max = String(listed.length - 1);
    this.#write();
  }

  get #listed() {
    return this.#run?.facts.samples ?? [];
  }

  get #place() {
    return this.#listed.findIndex(([step]) => step === this.#chosen);
  }

  /** Return the newest step of this training: an earlier run of the same name may have left later ones. */
  #newestOwn() {
    const steps = this.#listed.map(([step]) => step);
    return [...steps].reverse().find((step) => !this.#isForeign(step)) ?? steps[steps.length - 1];
  }

  /** @param {number} step */
  #isForeign(step) {
    const { step: last = null, reading } = this.#run?.facts ?? {};
    return reading === null && last !== null && step > last;
  }

  /** @param {number} place */
  #go(place) {
    const listed = this.#listed;
    this.#chosen = listed[Math.min(Math.max(place, 0), listed.length - 1)][0];
    this.#parts.newest.checked = this.#chosen === this.#newestOwn();
    this.#write();
  }

  /** Update the page to the chosen checkpoint. */
  async #write() {
    const run = this.#run;
    const [listed, place] = [this.#listed, this.#place];
    const own = listed[place];
    if (!run || !own) return;
    const other = this.#other(place);
    this.#label(run, own[0], place);
    this.#onChoice(own[0]);
    const wanted = JSON.stringify([run.name, own, other, this.#parts.number.value]);
    if (wanted === this.#shown) return;
    this.#shown = wanted;
    try {
      const [file, earlier] = await Promise.all([fetchSamples(run.name, own), other && fetchSamples(run.name, other)]);
      if (this.#shown === wanted) this.#texts(file, own[0], earlier && other ? { file: earlier, step: other[0] } : null);
    } catch (problem) {
      if (!(problem instanceof Error)) throw problem;
      if (this.#shown !== wanted) return;
      this.#shown = "";
      this.#parts.texts.replaceChildren(element("p.hint", {}, problem.message));
    }
  }

  /** Return the checkpoint to compare with, if the user asked for one and it exists. @param {number} place */
  #other(place) {
    /** @type {Record<string, number>} */
    const places = { none: -1, before: place - 1, first: 0 };
    const wanted = places[this.#parts.compare.value];
    return wanted >= 0 && wanted < place ? this.#listed[wanted] : null;
  }

  /** @param {import("./watch_run.js").Run} run @param {number} step @param {number} place */
  #label(run, step, place) {
    const { timeline, earlier, later, title, hint } = this.#parts;
    const loss = upTo(run.validations, step);
    const words = [`After ${count(step)} ${step === 1 ? "update" : "updates"}`, `${place + 1} of ${this.#listed.length}`];
    if (loss) words.push(`held-out loss ${lossText(loss[LOW])}`);
    if (this.#isForeign(step)) words.push("from an earlier training run: this one has not reached that update");
    title.textContent = words.join(" · ");
    timeline.value = String(place);
    timeline.setAttribute("aria-valuetext", words.join(", "));
    setEnabled(earlier, place > 0);
    setEnabled(later, place < this.#listed.length - 1);
    hint.textContent = hintOf(run.facts.settings ?? {});
  }

  /** @param {File} own @param {number} step @param {{file: File, step: number} | null} earlier */
  #texts({ texts, cut }, step, earlier) {
    const { number, numberChoice, texts: place } = this.#parts;
    numberChoice.hidden = texts.length < 2;
    if (number.options.length !== texts.length) {
      const chosen = Math.min(Math.max(number.selectedIndex, 0), texts.length - 1);
      number.replaceChildren(...texts.map((_, at) => element("option", { value: at }, String(at + 1))));
      number.selectedIndex = chosen;
    }
    const at = Math.max(number.selectedIndex, 0);
    const prompt = this.#run?.facts.settings?.sample_prompt ?? "";
    const own = texts[at] ?? "";
    const before = earlier?.file.texts[at];
    const figures = [];
    if (earlier && before !== undefined)
      figures.push(figure(`After ${count(earlier.step)} updates`, [{ text: before, isNew: false }], prompt));
    const pieces = before === undefined ? null : whatIsNew(before, own);
    const note = pieces ? "new words are underlined" : cut ? "only the beginning is shown" : null;
    figures.push(figure(`After ${count(step)} updates`, pieces ?? [{ text: own, isNew: false }], prompt, note));
    place.replaceChildren(...figures);
  }
}

/**
 * @param {string} title
 * @param {import("./watch_words.js").Piece[]} pieces
 * @param {string} prompt
 * @param {string | null} [note]
 */
function figure(title, pieces, prompt, note = null) {
  const text = element("div.sample-text", { dir: "auto" });
  let left = pieces.map(({ text: part }) => part).join("").startsWith(prompt) ? prompt.length : 0;
  for (const { text: part, isNew } of pieces) {
    const given = part.slice(0, left);
    left -= given.length;
    if (given) text.append(element("span.given", {}, given));
    const rest = part.slice(given.length);
    const word = isNew ? rest.search(/\S/) : -1; // the space before the word is not underlined
    if (word < 0) text.append(rest);
    else text.append(rest.slice(0, word), element("mark", {}, rest.slice(word)));
  }
  if (!text.hasChildNodes()) text.append(element("span.given", {}, "(nothing)"));
  return element("figure", {}, element("figcaption", {}, note ? `${title} · ${note}` : title), text);
}

/** @param {Record<string, any>} settings */
function hintOf({ sample_prompt: prompt, top_k: k, seed }) {
  const words = [prompt ? `The prompt is “${prompt}”` : "There is no prompt"];
  if (k) words.push(`top-k ${k}`);
  if (seed !== undefined) words.push(`seed ${seed} every time`);
  return `${words.join(", ")}. Only the model changes from one checkpoint to the next.`;
}
