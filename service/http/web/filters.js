// Which photos: fields for a class and for a filter on metadata, which the search and the gallery share.
import { ask, Problem } from "./api.js";
import { know } from "./change.js";
import { field, h } from "./dom.js";
import { t } from "./text.js";

const MOST_CLASSES = 50;
const plain = (name) => name.normalize("NFC").toLowerCase();
let made = 0;

/** Two fields; `query()` gives their values as parameters of the API, and raises Problem. */
export function filterFields() {
  const names = h("datalist", { id: `classes-${made++}` });
  const label = h("input", { type: "search", list: names.id, placeholder: t("anyClass"), autocomplete: "off" });
  const where = h("input", { type: "search", spellcheck: false, autocomplete: "off", autocapitalize: "off" });
  const whereField = field(t("filter"), where, " ");
  let classes = {};

  function matching() {
    const wanted = plain(label.value.trim());
    if (!wanted) return [];
    const all = Object.keys(classes);
    const exact = all.filter((name) => plain(name) === wanted);
    const found = exact.length ? exact : all.filter((name) => plain(name).includes(wanted));
    if (!found.length) throw new Problem("unknown_class", t("noSuchClass"));
    if (found.length > MOST_CLASSES) throw new Problem("many_classes", t("manyClasses", found.length));
    return found;
  }

  return {
    fields: [field(t("class"), h("span", {}, label, names), t("classHint")), whereField],
    label,
    query: () => ({ class: matching(), where: where.value.trim() }),
    /** Asks what there is to choose from; gives the classes and the number of photos. */
    async load() {
      const [found, info] = await Promise.all([ask("GET", "gallery/classes"), ask("GET", "info")]);
      classes = found;
      know(info, found);
      names.replaceChildren(...Object.keys(classes).map((name) => h("option", { value: name })));
      const columns = Object.entries(info.metadata);
      whereField.hidden = !columns.length;
      whereField.querySelector("small").textContent = t("filterHint", columns.map(([name]) => name).join(", "));
      const [name, kind] = columns.find((column) => column[1] === "number") ?? columns[0] ?? [];
      where.placeholder = name ? (kind === "number" ? `${name} < 1000` : `${name} = '…'`) : "";
      return { classes, photos: info.photos };
    },
  };
}
