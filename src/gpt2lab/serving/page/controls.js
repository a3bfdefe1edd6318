/**
 * Sliders with a number field beside each, bound to the settings both ways: they also show changes made elsewhere. A slider
 * covers the sensible part of its range; the number field accepts all of it.
 */

import { element, newId } from "./elements.js";
import { GLOSSARY } from "./glossary.js";
import { ARTICLE, SCALES, STEPS } from "./scales.js";
import { DEFAULTS, LIMITS, isSeed, isValid, newSeed, samplingParams } from "./settings.js";
import { PARAMETERS } from "./stages.js";
import { about } from "./terms.js";

/**
 * @typedef {typeof import("./settings.js").settings} Store
 * @typedef {import("./settings.js").Settings} Settings
 */

const PENALTIES = PARAMETERS.filter(({ stage }) => stage === "penalties");
const STAGES = PARAMETERS.filter((each) => !PENALTIES.includes(each));
const SHEET = ["temperature", "top_k"];
const LENGTH = { name: "max_tokens", title: "Length", hint: "tokens at most" };

/**
 * @param {HTMLElement} host
 * @param {Store} settings
 * @returns {() => void}  removes the controls again
 */
export function mountControls(host, settings) {
  const fields = [...STAGES, ...PENALTIES, LENGTH].map((what) => numberField(what, settings));
  const seed = seedField(settings);
  const penalties = element("details.penalties", {}, element("summary", {}, "Penalties"));
  const initial = samplingParams(settings.get());
  penalties.open = PENALTIES.some(({ name, off }) => initial[name] !== off);
  const [stages, rest] = [fields.slice(0, STAGES.length), fields.slice(STAGES.length)];
  penalties.append(...rest.slice(0, PENALTIES.length).map(({ node }) => node));
  stages[0].node.append(articleButtons(settings));
  const reset = element("button.button.quiet", { type: "button" }, "Reset sampling");
  reset.title = "The model's own distribution: temperature 1, nothing cut, no penalties";
  reset.addEventListener("click", () => settings.set(samplingParams(DEFAULTS)));
  const length = rest[rest.length - 1];
  const more = element("div.more", {}, penalties, reset);
  host.classList.add("controls");
  host.replaceChildren(...stages.map(({ node }) => node), more, length.node, seed.node);
  const show = (/** @type {Readonly<Settings>} */ now) => [...fields, seed].forEach((field) => field.show(now));
  show(settings.get());
  return settings.subscribe(show);
}

/** Fill `host` with the sliders that a sheet with bars has room for. @param {HTMLElement} host @param {Store} settings */
export function mountSheetControls(host, settings) {
  const fields = STAGES.filter(({ name }) => SHEET.includes(name)).map((what) => numberField(what, settings));
  host.replaceChildren(...fields.map(({ node }) => node));
  const show = (/** @type {Readonly<Settings>} */ now) => fields.forEach((field) => field.show(now));
  show(settings.get());
  settings.subscribe(show);
}

/** Put the button with the definition beside a label. @param {HTMLElement} label @param {string} term */
function named(label, term) {
  return element("span.named", {}, label, term in GLOSSARY ? about(term) : null);
}

// ---- one number -----------------------------------------------------------------------------------------------------

/** @param {{name: string, title: string, hint: string, off?: number | null}} field @param {Store} settings */
function numberField({ name, title, hint, off }, settings) {
  const [scale, { least, most, whole }] = [SCALES[name], LIMITS[name]];
  const [id, hintId] = [newId(name), newId(`${name}-hint`)];
  const label = element("label", { for: id }, title);
  const number = element("input", {
    id,
    type: "number",
    min: least,
    max: most,
    step: whole ? 1 : "any",
    "aria-describedby": hintId,
  });
  const slider = element("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": `${title}, slider` });
  const said = element("span.hint.visually-hidden", { id: hintId }, hint);
  slider.dataset.setting = number.dataset.setting = name;

  const wrong = () => `${title} must be ${whole ? "a whole number " : ""}from ${least} to ${most.toLocaleString("en")}`;
  const mark = (/** @type {boolean} */ bad) => {
    number.setAttribute("aria-invalid", String(bad));
    said.textContent = bad ? wrong() : hint;
    said.classList.toggle("visually-hidden", !bad);
  };
  slider.addEventListener("input", () => settings.set({ [name]: scale.value(slider.valueAsNumber) }));
  number.addEventListener("input", () => {
    const good = isValid(name, number.valueAsNumber);
    mark(!good);
    if (good) settings.set({ [name]: number.valueAsNumber });
  });
  const show = (/** @type {Readonly<Record<string, any>>} */ now) => {
    const value = now[name];
    // Do not move a control while the user moves it: a slider's position has more digits than its value.
    if (number.valueAsNumber !== value) number.value = String(value);
    if (scale.value(slider.valueAsNumber) !== value) slider.value = String(scale.position(value));
    slider.setAttribute("aria-valuetext", value === off ? "off" : String(value));
    node.classList.toggle("is-off", value === off);
    mark(false);
  };
  const node = element("div.field.slider", { title: hint, "data-field": name }, named(label, name), slider, number, said);
  return { node, show };
}

/** @param {Store} settings */
function articleButtons(settings) {
  const buttons = ARTICLE.map((temperature) => {
    const button = element("button", { type: "button", "aria-pressed": "false" }, String(temperature));
    button.addEventListener("click", () => settings.set({ temperature }));
    return button;
  });
  const show = (/** @type {{temperature: number}} */ { temperature }) =>
    ARTICLE.forEach((each, at) => buttons[at].setAttribute("aria-pressed", String(each === temperature)));
  settings.subscribe(show);
  show(settings.get());
  return element("div.chips", { role: "group", "aria-label": "Temperatures to try" }, ...buttons);
}

// ---- the seed -------------------------------------------------------------------------------------------------------

/** @param {Store} settings */
function seedField(settings) {
  const [id, hintId] = [newId("seed"), newId("seed-hint")];
  const input = element("input", { id, inputmode: "numeric", autocomplete: "off", placeholder: "new each time" });
  input.setAttribute("aria-describedby", hintId);
  input.dataset.setting = "seed";
  const said = element("span.hint.visually-hidden", { id: hintId });
  const fresh = element("button.button.quiet", { type: "button" }, "New");
  fresh.setAttribute("aria-label", "A new seed, kept for the next runs");
  fresh.addEventListener("click", () => settings.set({ seed: newSeed() }));
  const hint = "the same seed draws the same text again";
  const mark = (/** @type {boolean} */ bad) => {
    input.setAttribute("aria-invalid", String(bad));
    said.textContent = bad ? "A seed must be a whole number below 2^63, or empty" : hint;
    said.classList.toggle("visually-hidden", !bad);
  };
  input.addEventListener("input", () => {
    const text = input.value.trim();
    const seed = text === "" ? null : Number.isSafeInteger(Number(text)) ? Number(text) : text;
    const good = text === "" || (/^\d+$/.test(text) && isSeed(seed));
    mark(!good);
    if (good) settings.set({ seed });
  });
  const show = (/** @type {{seed: number | string | null}} */ { seed }) => {
    if (input.value.trim() !== String(seed ?? "")) input.value = String(seed ?? "");
    mark(false);
  };
  const label = element("label", { for: id }, "Seed");
  return { node: element("div.field.seed", { title: hint }, named(label, "seed"), input, fresh, said), show };
}
