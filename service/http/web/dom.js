// Elements from plain values. Text is only ever set as text: names of classes and photos are whatever somebody wrote.
import { t } from "./text.js";

/** An element: `properties` are set as properties, `on...` as listeners, `aria-...`, `data-...` and `role` as attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (/^(aria-|data-|role$|list$|scope$|capture$)/.test(name)) element.setAttribute(name, value);
    else if (name === "class") element.className = value;
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Says something to those who listen to the page. */
export function tell(sentence) {
  document.getElementById("live").textContent = sentence;
}

/** A label above a control. */
export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", { class: "field-name" }, label), control, hint ? h("small", {}, hint) : null);
}

/** What went wrong, in one sentence, with its code and a way on. */
export function problemBox(problem, again) {
  return h("div", { class: "problem", role: "alert" },
    h("p", {}, problem.message), h("code", {}, problem.code),
    again ? h("button", { type: "button", class: "plain", onclick: again }, t("again")) : null);
}

/** A bar that fills; `share` from 0 to 1, or null where nobody knows. */
export function progress(label) {
  const bar = h("progress", { max: 1, "aria-label": label });
  const words = h("p", {}, label);
  const box = h("div", { class: "progress" }, words, bar);
  return {
    box,
    set(share, sentence) {
      if (share === null) bar.removeAttribute("value");
      else bar.value = share;
      words.textContent = sentence;
    },
  };
}

const replaced = new Map();
const pathOf = (link) => link.split("?")[0];

/** Has the picture of a photo that was put loaded anew: a browser asks for an address that it shows only once. */
export function loadAnew(link) {
  replaced.set(pathOf(link), (replaced.get(pathOf(link)) ?? 0) + 1);
}

/** A photo of the gallery in a width of about so many pixels, loaded when it comes near; tried again when it fails. */
export function picture(link, width, alt) {
  // The server rounds widths up to one of a few: a little less is the same picture, at another address.
  const wanted = width - ((replaced.get(pathOf(link)) ?? 0) % 100);
  const address = `${link}${link.includes("?") ? "&" : "?"}width=${wanted}`;
  const image = h("img", { loading: "lazy", decoding: "async", alt, src: address });
  let tries = 0;
  image.addEventListener("error", () => {
    if (tries < 4) setTimeout(() => { image.src = address; }, 1000 * 2 ** tries++); // a server that is full answers 429
    else image.classList.add("missing");
  });
  return image;
}

/** Removes a part of a list; what follows it gets the focus that it had. */
export function removeItem(item) {
  const next = item.contains(document.activeElement) ? (item.nextElementSibling ?? item.previousElementSibling) : null;
  item.remove();
  next?.querySelector("button")?.focus();
}

/** A place to drop a file, or to choose one; the whole box is the label of its input. `taken` gets the first file, and all. */
export function dropzone({ accept, title, hint, taken, multiple = false }) {
  const input = h("input", { type: "file", accept, multiple, class: "unseen", onchange: () => {
    if (input.files.length) taken(input.files[0], [...input.files]);
    input.value = ""; // so that the same file may be chosen again
  } });
  const box = h("div", { class: "drop" },
    h("label", { class: "drop-label" }, input, h("i"), h("strong", {}, title), h("span", {}, hint)));
  acceptDrops(box, taken);
  return { box, input };
}

/** Lets files be dropped on an element. */
export function acceptDrops(element, taken) {
  let depth = 0;
  const mark = (change) => (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    depth = Math.max(0, depth + change);
    element.classList.toggle("over", depth > 0);
  };
  element.addEventListener("dragenter", mark(1));
  element.addEventListener("dragleave", mark(-1));
  element.addEventListener("dragover", mark(0));
  element.addEventListener("drop", (event) => {
    const files = [...event.dataTransfer.files];
    depth = 0;
    element.classList.remove("over");
    event.preventDefault();
    if (files.length) taken(files[0], files);
  });
}

/** A line to copy, with the button that copies it. */
export function copyLine(line) {
  const text = h("code", {}, line);
  const button = h("button", { type: "button", class: "plain", onclick: async () => {
    try {
      await navigator.clipboard.writeText(line);
    } catch { // not over HTTP, but on this machine
      getSelection().selectAllChildren(text);
      document.execCommand("copy");
    }
    button.textContent = t("copied");
    tell(t("copied"));
  } }, t("copy"));
  return h("div", { class: "copy" }, h("pre", { tabIndex: 0, role: "region", "aria-label": t("command") }, text), button);
}

/** A dialog over the page, which is removed when it is closed. */
export function openDialog(label, ...content) {
  const dialog = h("dialog", { "aria-label": label, tabIndex: -1, closedBy: "any", onclose: () => dialog.remove() }, ...content);
  document.body.append(dialog);
  dialog.showModal();
  dialog.focus(); // its start, and not the first button, which may be far below
  return dialog;
}
