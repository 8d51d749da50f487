// The gallery: its classes and photos, page by page as they come into sight.
import { address, ask } from "./api.js";
import { addPhotos, mayChange } from "./change.js";
import { h, picture, problemBox, removeItem, tell } from "./dom.js";
import { duplicatesBox } from "./duplicates.js";
import { filterFields } from "./filters.js";
import { searchLike } from "./search.js";
import { number, t } from "./text.js";
import { openPhoto } from "./viewer.js";

const PAGE = 60;
const CHIPS = 300;
const parts = {};
const shown = new Map(); // tiles by the ids of their photos
let total = 0;
let asked = {};
let next = null;
let turn = 0;
let loading = false;

/** Shows the view; makes it the first time. */
export function openGallery(section) {
  if (!parts.tiles) make(section);
  loadClasses();
  if (!parts.tiles.childElementCount) begin();
}

/** Asks for the classes, and whether this key may change the gallery; the list below tells what is wrong. */
const loadClasses = () => parts.filters.load().then((found) => {
  showClasses(found);
  parts.add.hidden = !mayChange();
}, () => {});

function make(section) {
  parts.filters = filterFields();
  parts.count = h("p", { class: "hint" });
  parts.chips = h("ul", { class: "chips" });
  parts.classes = h("summary", {});
  parts.tiles = h("ul", { class: "tiles" });
  parts.work = h("div", { class: "work" });
  parts.more = h("button", { type: "button", class: "plain more", hidden: true, onclick: load }, t("more"));
  parts.add = h("button", { type: "button", class: "main add", hidden: true, onclick: () => addPhotos() }, t("addPhotos"));
  section.append(
    h("div", { class: "lead" }, h("h1", {}, t("gallery")), h("p", {}, t("galleryLead")), parts.add),
    h("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); begin(); } }, ...parts.filters.fields, h("button", { class: "plain" }, t("apply"))),
    h("details", { class: "classes" }, parts.classes, parts.chips), duplicatesBox(),
    parts.count, parts.tiles, parts.work, parts.more);
  new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) load(); }, { rootMargin: "800px" }).observe(parts.more);
}

function showClasses({ classes }) {
  const all = Object.entries(classes);
  parts.classes.textContent = t("classes", number(all.length));
  parts.chips.replaceChildren(...all.slice(0, CHIPS).map(([name, count]) => h("li", {},
    h("button", { type: "button", class: "chip", onclick: () => { parts.filters.label.value = name; begin(); } }, name, h("small", {}, number(count))))));
}

/** Begins the list anew, with what the fields say. */
function begin() {
  turn++;
  loading = false;
  next = -1;
  shown.clear();
  parts.tiles.replaceChildren();
  parts.more.hidden = true;
  parts.count.textContent = "";
  try {
    asked = parts.filters.query();
  } catch (problem) {
    parts.work.replaceChildren(problemBox(problem));
    return;
  }
  load();
}

async function load() {
  if (loading || next === null) return;
  const mine = turn;
  loading = true;
  parts.work.replaceChildren(h("p", { class: "hint" }, t("loading")));
  try {
    const page = await ask("GET", address("gallery", { ...asked, after: next, limit: PAGE }));
    if (mine !== turn) return;
    next = page.next;
    total = page.total;
    parts.tiles.append(...page.photos.filter((photo) => !shown.has(photo.id)).map(tile));
    showCount();
    tell(parts.count.textContent);
    parts.work.replaceChildren();
  } catch (problem) {
    if (mine !== turn) return;
    parts.work.replaceChildren(problemBox(problem, load));
    parts.more.hidden = true; // in sight it would ask again by itself
    loading = false;
    return;
  }
  loading = false;
  // Hidden and shown again, so that the observer looks again: the next page may be in sight already.
  parts.more.hidden = true;
  requestAnimationFrame(() => { parts.more.hidden = next === null; });
}

function showCount() {
  parts.count.textContent = total ? t("ofTotal", number(shown.size), number(total)) : t("nothing");
}

function tile(photo) {
  const name = photo.class ?? t("unlabelled");
  const item = h("li", {}, h("button", { type: "button", class: "thumb", onclick: () => openPhoto(photo, { like: searchLike }) },
    picture(photo.image, 320, ""), h("span", {}, name)));
  shown.set(photo.id, item);
  return item;
}

/** Shows a change at once: the server may be one of several, and learn of it within a second. New photos stand first. */
document.addEventListener("gallery-changed", ({ detail: { put, deleted } }) => {
  if (!parts.tiles) return;
  for (const photo of put) {
    const old = shown.get(photo.id);
    if (old) old.replaceWith(tile(photo));
    else parts.tiles.prepend(tile(photo));
    total += old ? 0 : 1;
  }
  if (shown.has(deleted)) {
    removeItem(shown.get(deleted));
    shown.delete(deleted);
    total--;
  }
  showCount();
  loadClasses();
});
