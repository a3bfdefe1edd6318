/**
 * The speed of a run and the parts of its time. This module knows nothing of how they are drawn.
 */

import { element } from "./elements.js";

/** @typedef {import("./branches.js").Run} Run */
/** @typedef {import("./branches.js").ServerTimings} ServerTimings */

/** @type {[keyof ServerTimings, string][]} */
const PARTS = [
  ["queued", "waiting its turn"],
  ["prompt", "reading the prompt"],
  ["drawing", "drawing"],
];

/** Format a duration: "18 ms", "1.24 s". @param {number} seconds */
function duration(seconds) {
  if (seconds < 0.0095) return `${(1000 * seconds).toFixed(1)} ms`;
  return seconds < 0.9995 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(2)} s`;
}

/** Return tokens per second, by the server's clock once it is known; null before two tokens. @param {Run} run */
function rate(run) {
  const n = run.drawn.length;
  if (run.timings && run.timings.drawing > 0 && n) return n / run.timings.drawing;
  return n > 1 && run.drawingMs > 0 ? (1000 * (n - 1)) / run.drawingMs : null;
}

export class TimingsView {
  #values = { tokens: figure("tokens"), rate: figure("rate"), first: figure("first"), seed: figure("seed") };
  #seed = element("button", { type: "button", title: "Keep this seed for the next texts" });
  #parts = PARTS.map(([name]) => element(`span.${name}`));
  #split = element("div.split", { "aria-hidden": "true" }, ...this.#parts); // the words below say the same
  #words = element("p.hint", { "data-figure": "times" });
  /** @type {Run | null} */
  #run = null;

  /** @param {HTMLElement} host @param {(seed: number|string) => void} keepSeed  the user keeps the seed */
  constructor(host, keepSeed) {
    const { tokens, rate: speed, first, seed } = this.#values;
    const labelled = { tokens, "tokens/s": speed, "first token": first, seed };
    const pairs = Object.entries(labelled).map(([label, value]) => element("div", {}, value, element("dt", {}, label)));
    this.#seed.addEventListener("click", () => {
      if (this.#run?.plan.seed != null) keepSeed(this.#run.plan.seed);
    });
    seed.append(this.#seed);
    host.replaceChildren(element("dl", {}, ...pairs), element("div.times", {}, this.#split, this.#words));
  }

  /** @param {Run|null} run */
  show(run) {
    this.#run = run;
    const speed = run && rate(run);
    this.#values.tokens.textContent = run?.state === "new" || !run ? "–" : String(run.drawn.length);
    this.#values.rate.textContent = speed ? speed.toFixed(speed < 10 ? 1 : 0) : "–";
    this.#values.first.textContent = run?.firstTokenMs != null ? duration(run.firstTokenMs / 1000) : "–";
    this.#seed.textContent = run && run.state !== "new" ? String(run.plan.seed) : "–";
    this.#showTimes(run?.timings ?? null);
  }

  /** @param {ServerTimings | null} timings */
  #showTimes(timings) {
    this.#split.hidden = !timings;
    const whole = timings ? PARTS.reduce((sum, [name]) => sum + timings[name], 0) : 0;
    PARTS.forEach(([name], place) => {
      this.#parts[place].style.flexGrow = timings && whole ? String(timings[name] / whole) : "0";
    });
    const legend = (/** @type {ServerTimings} */ times) =>
      PARTS.map(([name, words]) => element(`span.key.${name}`, {}, `${words} ${duration(times[name])}`));
    this.#words.replaceChildren(...(timings ? legend(timings) : []));
  }
}

/** @param {string} name */
function figure(name) {
  return element("dd", { "data-figure": name });
}
