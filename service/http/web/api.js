// Requests to the API: keys, errors, busy servers, and servers that are gone for a while.
import { h, openDialog, tell } from "./dom.js";
import { t } from "./text.js";

const KEY = "carsearch-key";
const TRIES = 6;

/** An error that people can read: one sentence and a stable code. */
export class Problem extends Error {
  constructor(code, message, status = 0) {
    super(message);
    Object.assign(this, { code, status });
  }
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const forgetKey = () => sessionStorage.removeItem(KEY);

const wait = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new Problem("cancelled", t("cancelled"))); });
});

/** The path of an address with its query; a list is a parameter that is given several times. */
export function address(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().filter((one) => one !== "" && one !== null && one !== undefined).map((one) => [name, one]));
  return pairs.length ? `${path}?${new URLSearchParams(pairs).toString().replaceAll("+", "%20")}` : path;
}

/** The JSON of an answer, or with `text` its text; asks for a key on 401, and again later when the server says so. Raises Problem. */
export async function ask(method, path, options = {}) {
  for (let tries = 1; ; tries++) {
    const answer = await send(method, path, options);
    if (answer.status < 400) return options.text ? answer.text : answer.body;
    const problem = new Problem(answer.body.code ?? `http_${answer.status}`, answer.body.detail ?? t("noSentence"), answer.status);
    if (answer.status === 401) {
      if (!(await askForKey(hasKey() ? problem.message : t("keyWanted")))) throw problem;
    } else if (answer.retryAfter !== null && tries < TRIES) {
      options.waiting?.(t("busy", answer.retryAfter));
      tell(t("busy", answer.retryAfter));
      await wait(answer.retryAfter, options.signal);
    } else throw problem;
  }
}

/** One request. It is no `fetch`, which does not tell how much of a body was sent. */
function send(method, path, { body, headers = {}, uploaded, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, path);
    const key = sessionStorage.getItem(KEY);
    if (key !== null) request.setRequestHeader("X-Api-Key", key);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    if (uploaded && body) request.upload.onprogress = (event) => uploaded(event.loaded / event.total);
    request.onload = () => {
      let told = {};
      try { told = JSON.parse(request.responseText); } catch { /* a proxy's own page */ }
      const seconds = Number.parseInt(request.getResponseHeader("Retry-After") ?? "", 10);
      resolve({ status: request.status, body: told, text: request.responseText, retryAfter: Number.isNaN(seconds) ? null : seconds });
    };
    request.onerror = () => { watchOutage(); reject(new Problem("unreachable", t("unreachable"))); };
    request.onabort = () => reject(new Problem("cancelled", t("cancelled")));
    if (signal?.aborted) {
      reject(new Problem("cancelled", t("cancelled")));
      return;
    }
    signal?.addEventListener("abort", () => request.abort());
    request.send(body ?? null);
  });
}

let asking = null;

/** Asks for a key in a dialog; true when one was given. Whoever asks meanwhile waits for the same answer. */
function askForKey(reason) {
  asking ??= new Promise((resolve) => {
    const input = h("input", { type: "password", autocomplete: "off", required: true });
    let given = false;
    const form = h("form", { onsubmit: (event) => {
      event.preventDefault();
      // Headers are of these characters; any other key is unknown to the server anyhow.
      sessionStorage.setItem(KEY, input.value.trim().replace(/[^\x21-\x7e]/g, "?"));
      given = true;
      dialog.close();
    } },
    h("h2", {}, t("key")), h("p", {}, reason),
    h("label", { class: "field" }, h("span", { class: "field-name" }, t("key")), input),
    h("small", {}, t("keyKept")),
    h("div", { class: "row" }, h("button", { class: "main" }, t("use")), h("button", { type: "button", class: "plain", onclick: () => dialog.close() }, t("cancel"))));
    const dialog = openDialog(t("key"), form);
    dialog.addEventListener("close", () => { asking = null; resolve(given); });
    input.focus();
  });
  return asking;
}

let watching = false;

/** Tells that the server is gone, asks until it is back, and tells that. */
async function watchOutage() {
  if (watching) return;
  watching = true;
  const box = document.getElementById("outage");
  box.className = "outage";
  box.hidden = false;
  box.textContent = t("gone");
  for (let back = false; !back;) {
    await wait(2);
    back = await fetch("readyz", { cache: "no-store" }).then((answer) => answer.ok, () => false);
  }
  box.classList.add("back");
  box.textContent = t("back");
  document.dispatchEvent(new Event("server-back"));
  watching = false;
  await wait(5);
  if (!watching) box.hidden = true;
}
