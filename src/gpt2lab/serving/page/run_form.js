/**
 * A form with a button that runs something on the server and one that stops it. It shows the user when the work runs,
 * is done, or fails. This module knows nothing of the work itself.
 */

import { withKey } from "./api_key.js";
import { element, isEnabled, setEnabled } from "./elements.js";

/**
 * @template Plan
 * @param {string} kind  the form's class
 * @param {object} parts
 * @param {string} parts.label  of the button that runs
 * @param {Node[]} parts.fields  before the buttons
 * @param {Node[]} [parts.after]  after them
 * @param {import("./elements.js").Attributes} [parts.attributes]
 * @param {(say: (text: string) => void) => Plan | null} parts.plan  the work to run; null if there is none, after saying why
 * @param {(plan: Plan, options: {say: (text: string) => void, signal: AbortSignal}) => Promise<void>} parts.work
 * @param {(plan: Plan) => string} parts.done  the message at the end
 */
export function runForm(kind, { label, fields, after = [], attributes = {}, plan, work, done }) {
  const run = element("button.button.primary", { type: "submit" }, label);
  const stop = element("button.button", { type: "button", "aria-disabled": "true" }, "Stop");
  const status = element("span.hint", { role: "status" });
  const say = (/** @type {string} */ text) => {
    status.textContent = text;
  };
  let stopping = new AbortController();

  const start = async () => {
    const planned = plan(say);
    if (planned === null) return;
    stopping = new AbortController();
    const { signal } = stopping;
    setEnabled(run, false);
    setEnabled(stop, true);
    say("Drawing …");
    try {
      await withKey(() => work(planned, { say, signal }));
      say(done(planned));
    } catch (problem) {
      if (!(problem instanceof Error)) throw problem;
      say(signal.aborted ? "Stopped." : problem.message);
    } finally {
      stopping.abort(); // if one request failed, stop the others
      setEnabled(run, true);
      setEnabled(stop, false);
    }
  };
  const node = element(`form.${kind}`, attributes, ...fields, run, stop, status, ...after);
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    if (isEnabled(run)) start();
  });
  stop.addEventListener("click", () => stopping.abort());
  return node;
}
