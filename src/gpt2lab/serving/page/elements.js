/** Functions that make elements and find those of the page's HTML. */

/**
 * The kind of element that `element(tag)` makes.
 * @template {string} Tag
 * @typedef {Tag extends `${infer Name}.${string}` ? Made<Name>
 *   : Tag extends keyof HTMLElementTagNameMap ? HTMLElementTagNameMap[Tag] : HTMLElement} Made
 */

/** @typedef {Record<string, string | number | boolean | null>} Attributes  false and null are left out, true is empty */

/**
 * @template {string} Tag
 * @param {Tag} tag  with classes after dots: "td.cut"
 * @param {Attributes} [attributes]
 * @param {...(Node | string | null)} children
 * @returns {Made<Tag>}
 */
export function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  fill(made, attributes, children);
  return /** @type {Made<Tag>} */ (made);
}

/**
 * @param {keyof SVGElementTagNameMap} name
 * @param {Attributes} attributes
 * @param {...(Node | string | null)} children
 */
export function svgElement(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  fill(made, attributes, children);
  return made;
}

/** @param {Element} made @param {Attributes} attributes @param {(Node | string | null)[]} children */
function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : String(value));
  made.append(...children.filter((child) => child !== null));
}

/**
 * Return the element with this id in the page's HTML.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind]
 * @returns {T}
 */
export function byId(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof (kind ?? HTMLElement))) throw new Error(`the page has no ${kind?.name ?? "element"} #${id}`);
  return /** @type {T} */ (found);
}

/**
 * Return an event's target, or else the closest element around it, that matches `selector`.
 * @param {Event} event
 * @param {string} selector
 */
export function around(event, selector) {
  return event.target instanceof Element ? event.target.closest(selector) : null;
}

/** Make a bar of a table; `share` is its share of the longest bar. @param {number} share */
export function bar(share) {
  const made = element("span.bar");
  made.style.setProperty("--share", String(share));
  return made;
}

let ids = 0;

/** Return an id that no other element has. @param {string} prefix */
export function newId(prefix) {
  ids += 1;
  return `${prefix}-${ids}`;
}

/**
 * Enable or disable a button. A disabled one keeps the focus, and {@link ignoreDisabled} ignores clicks on it: a `disabled`
 * button would drop the focus to the top of the page.
 * @param {HTMLElement} button @param {boolean} on
 */
export function setEnabled(button, on) {
  button.setAttribute("aria-disabled", String(!on));
}

/** Return whether a button is enabled. @param {HTMLElement} button */
export function isEnabled(button) {
  return button.getAttribute("aria-disabled") !== "true";
}

/** Let no click on the page reach a button that {@link setEnabled} has disabled. */
export function ignoreDisabled() {
  const ignore = (/** @type {Event} */ event) => {
    if (!around(event, "button[aria-disabled=true]")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  document.addEventListener("click", ignore, true);
}
