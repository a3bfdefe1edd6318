/**
 * Terms with definitions: buttons that open the definition beside them, with a click, Enter or Space; Escape closes it.
 * Definitions come from the glossary.
 */

import { around, element } from "./elements.js";
import { GLOSSARY } from "./glossary.js";

const MARGIN = 8;

/** Make a button that opens the definition of `term`. @param {string} term */
export function about(term) {
  const { title } = GLOSSARY[term];
  return element("button.about", { type: "button", "data-term": term, "aria-label": `What is ${title}?`, "aria-expanded": "false" }, "?");
}

/** Make a word of a sentence that opens the definition of `term`. @param {string} word @param {string} term */
export function defined(word, term) {
  return element("button.term", { type: "button", "data-term": term, "aria-expanded": "false" }, word);
}

/** Let every button of the page that has a term open its definition. */
export function mountTerms() {
  const box = element("div.definition", { id: "definition", role: "note", hidden: true });
  document.body.append(box);
  /** @type {HTMLElement | null} */
  let opened = null;
  const close = () => {
    box.hidden = true;
    opened?.setAttribute("aria-expanded", "false");
    opened = null;
  };
  document.addEventListener("click", (event) => {
    const button = around(event, "[data-term]");
    const same = button === opened;
    if (!around(event, ".definition")) close();
    if (button instanceof HTMLElement && !same) {
      opened = button;
      open(box, button);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !opened?.isConnected) return;
    event.preventDefault(); // it closes nothing else
    opened.focus();
    close();
  });
  document.addEventListener("focusin", (event) => {
    if (opened && event.target !== opened && !around(event, ".definition")) close();
  });
}

/** Show the definition beside `button`, right after it for readers. @param {HTMLElement} box @param {HTMLElement} button */
function open(box, button) {
  const term = button.dataset.term ?? "";
  const { title, text } = GLOSSARY[term];
  const more = element("a", { href: `glossary#${term}` }, "All terms");
  box.replaceChildren(element("strong", {}, title), element("p", {}, text), more);
  box.hidden = false;
  button.setAttribute("aria-expanded", "true");
  button.setAttribute("aria-details", box.id);
  button.after(box);
  const place = button.getBoundingClientRect();
  const left = Math.min(place.left, innerWidth - box.offsetWidth - MARGIN);
  const below = place.bottom + MARGIN + box.offsetHeight < innerHeight;
  box.style.left = `${Math.max(MARGIN, left)}px`;
  box.style.top = `${below ? place.bottom + MARGIN : Math.max(MARGIN, place.top - box.offsetHeight - MARGIN)}px`;
}
