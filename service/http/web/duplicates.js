// Photos of the gallery that show the same: copies of a file, and near copies, side by side.
import { address, ask } from "./api.js";
import { deletePhoto, mayChange } from "./change.js";
import { h, picture, problemBox, progress, removeItem, tell } from "./dom.js";
import { searchLike } from "./search.js";
import { number, t } from "./text.js";
import { openPhoto } from "./viewer.js";

const AT_ONCE = 30;

/** A box that looks for them when it is opened. */
export function duplicatesBox() {
  const list = h("ul", { class: "pairs" });
  const work = h("div", { class: "work" });
  const box = h("details", { class: "duplicates", ontoggle: () => (box.open ? fresh || find() : stop?.abort()) },
    h("summary", {}, t("duplicates")), h("p", { class: "hint" }, t("duplicatesLead")), list, work);
  let [asked, fresh, stop, pairs] = [{}, false, null, []];

  const button = (words, onclick) => h("button", { type: "button", class: "plain", onclick }, t(words));
  const again = () => {
    [asked, pairs] = [{}, []];
    list.replaceChildren();
    find();
  };

  /** Asks page by page until some more pairs are there, the gallery is at its end, or somebody stops it. */
  async function find() {
    const mine = (stop = new AbortController());
    const bar = progress(t("comparing"));
    const wanted = pairs.length + AT_ONCE;
    fresh = true;
    work.replaceChildren(bar.box, button("stop", () => mine.abort()));
    try {
      do {
        const page = await ask("POST", address("gallery/duplicates", asked), { signal: mine.signal, waiting: (sentence) => bar.set(null, sentence) });
        for (const found of page.duplicates) show(found);
        asked = { after: page.next, min_score: page.min_score };
        bar.set(page.total ? page.compared / page.total : 1, t("compared", number(page.compared), number(page.total)));
      } while (asked.after && pairs.length < wanted);
    } catch (problem) {
      if (problem.code !== "cancelled") {
        work.replaceChildren(problemBox(problem, find));
        return;
      }
    }
    const words = pairs.length ? t("pairs", number(pairs.length)) : asked.after ? "" : t("noDuplicates");
    tell(words);
    work.replaceChildren(h("p", { class: "hint" }, words), asked.after === null ? button("again", again) : button("more", find));
  }

  function show({ photos, score, same_file: same }) {
    const figures = photos.map((photo) => h("figure", {},
      h("button", { type: "button", class: "thumb", "aria-label": t("look", photo.id), onclick: () => openPhoto(photo, { like: searchLike }) }, picture(photo.image, 320, "")),
      h("figcaption", {}, h("strong", {}, photo.class ?? t("unlabelled")), h("span", {}, photo.id)),
      mayChange() && h("button", { type: "button", class: "plain", "aria-label": `${t("delete")}: ${photo.id}`, onclick: () => deletePhoto(photo) }, t("delete"))));
    const item = h("li", {}, h("h3", {}, same ? t("sameFile") : `${t("score")} ${score.toFixed(3)}`), h("div", { class: "two" }, figures));
    pairs.push({ ids: photos.map((photo) => photo.id), item });
    list.append(item);
  }

  document.addEventListener("gallery-changed", ({ detail }) => {
    const gone = [detail.deleted, ...detail.put.map((photo) => photo.id)];
    for (const pair of pairs.filter(({ ids }) => ids.some((id) => gone.includes(id)))) removeItem(pair.item);
    pairs = pairs.filter(({ item }) => item.isConnected);
  });
  return box;
}
