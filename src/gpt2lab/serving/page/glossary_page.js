/** The page at /glossary: every definition, from the source of those on the playground. */

import { byId, element } from "./elements.js";
import { GLOSSARY } from "./glossary.js";

const terms = Object.entries(GLOSSARY).sort(([, one], [, other]) => one.title.localeCompare(other.title));
byId("terms").replaceChildren(
  ...terms.map(([id, { title, text }]) => element("div", { id }, element("dt", {}, title), element("dd", {}, text))),
);
const wished = document.getElementById(location.hash.slice(1));
wished?.scrollIntoView();
