/**
 * What a run's model wrote at each of its checkpoints: a slider through them, and the text, beside an earlier one.
 *
 * Texts are a model's, so anything may be in them: they are put into the page as text alone.
 */

import { ApiError, headers } from "./api.js";
import { element } from "./elements.js";
import { count, lossText, upTo, LOW } from "./watch_run.js";
import { whatIsNew } from "./watch_words.js";

const KEPT = 200; // files of samples

const files = new Map(); // address and version -> promise of {texts, cut}

/** The samples of a step; asked for once, unless they were written again. */
function fetchSamples(run, [step, version]) {
  const address = `watch/samples?run=${encodeURIComponent(run)}&step=${step}`;
  const key = `${address} ${version}`;
  if (!files.has(key)) {
    const asked = ask(address);
    asked.catch(() => files.delete(key));
    files.set(key, asked);
    if (files.size > KEPT) files.delete(files.keys().next().value);
  }
  return files.get(key);
}

async function ask(address) {
  let answer;
  try {
    answer = await fetch(address, { headers: headers(), cache: "no-store" });
  } catch {
    throw new ApiError("The server does not answer.");
  }
  if (!answer.ok) throw new ApiError("These samples are not there any more.", { status: answer.status });
  return await answer.json();
}

export class Samples {
  #parts;
  #run = null;
  #chosen = null; // the step that is shown
  #shown = ""; // what the texts on the page were made from
  #onChoice;

  /** @param {(step: number|null) => void} onChoice  another checkpoint is shown */
  constructor(onChoice) {
    this.#onChoice = onChoice;
    const names = ["samples", "samples-hint", "timeline", "earlier", "later", "newest", "number", "number-choice"];
    names.push("compare", "sample-title", "texts");
    this.#parts = Object.fromEntries(names.map((name) => [name, document.getElementById(name)]));
    const { timeline, earlier, later, newest, number, compare } = this.#parts;
    timeline.addEventListener("input", () => this.#go(Number(timeline.value)));
    earlier.addEventListener("click", () => this.#go(this.#place - 1));
    later.addEventListener("click", () => this.#go(this.#place + 1));
    newest.addEventListener("change", () => this.show(this.#run));
    for (const choice of [number, compare]) choice.addEventListener("change", () => this.#write());
  }

  /** Show what `run` has; again for the same run keeps the checkpoint that was chosen. */
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

  /** The newest step that is this training's: a run of the same name may have left later ones. */
  #newestOwn() {
    const listed = this.#listed;
    return ([...listed].reverse().find(([step]) => !this.#isForeign(step)) ?? listed.at(-1))[0];
  }

  #isForeign(step) {
    const { step: last, reading } = this.#run.facts;
    return reading === null && last !== null && last !== undefined && step > last;
  }

  #go(place) {
    const listed = this.#listed;
    this.#chosen = listed[Math.min(Math.max(place, 0), listed.length - 1)][0];
    this.#parts.newest.checked = this.#chosen === this.#newestOwn();
    this.#write();
  }

  /** Bring the page up to date with what is chosen. */
  async #write() {
    const run = this.#run;
    const [listed, place] = [this.#listed, this.#place];
    const own = listed[place];
    const other = this.#other(place);
    this.#label(place);
    this.#onChoice(own[0]);
    const wanted = JSON.stringify([run.name, own, other, this.#parts.number.value]);
    if (wanted === this.#shown) return;
    this.#shown = wanted;
    try {
      const [file, earlier] = await Promise.all([fetchSamples(run.name, own), other && fetchSamples(run.name, other)]);
      if (this.#shown === wanted) this.#texts(file, earlier, own[0], other?.[0]);
    } catch (problem) {
      if (this.#shown !== wanted) return;
      this.#shown = "";
      this.#parts.texts.replaceChildren(element("p.hint", {}, problem.message));
    }
  }

  /** The checkpoint to compare with, if one is asked for and there is one. */
  #other(place) {
    const wanted = { none: -1, before: place - 1, first: 0 }[this.#parts.compare.value];
    return wanted >= 0 && wanted < place ? this.#listed[wanted] : null;
  }

  #label(place) {
    const { timeline, earlier, later, "sample-title": title, "samples-hint": hint } = this.#parts;
    const step = this.#chosen;
    const loss = upTo(this.#run.validations, step);
    const words = [`After ${count(step)} ${step === 1 ? "update" : "updates"}`, `${place + 1} of ${this.#listed.length}`];
    if (loss) words.push(`held-out loss ${lossText(loss[LOW])}`);
    if (this.#isForeign(step)) words.push("of an earlier training: this one has not come so far");
    title.textContent = words.join(" · ");
    timeline.value = String(place);
    timeline.setAttribute("aria-valuetext", words.join(", "));
    earlier.disabled = place <= 0;
    later.disabled = place >= this.#listed.length - 1;
    hint.textContent = hintOf(this.#run.facts.settings ?? {});
  }

  #texts({ texts, cut }, earlier, step, otherStep) {
    const { number, "number-choice": choice, texts: place } = this.#parts;
    choice.hidden = texts.length < 2;
    if (number.options.length !== texts.length) {
      const chosen = Math.min(Math.max(number.selectedIndex, 0), texts.length - 1);
      number.replaceChildren(...texts.map((_, at) => element("option", { value: at }, String(at + 1))));
      number.selectedIndex = chosen;
    }
    const at = Math.max(number.selectedIndex, 0);
    const prompt = this.#run.facts.settings?.sample_prompt ?? "";
    const own = texts[at] ?? "";
    const before = earlier?.texts[at];
    const figures = [];
    if (before !== undefined) figures.push(figure(`After ${count(otherStep)} updates`, [{ text: before, isNew: false }], prompt));
    const pieces = before === undefined ? null : whatIsNew(before, own);
    const note = pieces ? "what is new is underlined" : cut ? "only the beginning is shown" : null;
    figures.push(figure(`After ${count(step)} updates`, pieces ?? [{ text: own, isNew: false }], prompt, note));
    place.replaceChildren(...figures);
  }
}

function figure(title, pieces, prompt, note = null) {
  const text = element("div.sample-text", { dir: "auto" });
  let left = pieces.map(({ text: part }) => part).join("").startsWith(prompt) ? prompt.length : 0;
  for (const { text: part, isNew } of pieces) {
    const given = part.slice(0, left);
    left -= given.length;
    if (given) text.append(element("span.given", {}, given));
    const rest = part.slice(given.length);
    const word = isNew ? rest.search(/\S/) : -1; // the space before it is not underlined
    if (word < 0) text.append(rest);
    else text.append(rest.slice(0, word), element("mark", {}, rest.slice(word)));
  }
  if (!text.hasChildNodes()) text.append(element("span.given", {}, "(nothing)"));
  return element("figure", {}, element("figcaption", {}, note ? `${title} · ${note}` : title), text);
}

function hintOf({ sample_prompt: prompt, top_k: k, seed }) {
  const words = [prompt ? `It begins with “${prompt}”` : "It begins with nothing"];
  if (k) words.push(`top-k ${k}`);
  if (seed !== undefined) words.push(`seed ${seed} every time`);
  return `${words.join(", ")}. What changes is what the model has learned.`;
}
