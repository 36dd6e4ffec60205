// The read/write path of a sentence, as it grows: a step to the right reads a unit, a step down writes one.

import { shade } from "./lagging.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const ROOM = 250; // for the cells, both ways
const [LEFT, TOP] = [100, 72]; // for words
const LONG = 13; // characters of a word on an axis

export function element(tag, attributes = {}, ...children) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const shortened = (word) => (word.length > LONG ? `${word.slice(0, LONG - 1)}…` : word);

/**
 * Draws into an svg element.
 * @param source units read so far @param waits how many more were sent @param words written: {text, delay, lag}
 * @param draft likewise, shown and not final @param forced which reads (from 1) were forced
 */
export function drawStaircase(svg, { source, waits, words, draft, forced }) {
  const [read, written] = [source.length, words.length + draft.length];
  const most = Math.max(read + waits, written, 1);
  // Cells get smaller in steps, so that a picture that grows does not jump with every word.
  const cells = Math.max(10, Math.ceil(most / 5) * 5);
  const cell = ROOM / cells;
  const labels = cell >= 11;
  const [left, top] = labels ? [LEFT, TOP] : [14, 14];
  const width = left + ROOM + 14;
  const x = (units) => (left + units * cell).toFixed(1);
  const y = (units) => (top + units * cell).toFixed(1);
  const lines = labels ? Array.from({ length: cells + 1 }, (_, i) => i) : [0, cells];
  const grid = lines.map((i) => `M${x(i)},${y(0)}V${y(cells)}M${x(0)},${y(i)}H${x(cells)}`).join("");
  let path = `M${x(0)},${y(0)}`;
  [...words, ...draft].forEach(({ delay }, t) => { path += `H${x(delay)}V${y(t + 1)}`; });
  path += `H${x(read)}`;
  const inset = cell > 6 ? 1.5 : 0.4;
  const square = (delay, t, attributes) => element("rect", {
    x: (left + (Math.max(delay, 1) - 1) * cell + inset).toFixed(1), y: (top + t * cell + inset).toFixed(1),
    width: (cell - 2 * inset).toFixed(1), height: (cell - 2 * inset).toFixed(1), rx: cell > 9 ? 2 : 0, ...attributes });
  svg.setAttribute("viewBox", `0 0 ${width} ${top + ROOM + 14}`);
  svg.replaceChildren(
    element("path", { class: "grid", d: grid }),
    element("path", { class: "diagonal", d: `M${x(0)},${y(0)}L${x(cells)},${y(cells)}` }),
    ...words.map(({ delay, lag }, t) => square(delay, t, { class: "cell", "data-shade": shade(lag) })),
    ...draft.map(({ delay }, t) => square(delay, words.length + t, { class: "cell draft" })),
    element("path", { class: "path", d: path }),
    ...forced.map((unit) => {
      const at = left + (unit - 0.5) * cell;
      const level = top + words.filter(({ delay }) => delay < unit).length * cell;
      return element("path", { class: "forced", d: `M${at - 4},${level - 5}l8,5l-8,5z` });
    }),
    element("circle", { class: "here", cx: x(read), cy: y(written), r: 4 }),
    ...(labels ? axes(source, words, draft, x, y, cell) : []));
}

function axes(source, words, draft, x, y, cell) {
  const above = source.map((word, i) => {
    const [left, top] = [Number(x(i + 0.5)) + 3, Number(y(0)) - 7];
    return element("text", { x: left, y: top, transform: `rotate(-52 ${left} ${top})` }, shortened(word));
  });
  const all = [...words.map(({ text }) => [text, ""]), ...draft.map(({ text }) => [text, "draft"])];
  const beside = all.map(([word, kind], t) => {
    const place = { x: Number(x(0)) - 7, y: (Number(y(t + 0.5)) + 4).toFixed(1), "text-anchor": "end" };
    return element("text", { ...place, class: kind }, shortened(word));
  });
  return [element("g", { class: cell < 14 ? "small" : "" }, ...above, ...beside)];
}
