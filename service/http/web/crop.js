// A box on a photo, by pointer or keys: the part that is searched for, in pixels of the upright photo.
import { h, tell } from "./dom.js";
import { t } from "./text.js";

const SMALLEST = 16;
const CORNER = 18;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));

/** Lays a box over an image that is shown; `value()` is "x,y,width,height", or null while there is no box. */
export function cropper(image) {
  let part = null;
  let drag = null;
  const frame = h("div", { class: "crop", tabIndex: 0, role: "group", "aria-label": t("cropBox"), onkeydown: pressed }, h("i"), h("i"), h("i"), h("i"));
  const layer = h("div", { class: "crop-layer", hidden: true, onpointerdown: begin, onpointermove: move, onpointerup: end, onpointercancel: end }, frame);
  const scale = () => image.naturalWidth / image.clientWidth;
  const text = () => [part.x, part.y, part.width, part.height].map(Math.round).join(",");

  function draw() {
    const share = (value, whole) => `${(100 * value) / whole}%`;
    frame.style.left = share(part.x, image.naturalWidth);
    frame.style.top = share(part.y, image.naturalHeight);
    frame.style.width = share(part.width, image.naturalWidth);
    frame.style.height = share(part.height, image.naturalHeight);
  }

  function set(x, y, width, height) {
    width = clamp(width, SMALLEST, image.naturalWidth);
    height = clamp(height, SMALLEST, image.naturalHeight);
    part = { x: clamp(x, 0, image.naturalWidth - width), y: clamp(y, 0, image.naturalHeight - height), width, height };
    draw();
  }

  function place(event) {
    const bounds = image.getBoundingClientRect();
    return {
      x: clamp((event.clientX - bounds.left) * scale(), 0, image.naturalWidth),
      y: clamp((event.clientY - bounds.top) * scale(), 0, image.naturalHeight),
    };
  }

  function begin(event) {
    const { x, y } = place(event);
    const near = CORNER * scale();
    const right = part.x + part.width;
    const bottom = part.y + part.height;
    const corner = [[part.x, part.y], [right, part.y], [part.x, bottom], [right, bottom]]
      .find(([left, top]) => Math.abs(x - left) < near && Math.abs(y - top) < near);
    const inside = x > part.x && x < right && y > part.y && y < bottom;
    if (corner) drag = { anchor: { x: corner[0] === part.x ? right : part.x, y: corner[1] === part.y ? bottom : part.y } };
    else if (inside) drag = { from: { x: x - part.x, y: y - part.y } };
    else drag = { anchor: { x, y } };
    layer.setPointerCapture(event.pointerId);
    event.preventDefault();
    frame.focus({ preventScroll: true });
  }

  function move(event) {
    if (!drag) return;
    const { x, y } = place(event);
    if (drag.from) set(x - drag.from.x, y - drag.from.y, part.width, part.height);
    else set(Math.min(x, drag.anchor.x), Math.min(y, drag.anchor.y), Math.abs(x - drag.anchor.x), Math.abs(y - drag.anchor.y));
  }

  function end() {
    if (!drag) return;
    drag = null;
    tell(`${t("cropBox")}: ${text()}`);
  }

  function pressed(event) {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const [across, down] = arrow.map((sign) => sign * Math.max(1, Math.round(image.naturalWidth / 50)));
    if (event.shiftKey) set(part.x, part.y, part.width + across, part.height + down);
    else set(part.x + across, part.y + down, part.width, part.height);
    tell(`${t("cropBox")}: ${text()}`);
  }

  return {
    layer,
    value: () => (part ? text() : null),
    start() {
      if (!part) set(image.naturalWidth / 10, image.naturalHeight / 10, image.naturalWidth * 0.8, image.naturalHeight * 0.8);
      layer.hidden = false;
      frame.focus({ preventScroll: true });
    },
    clear() {
      part = null;
      layer.hidden = true;
    },
  };
}
