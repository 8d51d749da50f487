// One photo of the gallery, large; for one that a search found, beside the photo that was searched for, and why they match.
import { addPhotos, deletePhoto, mayChange } from "./change.js";
import { h, openDialog, picture, problemBox, progress } from "./dom.js";
import { t } from "./text.js";
import { framed, layHeat, sumOf } from "./why.js";

const SHOWN = 80; // of the heat, in percent, at first

/**
 * Opens it; `like` searches for photos like this one. For a photo that was found, `query` is an image element of the photo that
 * was searched for, `box` the part of it, and `why` asks for the explanation; null for one that has none.
 */
export function openPhoto(photo, { query = null, box = null, why = null, like }) {
  const name = photo.class ?? t("unlabelled");
  const hitFrame = framed(picture(photo.image, 1024, name));
  const queryFrame = query && framed(query);
  query?.addEventListener("error", () => queryFrame.replaceChildren(h("p", { class: "hint" }, t("notShown"))));
  const figure = (frame, ...caption) => h("figure", {}, frame, h("figcaption", {}, ...caption));
  const pair = h("div", { class: "pair" },
    queryFrame && figure(queryFrame, query.alt), // "Your photo", or the class of one of the gallery
    figure(hitFrame, h("strong", {}, name), photo.score === undefined ? null : ` ${t("score")} ${photo.score.toFixed(3)}`));
  const reason = h("div", { class: "why" });
  const dialog = openDialog(name, pair, reason, details(photo),
    h("div", { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => { dialog.close(); like(photo); } }, t("like")),
      mayChange() && h("button", { type: "button", class: "plain", onclick: () => { dialog.close(); addPhotos(photo); } }, t("replacePhoto")),
      mayChange() && h("button", { type: "button", class: "plain risky", onclick: () => deletePhoto(photo, () => dialog.close()) }, t("delete")),
      h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, t("close"))));
  dialog.classList.add("viewer");

  async function explain() {
    const bar = progress(t("whyLoading"));
    reason.replaceChildren(bar.box);
    try {
      const told = await why((sentence) => bar.set(null, sentence));
      if (!told) {
        reason.replaceChildren(h("p", { class: "hint" }, t("whyGone")));
        return;
      }
      layHeat(told, queryFrame, hitFrame, box);
      reason.replaceChildren(slider(pair), h("p", {}, t("whyMeans")), h("p", { class: "hint" }, sumOf(told, photo.score)));
    } catch (problem) {
      reason.replaceChildren(problemBox(problem, problem.status === 422 ? null : explain));
    }
  }

  if (why) explain();
}

/** Fades from the photos to their heat. */
function slider(pair) {
  const fade = () => pair.style.setProperty("--heat", input.value / 100);
  const input = h("input", { type: "range", min: 0, max: 100, value: SHOWN, "aria-label": t("heatShown"), oninput: fade });
  fade();
  return h("div", { class: "fade" }, h("span", { "aria-hidden": "true" }, t("photo")), input, h("span", { "aria-hidden": "true" }, t("heat")));
}

/** Its id and its cells of the spreadsheet. */
function details(photo) {
  const cells = [["id", photo.id], ...Object.entries(photo.metadata)];
  return h("dl", { class: "facts" }, cells.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]).flat());
}
