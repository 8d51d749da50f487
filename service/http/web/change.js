// Changes to the gallery: photos are added, replaced and deleted, where the server says that this key may do that.
import { address, ask } from "./api.js";
import { dropzone, field, h, loadAnew, openDialog, picture, problemBox, progress, tell } from "./dom.js";
import { number, percent, t } from "./text.js";

const ENDS = ["unauthorized", "forbidden", "gallery_full", "cancelled", "unreachable"]; // no other photo does better then
const LONGEST = 500;
const INPUTS = { number: { type: "number", step: "any" }, date: { type: "date" }, text: { maxLength: 10000 } };
let may = false;
let columns = {};
let classes = [];

/** Takes over what the server has told of itself and of its classes. */
export function know(info, found) {
  may = info.may_change;
  columns = info.metadata;
  classes = Object.keys(found);
}

export const mayChange = () => may;

const pathOf = (id) => `gallery/${encodeURIComponent(id)}`;
const changed = (detail) => document.dispatchEvent(new CustomEvent("gallery-changed", { detail: { put: [], deleted: null, ...detail } }));

/** Ids of which no two are the same: "car.jpg" and "car (2).jpg" of files from two folders. */
function numbered(ids) {
  const seen = new Set();
  return ids.map((id) => {
    let unique = id;
    for (let count = 2; seen.has(unique.normalize()); count++) unique = id.replace(/(\.[^./]*)?$/, (ending) => ` (${count})${ending}`);
    seen.add(unique.normalize());
    return unique;
  });
}

/** A question with two answers: true for yes. Its start has the focus, so that a key pressed twice is no answer. */
function sure(title, yes, ...content) {
  return new Promise((resolve) => {
    let answer = false;
    const form = h("form", { onsubmit: (event) => { event.preventDefault(); answer = true; dialog.close(); } },
      h("h2", {}, title), ...content,
      h("div", { class: "row" }, h("button", { class: "danger" }, yes), h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, t("cancel"))));
    const dialog = openDialog(title, form);
    dialog.addEventListener("close", () => resolve(answer));
  });
}

/** Asks, deletes a photo and tells the views; `done` runs before that. */
export async function deletePhoto(photo, done = () => {}) {
  for (let problem = null; ;) {
    const told = [h("div", { class: "doomed" }, picture(photo.image, 160, ""), h("p", {}, h("strong", {}, photo.class ?? t("unlabelled")), h("br"), photo.id))];
    if (!(await sure(t("deleteSure"), t("delete"), ...told, h("p", { class: "hint" }, t("deleteMeans")), problem && problemBox(problem)))) return;
    try {
      await ask("DELETE", pathOf(photo.id));
      break;
    } catch (refusal) {
      if (refusal.code === "unknown_item") break; // somebody else was faster
      problem = refusal;
    }
  }
  done();
  changed({ deleted: photo.id });
  tell(t("deleted", photo.id));
}

/** A dialog that adds photos, or puts another one in the place of an `old` one. */
export function addPhotos(old = null) {
  let files = [];
  let stop = null;
  const title = t(old ? "replacePhoto" : "addPhotos");
  const label = h("input", { list: "add-classes", maxLength: LONGEST, autocomplete: "off", value: old?.class ?? "" });
  const id = h("input", { maxLength: LONGEST, autocomplete: "off", spellcheck: false, value: old?.id ?? "", readOnly: old !== null });
  const idField = field("id", id, t("idHint"));
  const meta = metadataFields(old?.metadata ?? {});
  const chosen = h("p", { class: "hint", role: "status" });
  const work = h("div", { class: "problems" });
  const save = h("button", { class: "main" }, title);
  const drop = dropzone({ accept: "image/*,.heic,.heif,.avif", multiple: !old, title: t(old ? "chooseOne" : "chooseMany"), hint: t("dropPhotosHint"), taken: (_, all) => choose(old ? all.slice(0, 1) : all) });
  const controls = h("fieldset", { class: "adding" }, drop.box, chosen,
    field(t("class"), h("span", {}, label, h("datalist", { id: "add-classes" }, classes.map((name) => h("option", { value: name })))), t("classOptional")),
    idField, meta.box);
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); put(); } }, h("h2", {}, title), controls, work,
    h("div", { class: "row" }, save, h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, t("close"))));
  const dialog = openDialog(title, form);
  dialog.closedBy = "closerequest"; // a click beside it must not lose what was written
  dialog.addEventListener("close", () => stop?.abort());

  const folder = () => label.value.split("/").map((part) => part.trim()).filter((part) => !["", ".", ".."].includes(part));
  const idOf = (file) => [...folder(), file.name].join("/").slice(-LONGEST);
  const suggest = () => { if (files.length === 1 && !old && !id.dataset.own) id.value = idOf(files[0]); };
  label.addEventListener("input", suggest);
  id.addEventListener("input", () => { id.dataset.own = "yes"; });

  function choose(all) {
    files = all;
    idField.hidden = !old && files.length !== 1;
    save.disabled = !files.length;
    chosen.textContent = files.length ? `${t("photos", number(files.length))}: ${files.slice(0, 5).map((file) => file.name).join(", ")}${files.length > 5 ? " …" : ""}` : "";
    work.replaceChildren();
    suggest();
  }

  /** Puts what was chosen, one photo after the other; those that were refused stay chosen. */
  async function put() {
    const ids = numbered(files.map(idOf));
    const waiting = files.map((file, place) => ({ file, id: files.length === 1 ? id.value.trim() : ids[place] }));
    const query = { class: label.value.trim(), metadata: meta.value() };
    const bar = progress(t("adding"));
    const [added, refused] = [[], []];
    stop = new AbortController();
    controls.disabled = save.disabled = true;
    work.replaceChildren(bar.box);
    try {
      if (old || (await mayReplace(waiting, stop.signal))) {
        for (const one of waiting) {
          const share = (sent) => bar.set((added.length + refused.length + sent) / waiting.length, `${t("adding")} ${percent((added.length + sent) / waiting.length)}`);
          try {
            added.push(await ask("PUT", address(pathOf(one.id), query), {
              body: one.file, headers: { "Content-Type": "application/octet-stream" }, signal: stop.signal, uploaded: share,
              waiting: (sentence) => bar.set(null, sentence),
            }));
          } catch (problem) {
            refused.push({ ...one, problem });
            if (ENDS.includes(problem.code)) break;
          }
        }
      } else refused.push(...waiting);
    } catch (problem) {
      refused.push({ ...waiting[0], problem });
    }
    for (const photo of added) loadAnew(photo.image);
    if (added.length) changed({ put: added });
    controls.disabled = false;
    if (!refused.length && added.length === waiting.length) {
      dialog.close();
      tell(t("added", number(added.length)));
      return;
    }
    const kept = waiting.filter((one) => !added.some((photo) => photo.id.normalize() === one.id.normalize()));
    choose(kept.map((one) => one.file));
    work.replaceChildren(...(added.length ? [h("p", { class: "good", role: "status" }, t("added", number(added.length)))] : []),
      ...refused.filter((one) => one.problem).map((one) => problemBox({ ...one.problem, message: waiting.length > 1 ? `${one.id}: ${one.problem.message}` : one.problem.message })));
    (work.querySelector(".problem") ?? save).scrollIntoView({ block: "nearest" });
  }

  choose([]);
}

/** Asks before photos that are there are replaced. */
async function mayReplace(waiting, signal) {
  const there = [];
  for (const { id } of waiting) {
    await ask("HEAD", `${pathOf(id)}/image?width=160`, { signal }).then(() => there.push(id), (problem) => { if (problem.status !== 404) throw problem; });
  }
  return !there.length || sure(t("replaceSure", number(there.length)), t("replace"), h("ul", { class: "names" }, there.slice(0, 10).map((id) => h("li", {}, id))));
}

/** A field for each column of the gallery, and one for a new column. */
function metadataFields(old) {
  const inputs = Object.entries(columns).map(([name, kind]) => [name, h("input", { ...INPUTS[kind], value: old[name] ?? "" })]);
  const [name, value] = [h("input", { maxLength: 100, spellcheck: false }), h("input", INPUTS.text)];
  const box = h("details", { open: Object.keys(old).length > 0 }, h("summary", {}, t("metadata")),
    h("div", { class: "cells" }, inputs.map(([column, input]) => field(column, input)), field(t("newColumn"), name), field(t("itsValue"), value)));
  return {
    box,
    /** The cells that are not empty, as JSON. */
    value() {
      const cells = [...inputs.map(([column, input]) => [column, input.value.trim()]), [name.value.trim(), value.value.trim()]].filter(([column, cell]) => column && cell);
      return cells.length ? JSON.stringify(Object.fromEntries(cells)) : "";
    },
  };
}
