/**
 * The user's actions on the text on display: write, branch off, continue, draw again, copy. This module knows nothing of how
 * texts are shown.
 */

import { byId } from "./elements.js";

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} Parts
 * @property {typeof import("./settings.js").settings} settings
 * @property {import("./messages.js").Messages} messages
 * @property {import("./page_state.js").PageState} state
 * @property {import("./focus.js").Focus} focus
 * @property {import("./draft.js").Draft} draft
 * @property {import("./share_panel.js").SharePanel} sharePanel
 * @property {() => string} text  the text on display
 * @property {(id: number) => number | null} logprob  of a token at the inspected place
 * @property {(place: number) => void} toToken  moves the focus to a token
 */

export class TextActions {
  #parts;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** Draw a text for the prompt, unless a setting is invalid. */
  async write() {
    const { draft, messages, sharePanel, state } = this.#parts;
    if (!state.cards.length) return;
    draft.hold();
    messages.clear();
    sharePanel.forget();
    const set = byId("settings", HTMLDetailsElement);
    const wrong = set.querySelector("[aria-invalid=true]");
    if (wrong instanceof HTMLElement) {
      set.open = true;
      wrong.focus();
      messages.tell("A setting has an invalid value: correct it, and write again.");
      return;
    }
    await state.start();
  }

  /** Branch off at the inspected place. @param {number | null} id  the token chosen there; null draws one */
  async branch(id) {
    const { focus, messages, sharePanel, state, logprob, toToken } = this.#parts;
    const { run, place } = focus;
    if (!run || place === null) return;
    messages.clear();
    if (run.at(place)?.id === id) {
      messages.say("This token is already at that place.");
      return;
    }
    const inList = byId("inspector").contains(document.activeElement);
    focus.unpin();
    sharePanel.forget();
    const done = state.branch(run, { place, token: id, logprob: id === null ? null : logprob(id) });
    if (inList) requestAnimationFrame(() => requestAnimationFrame(() => toToken(place)));
    await done;
  }

  /** Draw `run` again, and report whether the tokens are the same. @param {Run} run */
  async replay(run) {
    const { messages, state } = this.#parts;
    const same = await state.replay(run);
    if (same === null) return;
    if (same) messages.say(`The same ${run.drawn.length} ${run.drawn.length === 1 ? "token" : "tokens"} again.`);
    else messages.tell("The tokens differ this time: the server's model has changed.");
  }

  /** Continue `run`; its text becomes the prompt of another model if the server no longer has its own. @param {Run} run */
  async continue(run) {
    const { settings, state, text } = this.#parts;
    if (state.serves(run)) {
      await state.branch(run, { place: run.length, token: null });
      return;
    }
    settings.set({ prompt: text() });
    await this.write();
  }

  /** Copy `text`, and return whether the browser allowed it. @param {string} text */
  async copy(text) {
    const { messages } = this.#parts;
    try {
      await navigator.clipboard.writeText(text);
      messages.say("Copied.");
      return true;
    } catch {
      messages.say("This browser does not allow copying; select the text instead.");
      return false;
    }
  }
}
