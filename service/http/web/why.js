// Why two photos match: what each place adds to their similarity, as heat over both.
import { h } from "./dom.js";
import { percent, t } from "./text.js";

const SIZE = 128;
const COVER = 0.8; // how much of a photo the greatest heat covers
const INFERNO = [[0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9], [249, 203, 53], [252, 255, 164]];

/** A photo in a box of its own shape, in which maps lie over it. */
export function framed(image) {
  const box = h("div", { class: "seen" }, image);
  whenLoaded(image, () => box.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight));
  return box;
}

/** Lays both maps over their photos, with one scale; what counts against the match has no heat. `box` is the part that was searched for. */
export function layHeat({ query, hit, square }, queryFrame, hitFrame, box) {
  const most = Math.max(...query.flat(), ...hit.flat(), Number.MIN_VALUE);
  for (const [frame, map, part] of [[queryFrame, query, box], [hitFrame, hit, null]]) {
    const image = frame.querySelector("img");
    const canvas = drawn(map, most);
    if (image) whenLoaded(image, () => {
      place(canvas, image, part, square);
      frame.append(canvas);
    });
  }
}

/** How a map adds up to the similarity. */
export function sumOf({ hit, constant }, score) {
  const total = hit.flat().reduce((sum, value) => sum + value, 0);
  const apart = Math.abs(constant) < 0.0005 ? "" : t("whyConstant", constant.toFixed(3));
  return t("whySum", score.toFixed(3), total.toFixed(3), apart);
}

function whenLoaded(image, act) {
  if (image.naturalWidth) act();
  else image.addEventListener("load", act, { once: true });
}

/** A map as heat: interpolated first and coloured then, so that colours in between are those of values in between. */
function drawn(map, most) {
  const canvas = h("canvas", { width: SIZE, height: SIZE, role: "img", "aria-label": t("heatOver", ...peak(map)) });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIZE, SIZE);
  for (let at = 0; at < SIZE * SIZE; at++) {
    const strength = Math.min(Math.max(between(map, Math.floor(at / SIZE), at % SIZE) / most, 0), 1);
    pixels.data.set([...colour(strength), 255 * COVER * strength], 4 * at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** The value of a map at a pixel of the canvas, between the four places around it. */
function between(map, row, column) {
  const [above, below, down] = steps(row, map.length);
  const [left, right, across] = steps(column, map[0].length);
  const mix = (one, other, share) => one + share * (other - one);
  return mix(mix(map[above][left], map[above][right], across), mix(map[below][left], map[below][right], across), down);
}

function steps(pixel, places) {
  const at = Math.min(Math.max(((pixel + 0.5) * places) / SIZE - 0.5, 0), places - 1);
  return [Math.floor(at), Math.ceil(at), at % 1];
}

function colour(strength) {
  const at = strength * (INFERNO.length - 1);
  const [low, high] = [INFERNO[Math.floor(at)], INFERNO[Math.ceil(at)]];
  return low.map((value, channel) => value + (at % 1) * (high[channel] - value));
}

/** Where the most heat is, from the left and from the top. */
function peak(map) {
  const values = map.flat();
  const at = values.indexOf(Math.max(...values));
  const columns = map[0].length;
  return [percent(((at % columns) + 0.5) / columns), percent((Math.floor(at / columns) + 0.5) / map.length)];
}

/** Puts a map where the model looked: on the box, or its central square where the model cuts that. */
function place(canvas, image, box, square) {
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const part = box ? box.split(",").map(Number) : [0, 0, width, height];
  const side = square === null ? null : square * Math.min(part[2], part[3]);
  const [w, h] = side === null ? part.slice(2) : [side, side];
  const share = { left: (part[0] + (part[2] - w) / 2) / width, top: (part[1] + (part[3] - h) / 2) / height, width: w / width, height: h / height };
  for (const [name, value] of Object.entries(share)) canvas.style[name] = `${100 * value}%`;
  canvas.classList.toggle("part", w < width || h < height);
}
