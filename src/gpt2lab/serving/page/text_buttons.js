/**
 * The buttons and keys that act on the text on display. This module knows which button does what, and which is enabled
 * when, but not how.
 */

import { byId, setEnabled } from "./elements.js";

/**
 * @typedef {import("./branches.js").Run} Run
 *
 * @typedef {object} Actions
 * @property {(act: () => unknown) => Promise<unknown>} attempt  runs a user's action and reports its failure
 * @property {() => Run | null} run  the run on display
 * @property {() => unknown} write
 * @property {() => void} stop
 * @property {() => boolean} busy
 * @property {() => void} close  closes the card of alternatives
 * @property {() => void} undo
 * @property {() => void} unfollow
 * @property {(file: File) => unknown} openFile
 * @property {() => void} shown  a folded part of the page was opened
 * @property {Record<string, (run: Run) => unknown>} onRun  by the id of the button
 */

/** @param {Actions} actions */
export function bindButtons({ attempt, run, write, stop, close, undo, unfollow, openFile, shown, onRun }) {
  for (const [id, act] of Object.entries(onRun))
    byId(id).addEventListener("click", () =>
      attempt(async () => {
        const now = run();
        if (now) await act(now);
      }),
    );
  byId("run").addEventListener("click", () => attempt(write));
  byId("stop").addEventListener("click", stop);
  byId("close-inspector").addEventListener("click", close);
  byId("undo").addEventListener("click", () => {
    undo();
    byId("remove").focus();
  });
  byId("unfollow").addEventListener("click", () => {
    unfollow();
    byId("run").focus();
  });
  byId("plain-text").addEventListener("toggle", shown);
  bindFile((chosen) => attempt(() => openFile(chosen)));
}

/** @param {(file: File) => unknown} openFile */
function bindFile(openFile) {
  const file = byId("file", HTMLInputElement);
  byId("load").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    const [chosen] = file.files ?? [];
    file.value = "";
    if (chosen) openFile(chosen);
  });
}

/** @param {Actions} actions */
export function bindKeys({ attempt, write, stop, busy }) {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) attempt(write);
    else if (event.key === "Escape" && busy()) {
      event.preventDefault();
      stop();
    }
  });
}

/**
 * Enable what can be done now.
 * @param {import("./page_state.js").PageState} state @param {import("./focus.js").Focus} focus @param {boolean} canUndo
 */
export function showButtons(state, { run, draft, place }, canUndo) {
  const still = run !== null && !draft && !run.busy;
  const settled = still && !state.busy;
  const enabled = {
    stop: state.busy,
    back: state.canGo(-1),
    forth: state.canGo(1),
    replay: still && run.drawn.length > 0 && state.serves(run),
    continue: still && run.room > 0,
    copy: run !== null && run.length > 0,
    share: settled,
    save: settled,
    remove: settled,
    redraw: still && place !== null && place >= run.tree.promptIds.length && state.serves(run),
  };
  for (const [id, on] of Object.entries(enabled)) setEnabled(byId(id), on);
  byId("undo").hidden = !canUndo;
}
