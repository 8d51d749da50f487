// What the server serves, since when, and what it has refused.
import { ask, forgetKey, hasKey } from "./api.js";
import { h, problemBox } from "./dom.js";
import { number, t, time } from "./text.js";

/** Shows the view, asked anew each time. */
export async function openStatus(section) {
  const body = h("div", {}, h("p", { class: "hint" }, t("loading")));
  section.replaceChildren(h("div", { class: "lead" }, h("h1", {}, t("statusTitle"))), body);
  try {
    body.replaceChildren(...content(await ask("GET", "info"), () => openStatus(section)));
  } catch (problem) {
    body.replaceChildren(problemBox(problem, () => openStatus(section)));
  }
}

function content(info, again) {
  const names = (list) => list.join(", ") || t("none");
  const facts = [
    [t("status"), h("span", { class: info.ready ? "good" : "bad" }, info.ready ? t("ready") : t("notReady"))],
    [t("gallery"), `${t("photos", number(info.photos))}, ${t("classes", number(info.classes))}`],
    [t("since"), info.serving_since && time(info.serving_since)],
    [t("built"), info.index_created && time(info.index_created)],
    [t("version"), info.versions && h("code", {}, info.versions.index)],
    [t("model"), info.versions && `${info.versions.model} (${info.runtime}, ${info.precision})`],
    [t("columns"), names(Object.entries(info.metadata).map(([name, kind]) => `${name} (${kind})`))],
    [t("datasets"), names(info.datasets)],
    [t("refused"), info.refused_version ? h("code", { class: "bad" }, info.refused_version) : t("none")],
    [t("product"), `carsearch ${info.version}`],
  ];
  return [
    h("dl", { class: "facts wide" }, facts.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    info.refused_version && h("p", { class: "problem" }, t("refusedWhy")),
    hasKey() && h("button", { type: "button", class: "plain", onclick: () => { forgetKey(); again(); } }, t("forget")),
  ].filter(Boolean);
}
