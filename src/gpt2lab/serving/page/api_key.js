/**
 * Asks the user for the server's key, and keeps it for this tab.
 */

import { ApiError, setKey } from "./api.js";
import { element } from "./elements.js";

/** @type {Promise<string | null> | null} */
let asking = null;

/**
 * Ask the user for the key; callers that ask at the same time get the same answer.
 * @param {string} message  the reason
 * @returns {Promise<string|null>} null if the user gives none
 */
export function askForKey(message = "This server needs an API key.") {
  asking ??= ask(message).finally(() => {
    asking = null;
  });
  return asking;
}

/**
 * Return the result of `work`. If it needs a key, ask for one and try again, as long as the user gives keys.
 * @template T @param {() => Promise<T>} work @returns {Promise<T>}
 */
export async function withKey(work) {
  for (let again = false; ; again = true) {
    try {
      return await work();
    } catch (problem) {
      if (!(problem instanceof ApiError) || problem.status !== 401) throw problem;
      if (!(await askForKey(again ? "The server does not accept this key." : undefined))) throw problem;
    }
  }
}

/** @param {string} message @returns {Promise<string | null>} */
function ask(message) {
  const printable = "[!-~]+"; // the characters that a header can carry
  const input = element("input", { type: "password", required: true, pattern: printable, autocomplete: "off", name: "key" });
  const leave = element("button.button.quiet", { type: "button" }, "Cancel");
  const form = element(
    "form",
    { method: "dialog" },
    element("h2", { id: "key-title" }, message),
    element("label", {}, "API key", input),
    element("p.hint", {}, "Get it from the person who started the server. This page keeps it in this tab only."),
    element("button.button.primary", {}, "Use this key"),
    leave,
  );
  const dialog = element("dialog.key-dialog", { "aria-labelledby": "key-title" }, form);
  leave.addEventListener("click", () => dialog.close(""));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
  });
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue) setKey(dialog.returnValue);
      resolve(dialog.returnValue || null);
    });
  });
}
