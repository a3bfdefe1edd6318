/**
 * How fast a run was drawn and where its time went. Knows nothing of how it is drawn.
 */

const PARTS = [
  ["queued", "waiting its turn"],
  ["prompt", "reading the prompt"],
  ["drawing", "drawing"],
];

/** "18 ms", "1.24 s". */
export function duration(seconds) {
  if (seconds < 0.0095) return `${(1000 * seconds).toFixed(1)} ms`;
  return seconds < 0.9995 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(2)} s`;
}

/** Tokens in a second, by the server's clock once it has told it; null before there are two. */
export function rate(run) {
  const n = run.drawn.length;
  if (run.timings?.drawing > 0 && n) return n / run.timings.drawing;
  return n > 1 && run.drawingMs > 0 ? (1000 * (n - 1)) / run.drawingMs : null;
}

export class TimingsView {
  #values = {};
  #split;
  #words;

  #run = null;

  /** @param {HTMLElement} element @param {(seed: number|string) => void} keepSeed  a user wants to go on with it */
  constructor(element, keepSeed) {
    const list = document.createElement("dl");
    for (const [name, label] of [
      ["tokens", "tokens"],
      ["rate", "tokens/s"],
      ["first", "first token"],
      ["seed", "seed"],
    ]) {
      const pair = document.createElement("div");
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = label;
      value.dataset.figure = name;
      pair.append(value, term);
      list.append(pair);
      this.#values[name] = value;
    }
    this.#values.seed.append(this.#seedButton(keepSeed));
    const time = document.createElement("div");
    time.className = "times";
    this.#split = document.createElement("div");
    this.#split.className = "split";
    this.#split.setAttribute("aria-hidden", "true"); // the words beneath say the same
    this.#split.append(...PARTS.map(([name]) => part(name)));
    this.#words = document.createElement("p");
    this.#words.className = "hint";
    this.#words.dataset.figure = "times";
    time.append(this.#split, this.#words);
    element.replaceChildren(list, time);
  }

  #seedButton(keepSeed) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Keep this seed for the next texts";
    button.addEventListener("click", () => keepSeed(this.#run.plan.seed));
    return button;
  }

  /** @param {import("./branches.js").Run|null} run */
  show(run) {
    this.#run = run;
    const speed = run && rate(run);
    this.#values.tokens.textContent = run?.state === "new" || !run ? "–" : String(run.drawn.length);
    this.#values.rate.textContent = speed ? speed.toFixed(speed < 10 ? 1 : 0) : "–";
    this.#values.first.textContent = run?.firstTokenMs != null ? duration(run.firstTokenMs / 1000) : "–";
    this.#values.seed.firstChild.textContent = run && run.state !== "new" ? String(run.plan.seed) : "–";
    this.#showTimes(run?.timings ?? null);
  }

  #showTimes(timings) {
    this.#split.hidden = !timings;
    const whole = timings ? PARTS.reduce((sum, [name]) => sum + timings[name], 0) : 0;
    PARTS.forEach(([name], place) => {
      this.#split.children[place].style.flexGrow = timings && whole ? String(timings[name] / whole) : "0";
    });
    this.#words.replaceChildren(...(timings ? PARTS.map(([name, words]) => legend(name, words, timings[name])) : []));
  }
}

function part(name) {
  const element = document.createElement("span");
  element.className = name;
  return element;
}

function legend(name, words, seconds) {
  const element = document.createElement("span");
  element.className = `key ${name}`;
  element.textContent = `${words} ${duration(seconds)}`;
  return element;
}
