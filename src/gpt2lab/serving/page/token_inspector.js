/**
 * Inspects one place of a run: which tokens are possible there, and how the settings shape the choice.
 *
 * Requests the logits once and computes the effect of later settings here, so that a moved slider shows at once. This
 * module knows nothing of how runs are drawn.
 */

import { logits } from "./api.js";
import { SamplingError, stages, uniform } from "./sampling.js";
import { sameSampling, samplingParams } from "./settings.js";

const REST_MS = 60; // no request for a place that the pointer only passes

/**
 * @typedef {import("./branches.js").Run} Run
 * @typedef {import("./sampling.js").Stage} Stage
 *
 * @typedef {object} Look
 * @property {Run} run
 * @property {number} place
 * @property {string[]} vocabulary
 * @property {number | null} chosen  the id at the place
 * @property {Run["drawn"]} drawn  the run's list; drawing again replaces it
 * @property {number[]} context  the ids before the place
 * @property {Float32Array} [logits]
 * @property {Stage[] | null} [stages]
 * @property {boolean} [failed]
 */

export class TokenInspector {
  #alternatives;
  #stageTable;
  #settings;
  #failed;
  /** @type {Look | null} */
  #now = null;
  #asking = new AbortController();
  #drawing = false;

  /**
   * @param {object} parts
   * @param {import("./alternatives.js").Alternatives} parts.alternatives
   * @param {import("./stage_table.js").StageTable} parts.stageTable
   * @param {typeof import("./settings.js").settings} parts.settings
   * @param {(problem: unknown) => void} parts.failed  called if the logits did not come
   */
  constructor({ alternatives, stageTable, settings, failed }) {
    this.#alternatives = alternatives;
    this.#stageTable = stageTable;
    this.#settings = settings;
    this.#failed = failed;
    settings.subscribe(() => this.#refresh());
  }

  /** Return the model's log-probability of `id` at this place; null before the logits arrive. @param {number} id */
  logprob(id) {
    const model = this.#now?.stages?.[0].probabilities;
    return model ? Math.log(model[id]) : null;
  }

  /** Inspect `place` of `run`. @param {Run} run @param {number} place @param {string[]} vocabulary */
  look(run, place, vocabulary) {
    const chosen = run.at(place)?.id ?? null;
    const old = this.#now;
    const same = old?.run === run && old.place === place && old.drawn === run.drawn;
    if (same && old.vocabulary === vocabulary && old.chosen === chosen && !old.failed) return;
    this.#asking.abort();
    this.#asking = new AbortController();
    const now = { run, place, vocabulary, chosen, drawn: run.drawn, context: run.contextAt(place) };
    this.#now = now;
    this.#show(now);
    this.#ask(now, this.#asking.signal);
  }

  /** @param {Look} now @param {AbortSignal} signal */
  async #ask(now, signal) {
    const { model, contextSize } = now.run.tree.origin;
    if (now.context.length > contextSize) return; // more than the model's context
    try {
      await new Promise((resolve) => {
        setTimeout(resolve, REST_MS);
      });
      if (signal.aborted) return;
      now.logits = await logits(model, now.context, { signal });
    } catch (problem) {
      now.failed = true;
      if (!signal.aborted) this.#failed(problem);
      return;
    }
    if (this.#now === now) this.#show(now);
  }

  #refresh() {
    if (!this.#now?.logits || this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (this.#now) this.#show(this.#now);
    });
  }

  /** @param {Look} now */
  #show(now) {
    const { run, place, vocabulary, chosen } = now;
    const token = run.at(place) ?? null;
    const owner = run.ownerOf(place);
    const params = samplingParams(this.#settings.get());
    const history = run.historyAt(place);
    const drawnHere = place >= owner.inherited.length;
    const { seed } = owner.plan;
    const u = seed !== null && (drawnHere || token === null) ? uniform(seed, 0, run.positionOf(place)) : null;
    const [made, problem] = now.logits ? stagesOr(now.logits, params, history) : [null, ""];
    now.stages = made;
    const others = token && drawnHere && !sameSampling(owner.plan.params, params) ? OTHER_SETTINGS : "";
    this.#alternatives.show({ vocabulary, token, top: token?.top ?? null, stages: made, u, note: problem || others });
    if (made && now.logits) this.#stageTable.show({ logits: now.logits, params, history, vocabulary, u, chosen, stages: made });
    else if (problem) this.#stageTable.clear();
  }
}

const OTHER_SETTINGS = "The text was drawn with other settings; this shows the current ones.";

/**
 * Return the stages, or null and the reason: a model may give logits that are NaN or infinite.
 * @param {Float32Array} values @param {Record<string, number>} params @param {number[]} history
 * @returns {[Stage[] | null, string]}
 */
function stagesOr(values, params, history) {
  try {
    return [stages(values, params, history), ""];
  } catch (problem) {
    if (problem instanceof SamplingError) return [null, problem.message];
    throw problem;
  }
}
