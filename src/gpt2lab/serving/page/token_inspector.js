/**
 * Looks into one place of a run: what might stand there, and how the settings shape the choice.
 *
 * The logits are asked for once; whatever the settings become after that is computed here, so that a slider's move shows
 * at once. Knows nothing of how runs are drawn.
 */

import { logits } from "./api.js";
import { SamplingError, stages, uniform } from "./sampling.js";
import { sameSampling, samplingParams } from "./settings.js";

const REST_MS = 60; // a place that is only passed is not asked about

export class TokenInspector {
  #alternatives;
  #stageTable;
  #settings;
  #failed;
  #now = null; // {run, place, vocabulary, pinned, chosen, drawn, question; logits, stages once they are there}
  #asking = null;
  #frame = null;

  /**
   * @param {object} parts
   * @param {import("./alternatives.js").Alternatives} parts.alternatives
   * @param {{show(view: object): void, clear(): void}} parts.stageTable
   * @param {typeof import("./settings.js").settings} parts.settings
   * @param {(problem: Error) => void} parts.failed  the logits did not come
   */
  constructor({ alternatives, stageTable, settings, failed }) {
    this.#alternatives = alternatives;
    this.#stageTable = stageTable;
    this.#settings = settings;
    this.#failed = failed;
    settings.subscribe(() => this.#refresh());
  }

  /** The place that is looked into; null if there is none. */
  get place() {
    return this.#now?.place ?? null;
  }

  get pinned() {
    return this.#now?.pinned ?? false;
  }

  /** The model's log-probability of `id` at this place; null before the logits are there. */
  logprob(id) {
    const model = this.#now?.stages?.[0].probabilities;
    return model ? Math.log(model[id]) : null;
  }

  /** Let the place go with the pointer. */
  unpin() {
    if (this.#now) this.#now.pinned = false;
  }

  /** Look into `place` of `run`; `pinned` if it is to stay while the pointer wanders. */
  look(run, place, vocabulary, pinned) {
    const same = this.#now?.run === run && this.#now.place === place && this.#now.drawn === run.drawn;
    const known = same && this.#now.vocabulary === vocabulary && this.#now.chosen === (run.at(place)?.id ?? null);
    if (known && !this.#now.failed) {
      this.#now.pinned = pinned;
      return;
    }
    this.#asking?.abort();
    this.#asking = new AbortController();
    const chosen = run.at(place)?.id ?? null;
    this.#now = { run, place, vocabulary, pinned, chosen, drawn: run.drawn, question: run.questionAt(place) };
    this.#show();
    this.#ask(this.#now, this.#asking.signal);
  }

  async #ask(now, signal) {
    const { ids, drawn } = now.question;
    const { model, contextSize } = now.run.tree.origin;
    if (ids.length > contextSize) return; // the model cannot read so far
    try {
      await new Promise((resolve) => setTimeout(resolve, REST_MS));
      if (signal.aborted) return;
      now.logits = await logits(model, ids, { signal, drawn });
    } catch (problem) {
      now.failed = true;
      if (!signal.aborted) this.#failed(problem);
      return;
    }
    if (this.#now === now) this.#show();
  }

  #refresh() {
    if (!this.#now?.logits) return;
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#show();
    });
  }

  #show() {
    const { run, place, vocabulary, question, chosen } = this.#now;
    const token = run.at(place) ?? null;
    const owner = run.ownerOf(place);
    const params = samplingParams(this.#settings.get());
    const history = question.ids;
    const drawnHere = place >= owner.inherited.length;
    const known = owner.plan.seed !== null && (drawnHere || token === null);
    const u = known ? uniform(owner.plan.seed, 0, run.positionOf(place)) : null;
    const [made, problem] = this.#now.logits ? stagesOr(this.#now.logits, params, history) : [null, ""];
    this.#now.stages = made;
    const others = token && drawnHere && !sameSampling(owner.plan.params, params) ? OTHER_SETTINGS : "";
    this.#alternatives.show({ vocabulary, token, top: token?.top ?? null, stages: made, u, note: problem || others });
    if (made) this.#stageTable.show({ logits: this.#now.logits, params, history, vocabulary, u, chosen, stages: made });
    else if (problem) this.#stageTable.clear();
  }
}

const OTHER_SETTINGS = "The text was drawn with other settings; this is what those of now make of it.";

/** The stages; or why there are none: a model may give logits that are no numbers. */
function stagesOr(values, params, history) {
  try {
    return [stages(values, params, history), ""];
  } catch (problem) {
    if (problem instanceof SamplingError) return [null, problem.message];
    throw problem;
  }
}
