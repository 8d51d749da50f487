// The page: four views, one at a time, named by the part of the address behind "#".
import { openEvaluate } from "./evaluate.js";
import { openGallery } from "./gallery.js";
import { openSearch } from "./search.js";
import { openStatus } from "./status.js";
import { korean, t } from "./text.js";

const OPEN = { search: openSearch, gallery: openGallery, evaluate: openEvaluate, status: openStatus };

document.documentElement.lang = korean ? "ko" : "en";
for (const element of document.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
// A file that misses its place must not replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

// Its address would be taken for that of a view.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});

function show(focus) {
  const name = Object.hasOwn(OPEN, location.hash.slice(1)) ? location.hash.slice(1) : "search";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const one of Object.keys(OPEN)) document.getElementById(`view-${one}`).hidden = one !== name;
  const section = document.getElementById(`view-${name}`);
  OPEN[name](section);
  document.title = `${t(name)} · carsearch`;
  if (focus) {
    scrollTo(0, 0);
    document.getElementById("main").focus({ preventScroll: true });
  }
}

addEventListener("hashchange", () => show(true));
show(false);
