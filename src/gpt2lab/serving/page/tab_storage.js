/**
 * The storage of this tab. A browser can forbid or fill it; then its texts last until the page is left.
 */

/** @type {Map<string, string>} */
const here = new Map();

/** Return the text kept under `name`; null if there is none. @param {string} name @returns {string | null} */
export function kept(name) {
  try {
    return here.get(name) ?? sessionStorage.getItem(name);
  } catch {
    return null; // forbidden
  }
}

/** Keep `text` under `name`. @param {string} name @param {string} text */
export function keep(name, text) {
  try {
    sessionStorage.setItem(name, text);
    here.delete(name);
  } catch {
    here.set(name, text); // forbidden, or full
  }
}
