/**
 * Runs the user's actions, and reports those that fail with what the user can do about them.
 */

import { ApiError } from "./api.js";
import { Hindrance } from "./page_state.js";

/** @typedef {import("./messages.js").Action} Action */

export class Attempts {
  #messages;
  #renew;

  /** @param {import("./messages.js").Messages} messages @param {() => Promise<void>} renew  asks the server for its models again */
  constructor(messages, renew) {
    this.#messages = messages;
    this.#renew = renew;
  }

  /** Return the result of `act`; null if it failed, which is reported. @template T @param {() => T | Promise<T>} act */
  async make(act) {
    try {
      return await act();
    } catch (problem) {
      this.failed(problem);
      return null;
    }
  }

  /** Report a failure; an unexpected one is thrown again. @param {unknown} problem @param {Action[]} [actions] */
  failed(problem, actions = []) {
    if (problem instanceof DOMException && problem.name === "AbortError") return;
    if (!(problem instanceof ApiError || problem instanceof Hindrance)) throw problem;
    this.#messages.say("");
    const gone = problem instanceof ApiError && problem.status === 404; // no such model
    this.#messages.tell(problem.message, { actions: gone ? [this.#renewal] : actions });
  }

  /** Report that a model has changed while its name stayed. */
  tellOfChange() {
    const actions = [this.#renewal];
    this.#messages.tell("The server's model of this name has changed since the page was loaded.", { actions });
  }

  /** @returns {Action} */
  get #renewal() {
    return ["Use the server's current models", () => this.make(this.#renew)];
  }
}
