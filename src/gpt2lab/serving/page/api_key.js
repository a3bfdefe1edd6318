/**
 * Asks for the server's key, and keeps it for this tab.
 */

import { ApiError, setKey } from "./api.js";

let asking = null;

/**
 * Ask for the key; those who ask at the same time get the same answer.
 * @param {string} message  why
 * @returns {Promise<string|null>} null if there is none to be given
 */
export function askForKey(message = "This server asks for a key.") {
  asking ??= ask(message).finally(() => {
    asking = null;
  });
  return asking;
}

/** What `work` gives; if it needs a key, ask for one and try once more, for as long as keys are given. */
export async function withKey(work) {
  for (let again = false; ; again = true) {
    try {
      return await work();
    } catch (problem) {
      if (!(problem instanceof ApiError) || problem.status !== 401) throw problem;
      if (!(await askForKey(again ? "The server does not know this key." : undefined))) throw problem;
    }
  }
}

function ask(message) {
  const dialog = document.createElement("dialog");
  dialog.className = "key-dialog";
  dialog.setAttribute("aria-labelledby", "key-title");
  const form = document.createElement("form");
  form.method = "dialog";
  const title = text("h2", message);
  title.id = "key-title";
  const label = text("label", "API key");
  const input = document.createElement("input");
  const printable = "[!-~]+"; // what a header can carry
  Object.assign(input, { type: "password", required: true, pattern: printable, autocomplete: "off", name: "key" });
  label.append(input);
  const hint = text("p", "Whoever started the server has it. It is kept in this tab alone.");
  hint.className = "hint";
  const give = text("button", "Use this key");
  give.className = "button primary";
  const leave = text("button", "Cancel");
  Object.assign(leave, { type: "button", className: "button quiet" });
  leave.addEventListener("click", () => dialog.close(""));
  form.append(title, label, hint, give, leave);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close(input.value.trim());
  });
  dialog.append(form);
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

function text(name, words) {
  const element = document.createElement(name);
  element.textContent = words;
  return element;
}
