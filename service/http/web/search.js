// The search: a photo in; the class first, then the nearest cars.
import { address, ask, hasKey } from "./api.js";
import { cropper } from "./crop.js";
import { acceptDrops, copyLine, dropzone, field, h, picture, problemBox, progress, removeItem, tell } from "./dom.js";
import { filterFields } from "./filters.js";
import { inWords, likelihood, number, percent, t } from "./text.js";
import { openPhoto } from "./viewer.js";

const ACCEPTED = "image/*,.heic,.heif,.avif";
const SAMPLES = 6;
const EXPLAINED = 5; // hits, by the server
const parts = {};
let query = null;
let running = null;
let failed = false;

/** Asks for what the view shows; the view itself is there from the start, since other views search too. */
export function openSearch() {
  parts.filters.load().then(({ photos }) => { parts.trouble.replaceChildren(); return showSamples(photos); })
    .catch((problem) => parts.trouble.replaceChildren(problemBox(problem, openSearch)));
}

/** Searches for photos like one of the gallery; from any view. */
export function searchLike(photo) {
  location.hash = "#search";
  take({ id: photo.id, address: photo.image, name: photo.class ?? t("unlabelled") });
}

function make(section) {
  const camera = h("input", { type: "file", accept: "image/*", capture: "environment", class: "unseen", onchange: () => {
    if (camera.files.length) takeFile(camera.files[0]);
    camera.value = "";
  } });
  const shot = h("label", { class: "button plain camera" }, camera, t("takePhoto"));
  const drop = dropzone({ accept: ACCEPTED, title: t("dropPhoto"), hint: t("dropPhotoHint"), taken: takeFile });
  parts.filters = filterFields();
  parts.k = h("input", { type: "number", min: 1, max: 100, value: 10, required: true, inputMode: "numeric" });
  const options = h("form", { class: "options", onsubmit: (event) => { event.preventDefault(); if (query) run(); } },
    h("details", {}, h("summary", {}, t("options")),
      h("fieldset", {}, field(t("howMany"), parts.k), ...parts.filters.fields, h("button", { class: "plain" }, t("apply")))));
  parts.photo = h("div", { class: "query-photo" });
  parts.samples = h("div", { class: "samples" });
  parts.side = h("div", { class: "side" }, parts.photo, drop.box, shot, options, parts.samples);
  parts.trouble = h("div", {}); // with the view, beside what a search has to say
  parts.work = h("div", { class: "work" });
  parts.found = h("div", { class: "found" });
  parts.section = section;
  section.append(h("div", { class: "lead" }, h("h1", {}, t("searchTitle")), h("p", {}, t("searchLead"))),
    h("div", { class: "split" }, parts.side, h("div", { class: "answer" }, parts.trouble, parts.work, parts.found)));
  acceptDrops(section, takeFile);
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (!file || document.querySelector("dialog[open]:not(.viewer)")) return;
    event.preventDefault();
    location.hash = "#search";
    takeFile(file);
  });
  document.addEventListener("gallery-changed", ({ detail: { deleted } }) => {
    for (const one of parts.found.querySelectorAll(".card")) if (one.dataset.id === deleted) removeItem(one);
  });
  document.addEventListener("server-back", () => { if (failed && query) run(); if (parts.trouble.childElementCount) openSearch(); });
}

/** Photos from all over the gallery, for those who have none at hand. */
async function showSamples(photos) {
  if (query || parts.samples.childElementCount || photos < SAMPLES) return;
  const places = Array.from({ length: SAMPLES }, (_, place) => Math.floor(((place + 0.5) * photos) / SAMPLES));
  const pages = await Promise.all(places.map((place) => ask("GET", address("gallery", { after: place - 1, limit: 1 }))));
  const shown = pages.flatMap((page) => page.photos).map((photo) => h("li", {},
    h("button", { type: "button", class: "thumb", "aria-label": `${t("like")}: ${photo.id}`, onclick: () => searchLike(photo) }, picture(photo.image, 320, ""))));
  parts.samples.replaceChildren(h("h2", {}, t("orOne")), h("ul", {}, shown));
}

function takeFile(file) {
  take({ file, address: URL.createObjectURL(file), name: file.name || "photo.jpg" });
}

function take(next) {
  document.querySelector("dialog.viewer")?.close(); // a photo may be pasted over it
  if (query?.file) URL.revokeObjectURL(query.address);
  query = next;
  parts.section.classList.add("asked");
  parts.found.replaceChildren();
  showPhoto();
  scrollTo(0, 0);
  parts.photo.firstChild.focus({ preventScroll: true }); // what was pressed is gone
  run();
}

const queryImage = () => (query.file ? h("img", { src: query.address, alt: t("yourPhoto") }) : picture(query.address, 640, query.name));

/** The photo that is searched for, with the box on it. */
function showPhoto() {
  const image = queryImage();
  const frame = h("div", { class: "frame" }, image);
  const buttons = h("div", { class: "row" });
  parts.photo.replaceChildren(h("h2", { tabIndex: -1 }, query.file ? t("yourPhoto") : t("likePhoto")), frame, buttons);
  query.crop = null;
  const input = h("input", { type: "file", accept: ACCEPTED, class: "unseen", onchange: () => { if (input.files.length) takeFile(input.files[0]); } });
  const another = h("label", { class: "button plain" }, input, t("another"));
  buttons.append(another);
  if (!query.file) return;
  const crop = cropper(image);
  const hint = h("p", { class: "hint", hidden: true }, t("cropHint"));
  const button = (label, onclick, kind = "plain") => h("button", { type: "button", class: kind, onclick }, t(label));
  const search = button("searchPart", run, "main");
  const whole = button("whole", () => { cropping(false); run(); });
  const start = button("crop", () => cropping(true));
  const cropping = (on) => {
    if (on) crop.start();
    else crop.clear();
    query.crop = on ? crop : null;
    for (const one of [search, whole, hint]) one.hidden = !on;
    start.hidden = on;
  };
  search.hidden = whole.hidden = true;
  frame.append(crop.layer);
  another.before(search, whole, start);
  buttons.before(hint);
  image.addEventListener("error", () => {
    frame.replaceChildren(h("p", { class: "hint" }, t("notShown")));
    start.hidden = true;
  });
}

function request() {
  const box = query.crop?.value() ?? null;
  const asked = { k: parts.k.value, ...parts.filters.query(), box };
  const path = address("search", asked);
  const why = address("search", { ...asked, explain: true });
  if (!query.file) return { path, why, box, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ id: query.id }) };
  const body = new FormData();
  body.append("file", query.file, query.name);
  return { path, why, box, headers: {}, body };
}

async function run() {
  running?.abort();
  const mine = (running = new AbortController());
  const bar = progress(t("searching"));
  failed = false;
  parts.work.replaceChildren(bar.box, h("button", { type: "button", class: "plain", onclick: () => mine.abort() }, t("cancel")));
  busy(true);
  try {
    const asked = request();
    const found = await ask("POST", asked.path, {
      ...asked,
      signal: mine.signal,
      uploaded: (share) => bar.set(share < 1 ? share : null, share < 1 ? t("uploading", percent(share)) : t("searching")),
      waiting: (sentence) => bar.set(null, sentence),
    });
    if (mine !== running) return;
    parts.work.replaceChildren();
    show(found, asked);
  } catch (problem) {
    if (mine !== running) return;
    failed = problem.code === "unreachable";
    parts.found.replaceChildren();
    parts.work.replaceChildren(problemBox(problem, run));
  }
  busy(false);
}

/** While a search runs it cannot be sent again; the answer before it stays, paler. */
function busy(on) {
  for (const button of parts.side.querySelectorAll("button, fieldset")) button.disabled = on;
  parts.section.setAttribute("aria-busy", on);
  parts.found.classList.toggle("old", on);
}

function show(found, asked) {
  const decision = verdict(found);
  parts.found.replaceChildren(decision.box,
    h("details", { class: "code" }, h("summary", {}, t("inCode")), copyLine(command(asked.path))),
    groups(found, asked.box, explainer(asked)),
    h("p", { class: "hint" }, t("took", number(Math.round(found.timings_ms.total)))));
  tell(`${decision.words} ${t("photos", number(found.results.length))}`);
}

/** The answer in words: a class and how sure, or why there is none. */
function verdict({ decision, results }) {
  const lines = [];
  let title = t("noClass");
  if (!decision) {
    lines.push(!results.length ? t("nothing") : Object.values(parts.filters.query()).some((one) => one.length) ? t("filteredWhy") : t("noLabelWhy"));
  } else if (decision.outcome === "not_a_car") {
    title = t("noCar");
    lines.push(t("noCarWhy", likelihood(decision.car_probability)), t("mostLikely", decision.class));
  } else {
    const named = decision.outcome === "class";
    title = named ? decision.class : t("notSure");
    if (!named) lines.push(t("mostLikely", decision.class));
    lines.push(t("probability", likelihood(decision.probability), inWords(decision.probability)), t("agreement", percent(decision.agreement)));
  }
  const meter = decision && decision.outcome !== "not_a_car" ? h("div", { class: "meter", "aria-hidden": "true" }, h("span")) : null;
  if (meter) meter.firstChild.style.width = `${100 * decision.probability}%`;
  const box = h("div", { class: `verdict ${decision?.outcome ?? "none"}` }, h("h2", {}, title), meter, lines.map((line) => h("p", {}, line)));
  return { box, words: `${title}. ${lines.join(" ")}` };
}

/** The hits as pictures, those of one class together, the class of the nearest first. */
function groups({ results, decision }, box, why) {
  if (!results.length) return h("div");
  const byClass = new Map();
  for (const hit of results) byClass.set(hit.class, [...(byClass.get(hit.class) ?? []), hit]);
  const boxes = [...byClass].map(([name, hits]) => {
    const chosen = decision?.outcome === "class" && decision.class === name;
    const group = h("section", { class: chosen ? "group chosen" : "group" },
      h("h3", {}, name ?? t("unlabelled"), " ", h("small", {}, t("photos", number(hits.length)))),
      h("ul", { class: "cards" }, hits.map((hit) => card(hit, box, why))));
    group.style.setProperty("--n", hits.length);
    return group;
  });
  return h("div", {}, h("h2", { class: "between" }, t("nearest")), h("div", { class: "groups" }, boxes));
}

/** Asks why the first hits match, when somebody wants to know: once for all, and again after a failure. */
function explainer(asked) {
  let answer = null;
  return async (hit, waiting) => {
    answer ??= ask("POST", asked.why, { ...asked, waiting });
    const { results } = await answer.catch((problem) => { answer = null; throw problem; });
    return results.find((one) => one.id === hit.id)?.explanation;
  };
}

function card(hit, box, why) {
  const name = hit.class ?? t("unlabelled");
  const explained = hit.rank <= EXPLAINED;
  const look = () => openPhoto(hit, { query: queryImage(), box, why: explained ? (waiting) => why(hit, waiting) : null, like: searchLike });
  return h("li", { class: "card", "data-id": hit.id },
    h("button", { type: "button", class: "thumb", "aria-label": `${t("look", `${name}, ${t("score")} ${hit.score.toFixed(3)}`)}${explained ? `, ${t("why")}` : ""}`, onclick: look },
      picture(hit.image, 320, ""), explained && h("span", { class: "ask-why" }, t("why"))),
    h("div", { class: "card-line" }, h("span", { class: "score", title: t("score") }, hit.score.toFixed(3)),
      h("button", { type: "button", class: "link", "aria-label": `${t("like")}: ${hit.id}`, onclick: () => searchLike(hit) }, t("like"))));
}

/** The same request for a shell. A key is not shown; KEY stands for it. */
function command(path) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const url = new URL(path, location.href.replace(/#.*/, "")).href;
  const key = hasKey() ? '-H "X-Api-Key: $KEY" ' : "";
  if (!query.file) return `curl ${key}-H 'Content-Type: application/json' -d ${quoted(JSON.stringify({ id: query.id }))} ${quoted(url)}`;
  const name = query.name.replace(/\p{C}/gu, "?");
  const part = /[",;\\]/.test(name) ? `file=@"${name.replace(/["\\]/g, "\\$&")}"` : `file=@${name}`;
  return `curl ${key}-F ${quoted(part)} ${quoted(url)}`;
}

make(document.getElementById("view-search"));
