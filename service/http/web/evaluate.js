// Evaluations: a zip or a named set in, its progress, and the figures of its report.
import { ask, forgetKey, hasKey } from "./api.js";
import { dropzone, field, h, problemBox, progress, tell } from "./dom.js";
import { number, percent, t, time } from "./text.js";

const POLL_S = 1;
const MOST_ROWS = 15;
const MODES = { "leave-one-out": "leaveOneOut", gallery: "againstGallery" };
const parts = {};
let busy = false;

/** Shows the view; makes it the first time. */
export async function openEvaluate(section) {
  if (!parts.work) make(section);
  try {
    const { datasets } = await ask("GET", "info");
    parts.sets.replaceChildren(...datasets.map((name) => h("button", { type: "button", class: "plain", onclick: () => start(name) }, t("dataset", name))));
    const past = await list();
    const current = past.find((one) => one.status === "running");
    if (busy) return;
    parts.work.replaceChildren(); // what was wrong before
    if (current) follow(current.id);
  } catch (problem) {
    if (!busy) refuse(problem, () => openEvaluate(section)); // what runs tells of itself
  }
}

function make(section) {
  parts.mode = h("select", {}, Object.entries(MODES).map(([value, words]) => h("option", { value }, t(words))));
  parts.sets = h("div", { class: "row" });
  parts.work = h("div", { class: "work" });
  parts.report = h("div", { class: "report" });
  parts.past = h("div", { class: "past" });
  const drop = dropzone({ accept: ".zip,.tar,application/zip,application/x-tar", title: t("dropArchive"), hint: t("dropArchiveHint"), taken: start });
  parts.form = h("fieldset", { class: "evaluate-form" }, drop.box, field(t("against"), parts.mode), parts.sets);
  section.append(h("div", { class: "lead" }, h("h1", {}, t("evaluateTitle")), h("p", {}, t("evaluateLead"))),
    parts.form, parts.work, parts.report, h("h2", {}, t("past")), parts.past);
}

function refuse(problem, again) {
  const box = problemBox(problem, again);
  if (problem.status === 403) box.append(h("button", { type: "button", class: "plain", onclick: () => { forgetKey(); again?.(); } }, t("otherKey")));
  parts.work.replaceChildren(box);
}

/** Evaluates a file, or the set of a name. */
async function start(source) {
  if (busy) return;
  const stop = new AbortController();
  const bar = progress(t("reading"));
  const named = typeof source === "string";
  const body = named ? JSON.stringify({ dataset: source }) : new FormData();
  if (!named) body.append("archive", source, source.name);
  working(true);
  parts.work.replaceChildren(bar.box, h("button", { type: "button", class: "plain", onclick: () => stop.abort() }, t("cancel")));
  try {
    const begun = await ask("POST", `evaluate?mode=${parts.mode.value}`, {
      body,
      headers: { Accept: "text/html, application/json;q=0.9", Prefer: "respond-async", ...(named ? { "Content-Type": "application/json" } : {}) },
      signal: stop.signal,
      uploaded: named ? null : (share) => bar.set(share < 1 ? share : null, share < 1 ? t("sending", percent(share)) : t("reading")),
      waiting: (sentence) => bar.set(null, sentence),
    });
    await follow(begun.id);
  } catch (problem) {
    refuse(problem, () => start(source));
  }
  working(false);
}

function working(on) {
  busy = on;
  parts.form.disabled = on;
}

/** Asks how far an evaluation is until it has ended, and shows its report. */
async function follow(id) {
  working(true);
  const bar = progress(t("reading"));
  const path = `evaluations/${id}`;
  const cancel = h("button", { type: "button", class: "plain", onclick: () => { cancel.disabled = true; ask("DELETE", path).catch(refuse); } }, t("cancel"));
  parts.report.replaceChildren();
  parts.work.replaceChildren(bar.box, cancel);
  try {
    for (;;) {
      const record = await ask("GET", path);
      if (record.status !== "running") {
        showRecord(record);
        break;
      }
      bar.set(record.total ? record.done / record.total : null, t("evaluating", number(record.done), number(record.total)));
      await new Promise((resolve) => setTimeout(resolve, POLL_S * 1000));
    }
    await list();
  } catch (problem) {
    refuse(problem, () => follow(id));
  }
  working(false);
}

async function list() {
  const { evaluations } = await ask("GET", "evaluations");
  const look = async (one) => {
    if (one.status === "running") return busy ? null : follow(one.id);
    return ask("GET", `evaluations/${one.id}`).then(showRecord, (problem) => refuse(problem));
  };
  const rows = evaluations.map((one) => [time(one.started), t(one.status), number(one.total), t(MODES[one.mode]),
    h("button", { type: "button", class: "link", "aria-label": `${t("show")} ${time(one.started)}`, onclick: () => look(one) }, t("show"))]);
  parts.past.replaceChildren(rows.length ? table([t("started"), t("state"), t("count"), t("against"), ""], rows) : h("p", { class: "hint" }, t("noPast")));
  return evaluations;
}

function showRecord(record) {
  parts.work.replaceChildren();
  if (!record.report) {
    parts.report.replaceChildren(problemBox({ message: record.problem?.detail ?? t("cancelled"), code: record.problem?.code ?? record.status }));
    return;
  }
  const { report } = record;
  const json = h("button", { type: "button", class: "link", onclick: () => save(record, "json", "application/json", JSON.stringify(report, null, 2)) }, t("download"));
  parts.report.replaceChildren(h("h2", {}, t("report"), " ", h("small", {}, `${time(record.started)} · ${t("against")} ${t(MODES[record.mode])}`)), ...(record.html ? [h("p", {}, pageLink(record))] : []), figures(report),
    h("div", { class: "columns" },
      part(t("confused"), [t("shows"), t("found"), t("times")], report.most_confused.slice(0, MOST_ROWS).map((one) => [one.class, one.nearest_class, number(one.count)])),
      part(t("weakest"), [t("class"), t("share"), t("count")],
        [...report.per_class].sort((a, b) => a.top1 - b.top1 || b.photos - a.photos).slice(0, MOST_ROWS).map((one) => [one.class, percent(one.top1), number(one.photos)]))),
    h("p", {}, json));
  tell(`${t("top1")}: ${percent(report.top1, 1)}`);
}

/** Saves a text as a file of an evaluation. */
function save(record, ending, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  h("a", { download: `evaluation-${record.id}.${ending}`, href }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

/** A link to the report with pictures; a server that asks for keys is asked with the key, and the page is saved. */
function pageLink(record) {
  const path = `evaluations/${record.id}`;
  const withKey = async (event) => {
    if (!hasKey()) return;
    event.preventDefault();
    try {
      save(record, "html", "text/html", await ask("GET", path, { headers: { Accept: "text/html" }, text: true }));
    } catch (problem) {
      refuse(problem, () => withKey(event));
    }
  };
  return h("a", { class: "button main", href: path, target: "_blank", onclick: withKey }, t("reportPage"));
}

function figures(report) {
  const interval = (ends) => ends && t("interval", percent(ends[0], 1), percent(ends[1], 1));
  const sure = report.confidence;
  const told = [
    [t("top1"), percent(report.top1, 1), `${number(report.correct)} / ${number(report.total)} · ${interval(report.ci95)}`],
    report.class_top1 !== null && [t("rightClass"), percent(report.class_top1, 1), interval(report.class_ci95)],
    sure && [t("decided"), percent(sure.coverage), sure.precision !== null && t("rightly", percent(sure.precision, 1), percent(sure.wanted))],
    ...Object.entries(report.recall_at).filter(([k]) => k !== "1").slice(0, 1).map(([k, value]) => [t("recall", k), percent(value, 1)]),
    report.copies > 0 && [t("copies"), number(report.copies)],
    report.skipped.length > 0 && [t("skipped"), number(report.skipped.length)],
  ];
  return h("dl", { class: "figures" }, told.filter(Boolean).map(([name, value, more]) => h("div", {}, h("dt", {}, name), h("dd", {}, value), more && h("dd", { class: "hint" }, more))));
}

const part = (title, heads, rows) => rows.length ? h("div", {}, h("h3", {}, title), table(heads, rows)) : null;

function table(heads, rows) {
  return h("div", { class: "scroll", tabIndex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h(head ? "th" : "td", head ? { scope: "col" } : {}, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}
