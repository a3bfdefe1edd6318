/**
 * A toolbar with one tab stop: the arrow keys, Home and End go through its buttons, as ARIA's pattern for toolbars
 * prescribes.
 */

/** @param {HTMLElement} bar  its buttons become one tab stop */
export function mountToolbar(bar) {
  const buttons = () => [...bar.querySelectorAll("button")].filter((button) => !button.hidden);
  const lead = (/** @type {Element | null | undefined} */ stop) => {
    for (const button of buttons()) button.tabIndex = button === stop ? 0 : -1;
  };
  lead(buttons()[0]);
  bar.addEventListener("focusin", (event) => lead(/** @type {Element} */ (event.target)));
  bar.addEventListener("keydown", (event) => {
    const all = buttons();
    const at = all.findIndex((button) => button === event.target);
    /** @type {Record<string, number | undefined>} */
    const targets = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 };
    const target = targets[event.key];
    if (at < 0 || target === undefined) return;
    all[Math.min(Math.max(target, 0), all.length - 1)].focus();
    event.preventDefault();
  });
}
