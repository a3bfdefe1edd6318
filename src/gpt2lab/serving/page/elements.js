/** Making elements, for modules that make many. */

/**
 * @param {string} tag  with classes after dots: "td.cut"
 * @param {Record<string, string | number | boolean | null>} attributes  false and null are left out, true is empty
 * @param {...(Node | string | null)} children
 */
export function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : String(value));
  made.append(...children.filter((child) => child !== null));
  return made;
}

let made = 0;

/** An id that no other element has. */
export function newId(prefix) {
  made += 1;
  return `${prefix}-${made}`;
}
