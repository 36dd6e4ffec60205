"use strict";
// Sorts and filters the table of runs, lists sentences by page, and draws staircases when a sentence is opened.
// Text of runs goes into text nodes and attributes only, never into markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const { runs, sentences } = DATA;
const latencies = Object.entries(DATA.latencies); // key and label of those of sentences and documents
const latenciesOf = (run) => latencies.filter(([key]) => run[key]); // documents have others
const count = sentences.id.length;
const place = new Intl.Collator(undefined, { numeric: true }).compare;
const LANGUAGE = { source: 0, target: 1 };
const COLORS = 6; // --c0 … in page.css

for (const run of runs) {
  run.at = new Int32Array(count).fill(-1); // where each sentence is in the columns of the run
  run.sentences.forEach((sentence, index) => { run.at[sentence] = index; });
}

const state = {
  chosen: DATA.shown, // runs side by side; a and b are two of them, b is null if there is but one
  a: null, b: null, latency: latencies[0][0], sort: { key: "number", descending: false }, page: 0, size: 25, open: null,
};

// --- helpers

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(namespace, tag, attributes, children) {
  const element = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const html = (tag, attributes = {}, ...children) => make("http://www.w3.org/1999/xhtml", tag, attributes, children);
const svg = (tag, attributes = {}, ...children) => make(SVG, tag, attributes, children);

const number = (value, decimals) => (value === null ? "–" : value.toFixed(decimals).replace("-", "−"));
const signed = (value, decimals) => (value > 0 ? "+" : "") + number(value, decimals);

/** Text of a run: its script decides the direction. */
const words = (text, run, side, attributes = {}) =>
  html("span", { dir: "auto", lang: run.languages[LANGUAGE[side]] || undefined, ...attributes }, text);

/** Missing values come last, whatever the direction. */
function compare(a, b, descending) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" ? a - b : place(a, b);
  return descending ? -order : order;
}

const RELATIONS = {
  "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b,
};

/** Whether an item has every term: a relation such as bleu<20 if its name is known, else a part of the text. */
function matcher(query, names, textOf) {
  const tests = query.toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
    const [, name, relation, right] = /^([\w.]+)(<=|>=|<|>|=)(.+)$/.exec(term) ?? [];
    const value = Object.hasOwn(names, name) ? names[name] : null;
    if (value && right.trim() && !Number.isNaN(Number(right)))
      return (item) => value(item) !== null && RELATIONS[relation](value(item), Number(right));
    return (item) => textOf(item).includes(term);
  });
  return (item) => tests.every((test) => test(item));
}

// --- the table of runs

// A narrow window has room for the first scores only if what else tells runs apart comes behind them.
if (matchMedia("(max-width: 36rem)").matches)
  for (const row of $("runs").rows) row.append(...row.querySelectorAll(".key"));

const runRows = [...$("runs").tBodies[0].rows];
const runHeads = [...$("runs").tHead.rows[0].cells];

function cellValue(row, column) {
  const text = row.cells[column].dataset.value;
  if (text === "") return null;
  return runHeads[column].classList.contains("number") ? Number(text) : text;
}

function sortRuns(column) {
  const head = runHeads[column];
  const other = { ascending: "descending", descending: "ascending" };
  const order = other[head.ariaSort] ?? head.dataset.first;
  for (const one of runHeads) if (one.dataset.key) one.ariaSort = one === head ? order : "none";
  const sorted = [...runRows].sort(
    (a, b) => compare(cellValue(a, column), cellValue(b, column), order === "descending"));
  $("runs").tBodies[0].append(...sorted);
}

function filterRuns() {
  const names = {};
  runHeads.forEach((head, column) => {
    if (head.classList.contains("number")) names[head.dataset.key] = (row) => cellValue(row, column);
  });
  const text = (row) => `${runs[row.dataset.run].title} ${row.textContent} ${row.cells[1].title}`.toLowerCase();
  const matches = matcher($("run-filter").value, names, text);
  for (const row of runRows) row.hidden = !matches(row);
  const shown = runRows.filter((row) => !row.hidden).length;
  $("run-count").textContent = shown === runRows.length ? "" : `${shown} of ${runRows.length} runs`;
}

// --- which runs are shown

/** Keeps a and b among the chosen, and shows what was chosen everywhere. */
function choose(chosen, a = state.a, b = state.b) {
  state.chosen = chosen.length ? chosen : [state.a];
  state.a = state.chosen.includes(a) ? a : state.chosen.find((run) => run !== b) ?? state.chosen[0];
  state.b = b !== state.a && state.chosen.includes(b) ? b : state.chosen.find((run) => run !== state.a) ?? null;
  for (const row of runRows) {
    const run = Number(row.dataset.run);
    const shown = state.chosen.includes(run);
    row.classList.toggle("shown", shown);
    row.style.setProperty("--mark", colorOf(run));
    row.querySelector("input").checked = shown;
  }
  $("run-a").value = state.a;
  $("run-b").value = state.b ?? "";
  const known = latenciesOf(runs[state.a]);
  if (!known.some(([key]) => key === state.latency)) state.latency = known[0]?.[0] ?? state.latency;
  $("latency").replaceChildren(...known.map(([key, label]) => html("option", { value: key }, label)));
  $("latency").value = state.latency;
  drawPoints();
  drawHead();
  list();
}

function toggle(run) {
  choose(state.chosen.includes(run) ? state.chosen.filter((other) => other !== run) : [...state.chosen, run]);
}

/** Puts a run in the place of a or b; taking the other one's swaps them. */
function assign(letter, run) {
  const other = letter === "a" ? "b" : "a";
  if (run === null) choose([state.a], state.a, null);
  else if (run === state[other]) choose(state.chosen, state.b ?? run, state.b === null ? null : state.a);
  else {
    const rest = state.chosen.filter((one) => one !== state[letter] && one !== run);
    choose([...rest, run], letter === "a" ? run : state.a, letter === "b" ? run : state.b);
  }
}

function colorOf(run) {
  if (run === state.a) return "var(--c0)";
  if (run === state.b) return "var(--c1)";
  const others = state.chosen.filter((one) => one !== state.a && one !== state.b);
  return `var(--c${2 + (Math.max(0, others.indexOf(run)) % (COLORS - 2))})`;
}

const letterOf = (run) => (run === state.a ? "A" : run === state.b ? "B" : "");

/** Rings behind the curves around the runs that are shown, letters and what can be clicked before them; a click on any point shows its run, or hides it. */
function drawPoints() {
  document.querySelectorAll(".layers").forEach((layers, curve) => {
    const points = DATA.curves[curve];
    const axis = layers.querySelector(".hits").viewBox.baseVal.height - 60; // below it, a letter would cover the numbers of the axis
    layers.querySelector(".rings").replaceChildren(...points.filter(([run]) => state.chosen.includes(run))
      .map(([run, x, y]) => svg("g", { style: `--mark: ${colorOf(run)}` },
        svg("circle", { cx: x, cy: y, r: 8.5 }))));
    layers.querySelector(".hits").replaceChildren(...points.flatMap(([run, x, y]) => {
      const hit = svg("circle", { cx: x, cy: y, r: 10 }, svg("title", {}, runs[run].title));
      hit.addEventListener("click", () => toggle(run));
      const letter = letterOf(run);
      return letter ? [svg("text", { x, y: y > axis ? y - 12 : y + 20, style: `--mark: ${colorOf(run)}` }, letter), hit] : [hit];
    }));
  });
}

// --- the list of sentences

const score = (run, name, sentence) => (run === null || runs[run].at[sentence] < 0 ? null : runs[run][name]?.[runs[run].at[sentence]] ?? null);
const difference = (name) => (sentence) => {
  const [a, b] = [score(state.a, name, sentence), score(state.b, name, sentence)];
  return a === null || b === null ? null : b - a;
};
const segmentsOf = (sentence) => sentences.segments?.[sentence] ?? []; // of a document: [start, units, source, reference]
const unitsOf = (sentence) => sentences.units[sentence] || sentences.source[sentence].split(" ");

/** What sentences are filtered by; `lag` stands for the latency that is shown. */
function valuesOfSentences() {
  const values = { number: (sentence) => sentence, words: (sentence) => unitsOf(sentence).length };
  for (const [name, key] of [["bleu", "bleu"], ...latencies.map(([key]) => [key, key]), ["lag", state.latency]]) {
    values[name] = (sentence) => score(state.a, key, sentence);
    values[`b.${name}`] = (sentence) => score(state.b, key, sentence);
    values[`d.${name}`] = difference(key);
  }
  values.forced = (sentence) => score(state.a, "forced", sentence)?.length ?? null;
  values["b.forced"] = (sentence) => score(state.b, "forced", sentence)?.length ?? null;
  return values;
}

function columns() {
  const two = state.b !== null;
  const lag = DATA.latencies[state.latency];
  return [
    { key: "number", name: "#", show: (value) => String(value + 1) },
    { key: "words", name: DATA.units, show: String },
    { key: null, name: "Source, and what was written" },
    { key: "bleu", name: "BLEU", letter: "A", show: (value) => number(value, 1), down: true },
    two && { key: "b.bleu", name: "BLEU", letter: "B", show: (value) => number(value, 1), down: true },
    two && { key: "d.bleu", name: "B − A", of: "BLEU", show: (value) => signed(value, 1), down: true },
    { key: "lag", name: lag, letter: "A", show: (value) => number(value, 2) },
    two && { key: "b.lag", name: lag, letter: "B", show: (value) => number(value, 2) },
    two && { key: "d.lag", name: "B − A", of: lag, show: (value) => signed(value, 2) },
  ].filter(Boolean);
}

function drawHead() {
  if (!columns().some((column) => column.key === state.sort.key)) state.sort = { key: "number", descending: false };
  const cells = columns().map(({ key, name, letter, of, down }) => {
    if (key === null) return html("th", { scope: "col" }, name);
    const button = html("button", { type: "button", "aria-label": of && `${of}, ${name}` }, name);
    if (letter) button.append(" ", html("span", { class: `letter ${letter.toLowerCase()}` }, letter));
    button.addEventListener("click", () => {
      const again = state.sort.key === key;
      state.sort = { key, descending: again ? !state.sort.descending : Boolean(down) };
      state.page = 0;
      list();
    });
    return html("th", { scope: "col", class: "number", "data-key": key }, button);
  });
  $("sentences").tHead.replaceChildren(html("tr", {}, ...cells));
}

function markSorted() {
  for (const head of $("sentences").tHead.rows[0].cells)
    if (head.dataset.key)
      head.ariaSort = head.dataset.key !== state.sort.key ? "none" : state.sort.descending ? "descending" : "ascending";
}

const searched = new Map(); // text that the filter looks through, by runs and sentence
function textOf(sentence) {
  const key = `${state.a} ${state.b} ${sentence}`;
  if (!searched.has(key)) {
    const texts = [sentences.source[sentence], sentences.reference[sentence], sentences.id[sentence],
      score(state.a, "prediction", sentence), score(state.b, "prediction", sentence)];
    searched.set(key, texts.join("\n").toLowerCase());
  }
  return searched.get(key);
}

/** The sentences of run A that pass the filter, sorted; one page of them is made into rows. */
function list() {
  const values = valuesOfSentences();
  const all = runs[state.a].sentences;
  const value = values[state.sort.key];
  const found = all.filter(matcher($("sentence-filter").value, values, textOf))
    .map((sentence) => [value(sentence), sentence])
    .sort((one, other) => compare(one[0], other[0], state.sort.descending) || one[1] - other[1]);
  const pages = Math.max(1, Math.ceil(found.length / state.size));
  state.page = Math.min(state.page, pages - 1);
  const from = state.page * state.size;
  const page = found.slice(from, from + state.size);
  const [some, total] = [found.length, all.length].map((size) => size.toLocaleString("en"));
  const noun = runs[state.a].cut ? "document" : "sentence";
  $("sentence-count").textContent = `${some === total ? "" : `${some} of `}${total} ${noun}${all.length === 1 ? "" : "s"}`;
  $("page-number").textContent = found.length ? `${from + 1}–${from + page.length}, page ${state.page + 1} of ${pages}` : "nothing found";
  $("first").disabled = $("previous").disabled = state.page === 0;
  $("last").disabled = $("next").disabled = state.page === pages - 1;
  $("last").dataset.page = pages - 1;
  const shown = columns();
  $("sentences").tBodies[0].replaceChildren(...page.map(([, sentence]) => sentenceRow(sentence, shown, values)));
  if (state.open !== null) open(state.open);
  markSorted();
}

function sentenceRow(sentence, shown, values) {
  const row = html("tr", { class: "row", "data-sentence": sentence });
  for (const { key, show } of shown) {
    if (key !== null) {
      const value = values[key](sentence);
      row.append(html("td", { class: "number" }, value === null ? "–" : show(value)));
      continue;
    }
    const count = segmentsOf(sentence).length;
    const button = html("button", { type: "button", class: "sentence", "aria-expanded": "false" },
      count ? `${sentences.id[sentence]}, ${count} sentence${count === 1 ? "" : "s"}: ` : "",
      words(beginning(sentences.source[sentence], count), runs[state.a], "source"));
    const cell = html("td", {}, button);
    for (const run of [state.a, state.b]) {
      const written = score(run, "prediction", sentence);
      if (written !== null)
        cell.append(html("div", { class: "written" },
          html("span", { class: `letter ${letterOf(run).toLowerCase()}` }, letterOf(run)),
          words(beginning(written, count) || "(nothing)", runs[run], "target")));
    }
    row.append(cell);
  }
  return row;
}

/** A text of a document, cut where a row would be too long. */
const beginning = (text, count) => (count && text.length > 160 ? `${text.slice(0, 160)}…` : text);

/** Shows the staircases of a sentence below its row, if it is on this page, and closes those of any other. */
function open(sentence) {
  const body = $("sentences").tBodies[0];
  body.querySelector(".detail")?.remove();
  for (const row of body.rows)
    row.querySelector(".sentence").ariaExpanded = String(Number(row.dataset.sentence) === sentence);
  state.open = sentence;
  const row = [...body.rows].find((one) => Number(one.dataset.sentence) === sentence);
  row?.after(html("tr", { class: "detail" }, html("td", { colspan: columns().length }, ...details(sentence))));
}

function details(sentence) {
  if (segmentsOf(sentence).length) return documentDetails(sentence);
  const label = (text) => html("span", { class: "label" }, `${text} `);
  const reference = html("p", {}, label("Reference"), words(sentences.reference[sentence], runs[state.a], "target"),
    " ", label(`· ${sentences.id[sentence]}`));
  const shown = shownFor(sentence);
  const key = "A step to the right is a READ; ■ a WRITE, in the column of the last unit read; shaded, what it could see."
    + (shown.some((run) => score(run, "forced", sentence).length)
      ? " ▷ a forced READ: the end token came while source remained." : "");
  return [reference, html("div", { class: "stairs" }, ...shown.map((run) => staircaseFigure(sentence, run))),
    html("p", { class: "hint" }, key)];
}

const shownFor = (sentence) =>
  [...new Set([state.a, state.b, ...state.chosen])].filter((run) => run !== null && runs[run].at[sentence] >= 0);

function staircaseFigure(sentence, run) {
  const index = runs[run].at[sentence];
  const notes = [`BLEU ${number(runs[run].bleu[index], 1)}`,
    ...latenciesOf(runs[run]).map(([key, label]) => `${label} ${number(runs[run][key][index], 2)}`),
    runs[run].stop[index]].filter(Boolean).join(" · ");
  return html("figure", { style: `--mark: ${colorOf(run)}`, "data-run": run },
    html("figcaption", {}, html("b", {}, `${letterOf(run)} ${runs[run].title}`.trim()), ` ${notes}`),
    runs[run].cut ? documentPath(sentence, run) : staircase(sentence, run));
}

// --- documents

function documentDetails(sentence) {
  const shown = shownFor(sentence);
  const dots = shown.some((run) => runs[run].told[runs[run].at[sentence]])
    ? " A dot is the end of a sentence by the system's account, ○ one where the reference has none." : "";
  const key = "The line is what was read and written, the dotted one what was translated by then; the lag below is how far the first"
    + ` lies right of the second, in source units. Upright lines begin sentences of the reference.${dots}`;
  const runsOfTable = [state.a, state.b].filter((run) => shown.includes(run));
  const heads = ["#", "Source", "Reference"].map((name) => html("th", { scope: "col" }, name));
  for (const run of runsOfTable)
    heads.push(html("th", { scope: "col" }, html("span", { class: `letter ${letterOf(run).toLowerCase()}` }, letterOf(run))),
      html("th", { scope: "col", class: "number" }, "BLEU"), html("th", { scope: "col", class: "number" }, "LongLAAL"));
  const rows = segmentsOf(sentence).map(([, , source, reference], place) => html("tr", {},
    html("td", { class: "number" }, String(place + 1)),
    html("td", {}, words(source, runs[state.a], "source")),
    html("td", {}, words(reference, runs[state.a], "target")),
    ...runsOfTable.flatMap((run) => {
      const [written, bleu, lag] = runs[run].cut[runs[run].at[sentence]][place];
      return [html("td", {}, words(written || "(nothing)", runs[run], "target")),
        html("td", { class: "number" }, number(bleu, 1)), html("td", { class: "number" }, number(lag, 2))];
    })));
  return [html("div", { class: "stairs" }, ...shown.map((run) => staircaseFigure(sentence, run))),
    html("p", { class: "hint" }, key),
    html("div", { class: "scroll pieces", tabindex: 0, role: "region", "aria-label": "Sentences of the document" },
      html("table", { class: "plain" }, html("thead", {}, html("tr", {}, ...heads)), html("tbody", {}, ...rows)))];
}

/** 1, 2, 5, 10, 20 …: every how many of `count` are shown, so that they are at most `most`. */
function stepFor(count, most) {
  for (let power = 1; ; power *= 10)
    for (const base of [1, 2, 5]) if (count <= most * base * power) return base * power;
}

/** Source units between what was read and what was translated at each target unit. */
function lagsOf(delays, ends) {
  const lags = [];
  let [source, written] = [0, 0];
  for (const [end, last] of ends) {
    for (let t = written; t < last; t += 1) lags.push(delays[t] - source - ((t - written) * (end - source)) / (last - written));
    [source, written] = [end, last];
  }
  return lags;
}

/** The path of a document through source (to the right) and target (downwards), and the lag below it. */
function documentPath(sentence, run) {
  const index = runs[run].at[sentence];
  const [segments, delays, ends, told] = [segmentsOf(sentence), ...["delays", "ends", "told"].map((key) => runs[run][key][index])];
  const [WIDTH, HEIGHT, GAP, LOW] = [430, 280, 16, 80];
  const source = segments.reduce((sum, [, units]) => sum + units, 0);
  const all = [...ends, [source, delays.length]];
  const lags = lagsOf(delays, all);
  const [least, most] = [Math.min(0, ...bounds(lags)), Math.max(1, ...bounds(lags))];
  const x = (units) => (units * WIDTH) / Math.max(source, 1);
  const y = (units) => (units * HEIGHT) / Math.max(delays.length, 1);
  const z = (lag) => HEIGHT + GAP + ((most - lag) * LOW) / (most - least);
  const line = (points) => points.map(([left, top], i) => `${i ? "L" : "M"}${left.toFixed(1)},${top.toFixed(1)}`).join("");
  const steps = delays.map((delay, t) => `H${x(delay).toFixed(1)}V${y(t + 1).toFixed(1)}`).join("");
  const starts = segments.map(([start]) => start);
  const boundary = stepFor(segments.length, 60);
  const upright = starts.filter((_, i) => i % boundary === 0)
    .map((start) => `M${x(start).toFixed(1)},0V${HEIGHT}M${x(start).toFixed(1)},${HEIGHT + GAP}v${LOW}`).join("");
  const known = new Set([...starts, source]);
  const right = ends.filter(([end]) => known.has(end));
  const every = stepFor(right.length, 60);
  const dots = told ? [...right.filter((_, i) => (i + 1) % every === 0).map((end) => [end, "end"]),
    ...ends.filter(([end]) => !known.has(end)).map((end) => [end, "elsewhere"])] : [];
  const window = delays.length > 600 ? Math.floor(delays.length / 40) : 1;
  let sum = 0;
  const mean = [];
  lags.forEach((lag, t) => {
    sum += lag - (t >= window ? lags[t - window] : 0);
    if (t >= window - 1) mean.push([x(delays[t - ((window - 1) >> 1)]), z(sum / window)]);
  });
  const numbered = stepFor(segments.length, segments.length > 99 ? 12 : 20);
  let before = -Infinity;
  const numbers = segments.flatMap(([start, units], i) => {
    const at = x(start + units / 2);
    if ((i + 1) % numbered || at - before < 4 + 7 * String(i + 1).length) return [];
    before = at;
    return [svg("text", { class: "tick", x: at, y: -5, "text-anchor": "middle" }, String(i + 1))];
  });
  const ticks = (until, from = 0, many = 5) => {
    const step = stepFor(Math.max(until - from, 1), many);
    return Array.from({ length: Math.floor(until / step) - Math.ceil(from / step) + 1 }, (_, i) => (Math.ceil(from / step) + i) * step);
  };
  const axis = (text, left, top, anchor, attributes = {}) => svg("text", { class: "tick", x: left, y: top, "text-anchor": anchor, ...attributes }, text);
  const bottom = HEIGHT + GAP + LOW;
  const [left, top] = [64, 34];
  const box = [-left, -top, left + WIDTH + 14, top + bottom + 38];
  const average = lags.length ? lags.reduce((total, lag) => total + lag, 0) / lags.length : 0;
  const description = `${runs[run].title}: ${segments.length} sentences, ${delays.length} units, lag ${average.toFixed(2)} on average`;
  return svg("svg", { class: "document", viewBox: box.join(" "), width: box[2], height: box[3], role: "img", "aria-label": description },
    svg("path", { class: "grid", d: `${upright}M0,0V${HEIGHT}H${WIDTH}M0,${HEIGHT + GAP}V${bottom}H${WIDTH}M0,${z(0).toFixed(1)}H${WIDTH}` }),
    svg("path", { class: "translated", d: line([[0, 0], ...all.map(([end, last]) => [x(end), y(last)])]) }),
    svg("path", { class: "path", d: `M0,0${steps}H${x(runs[run].read[index]).toFixed(1)}` }),
    ...dots.map(([[end, last], kind]) => svg("circle", { class: kind, cx: x(end), cy: y(last), r: 3.4 },
      svg("title", {}, `${end} source units, ${last} target units`))),
    svg("path", { class: window > 1 ? "lag faint" : "lag", d: line(lags.map((lag, t) => [x(delays[t]), z(lag)])) }),
    ...(window > 1 ? [svg("path", { class: "lag mean", d: line(mean) })] : []),
    ...numbers, axis("sentence", WIDTH / 2, -20, "middle"),
    ...ticks(delays.length).map((units) => axis(String(units), -6, y(units) + 4, "end")),
    ...ticks(most, least, 4).map((lag) => axis(String(lag).replace("-", "−"), -6, z(lag) + 4, "end")),
    ...ticks(source, 0, 8).map((units) => axis(String(units), x(units), bottom + 15, "middle")),
    axis("source units read", WIDTH / 2, bottom + 32, "middle"),
    axis("target units", -50, HEIGHT / 2, "middle", { transform: `rotate(-90 -50 ${HEIGHT / 2})` }),
    axis("lag", -50, HEIGHT + GAP + LOW / 2, "middle", { transform: `rotate(-90 -50 ${HEIGHT + GAP + LOW / 2})` }));
}

/** The least and the largest value, of as many as there are; nothing of none. */
function bounds(values) {
  if (!values.length) return [];
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

// --- the staircase

const measure = document.createElement("canvas").getContext("2d");
measure.font = `13px ${getComputedStyle(document.body).fontFamily}`;
const widthOf = (word) => measure.measureText(word).width;
const isRightToLeft = (word) => /^[^\p{L}]*[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}]/u.test(word);

/** A word whose left or right end is at x. In right-to-left text, the start is at the right. */
function word(text, x, y, end, attributes = {}) {
  const turned = isRightToLeft(text);
  const anchor = end === "middle" ? end : (end === "left") === turned ? "end" : "start";
  return svg("text", { x, y, "text-anchor": anchor, direction: turned ? "rtl" : undefined, ...attributes }, text);
}

/** The path of a sentence through source (to the right) and target (downwards). */
function staircase(sentence, run) {
  const index = runs[run].at[sentence];
  const source = unitsOf(sentence);
  const written = runs[run].prediction[index];
  const target = runs[run].units[index] || written.split(" ");
  const [delays, forced, read] = [runs[run].delays[index], runs[run].forced[index], runs[run].read[index]];
  const [CELL, ROW, TURN] = [24, 21, 40];
  const [width, height] = [CELL * Math.max(source.length, 1), ROW * Math.max(target.length, 1)];
  const upright = source.every((unit) => widthOf(unit) < CELL - 2);
  const lengths = source.map((unit) => widthOf(unit));
  const radians = (TURN * Math.PI) / 180;
  const left = 10 + Math.max(0, ...target.map(widthOf));
  const top = upright ? 24 : 18 + Math.max(0, ...lengths) * Math.sin(radians);
  const over = lengths.map((length, i) => (i + 0.5) * CELL + length * Math.cos(radians) + 8 - width);
  const right = upright ? 8 : Math.max(8, ...over);
  const box = [-left, -top, left + width + right, top + height + 8];

  const grid = [
    ...Array.from({ length: width / CELL + 1 }, (_, i) => `M${i * CELL},0V${height}`),
    ...Array.from({ length: height / ROW + 1 }, (_, i) => `M0,${i * ROW}H${width}`),
  ].join("");
  const seen = delays.map((delay, t) => `M0,${t * ROW}H${delay * CELL}v${ROW}H0Z`).join("");
  const steps = delays.map((delay, t) => `H${delay * CELL}V${(t + 1) * ROW}`).join("");
  const description = `${runs[run].title}: ${target.map((unit, t) => `${unit} after ${delays[t]}`).join(", ")}`;
  return svg("svg", { viewBox: box.join(" "), width: box[2], height: box[3], role: "img", "aria-label": description },
    svg("path", { class: "grid", d: grid }),
    svg("path", { class: "seen", d: seen }),
    svg("line", { class: "diagonal", x2: width, y2: target.length * ROW }),
    svg("path", { class: "path", d: `M0,0${steps}H${read * CELL}` }),
    ...delays.map((delay, t) => svg("rect", {
      class: "write", x: Math.max(delay - 0.5, 0) * CELL - 5, y: (t + 0.5) * ROW - 5, width: 10, height: 10,
    }, svg("title", {}, `${target[t]}: after ${delay} of ${source.length}`))),
    ...forced.map(([before, row]) => svg("path", {
      class: "forced", d: `M${(before + 0.5) * CELL - 4.5},${row * ROW - 5.5}l10,5.5l-10,5.5Z`,
    }, svg("title", {}, `forced READ: ${source[before] ?? ""}`))),
    ...source.map((unit, i) => (upright ? word(unit, (i + 0.5) * CELL, -8, "middle")
      : word(unit, (i + 0.5) * CELL, -8, "left", { transform: `rotate(-${TURN} ${(i + 0.5) * CELL} -8)` }))),
    ...(written || target.length > 1 ? target : []).map((unit, t) => word(unit, -8, (t + 0.5) * ROW + 4.5, "right")));
}

// --- what people do

runHeads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => sortRuns(column)));
$("run-filter").addEventListener("input", filterRuns);
for (const row of runRows) row.querySelector("input").addEventListener("change", () => toggle(Number(row.dataset.run)));
for (const letter of ["a", "b"]) {
  const select = $(`run-${letter}`);
  if (letter === "b") select.append(html("option", { value: "" }, "none"));
  runs.forEach((run, index) => select.append(html("option", { value: index }, run.title)));
  select.addEventListener("change", () => assign(letter, select.value === "" ? null : Number(select.value)));
}
$("latency").addEventListener("change", () => { state.latency = $("latency").value; drawHead(); list(); });
$("sentence-filter").addEventListener("input", () => { state.page = 0; list(); });
$("page-size").addEventListener("change", () => { state.size = Number($("page-size").value); state.page = 0; list(); });
const turn = (id, page) => $(id).addEventListener("click", () => { state.page = page(); list(); });
turn("first", () => 0);
turn("previous", () => state.page - 1);
turn("next", () => state.page + 1);
turn("last", () => Number($("last").dataset.page));
$("sentences").tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr.row");
  if (!row || (event.detail && getSelection().toString())) return; // text is being selected by the mouse
  const sentence = Number(row.dataset.sentence);
  open(sentence === state.open ? null : sentence);
});

choose(DATA.shown, DATA.shown[0], DATA.shown[1] ?? null);
