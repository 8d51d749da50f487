// One photo of the gallery, large, beside the photo that was searched for.
import { h, openDialog, picture } from "./dom.js";
import { t } from "./text.js";

const figure = (image, ...caption) => h("figure", {}, image, h("figcaption", {}, ...caption));

/** Opens it; `query` is an image element's address or null, `like` searches for photos like this one. */
export function openPhoto(photo, { query = null, like }) {
  const name = photo.class ?? t("unlabelled");
  const dialog = openDialog(name,
    h("div", { class: "pair" },
      query && figure(h("img", { src: query, alt: t("yourPhoto") }), t("yourPhoto")),
      figure(picture(photo.image, 1024, name), h("strong", {}, name), photo.score === undefined ? null : ` ${t("score")} ${photo.score.toFixed(3)}`)),
    details(photo),
    h("div", { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => { dialog.close(); like(photo); } }, t("like")),
      h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, t("close"))));
  dialog.classList.add("viewer");
}

/** Its id and its cells of the spreadsheet. */
function details(photo) {
  const cells = [["id", photo.id], ...Object.entries(photo.metadata)];
  return h("dl", { class: "facts" }, cells.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]).flat());
}
