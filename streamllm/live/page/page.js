// The page: what is typed goes to the service, and what the service tells is shown.

import { Connection } from "./connection.js";
import { Controls, labelOf } from "./controls.js";
import { FAULTS, PASSING } from "./faults.js";
import { Figures } from "./figures.js";
import { Player } from "./player.js";
import { Recording } from "./recording.js";
import { Source } from "./source.js";
import { Row } from "./transcript.js";
import { endsSentence, join, whole } from "./units.js";

const ROWS = 300; // sentences that stay on the page
const $ = (id) => document.getElementById(id);

let session = null; // the last session.created
let row = null; // the last one
let changed = false; // something is to be drawn
let nextSend = null;
let flushing = null; // the timer of it
let numbered = 0; // sentences or documents that have a trace
const traces = []; // [line of predictions.jsonl, line of timings.jsonl]
const source = new Source();
const figures = new Figures();
const controls = new Controls((policy) => {
  if (!connection.isOpen) return;
  source.policy = null; // what the service has from now on is not that of the sentences that wait here
  connection.say({ type: "session.update", policy, event_id: "form" });
});
const connection = new Connection(
  new URL("../v1/stream", location.href.replace(/^http/, "ws")).href.replace(/[?#].*/, ""),
  () => sessionStorage.getItem("token") ?? "", heard, showState);
const player = new Player({ say: feed, end: endPiece, separate: () => session.documents });

// --- what is typed

/** Takes text that ends with a whole unit. A line's end ends the sentence, and so does a full stop where that is wanted. */
function feed(text) {
  if (session.documents) {
    add(text);
  } else {
    const lines = text.split("\n");
    lines.forEach((line, i) => {
      for (const sentence of sentences(line)) {
        add(sentence.text);
        if (sentence.ends) endPiece();
      }
      if (i < lines.length - 1) endPiece();
    });
  }
  flush();
}

function sentences(line) {
  if (!$("stops").checked) return [{ text: line, ends: false }];
  const parts = session.source_unit === "word" ? line.split(/(?<=\s)(?=\S)/u) : line.split(/(?<=[。！？｡][」』”’）]?)(?![」』”’）])/u);
  const ends = (part) => (session.source_unit === "word" ? endsSentence(part) : /[。！？｡][」』”’）]?$/u.test(part));
  const found = [{ text: "", ends: false }];
  for (const part of parts) {
    const last = found[found.length - 1];
    last.text += part;
    if (ends(part)) {
      last.ends = true;
      found.push({ text: "", ends: false });
    }
  }
  return found;
}

function add(text) {
  if (text.trim() === "" && !source.open) return;
  const piece = source.open ?? begin();
  piece.add(text, session.source_unit);
  changed = true;
  draw();
}

function begin() {
  const piece = source.begin(controls.policy);
  piece.recording = new Recording(session.target_unit);
  newRow(piece, 0);
  controls.say("");
  return piece;
}

/** No more comes of the sentence (or document) under way, if there is one. */
function endPiece() {
  const piece = source.open;
  if (piece) piece.ended = true;
  flush();
}

function flush() {
  clearTimeout(flushing);
  if (!connection.isOpen) {
    if (connection.state.name === "asleep" && source.pieces.length) connection.open();
    return;
  }
  nextSend = source.send((message) => connection.say(message), performance.now());
  if (nextSend < Infinity) flushing = setTimeout(flush, Math.max(10, nextSend - performance.now()));
}

/** What is whole in the box goes out; the rest stays. */
function takeTyped(all = false) {
  const box = $("box");
  if (session === null) return;
  const [done, rest] = all ? [box.value, ""] : whole(box.value, session.source_unit);
  if (done === "") return;
  const caret = Math.max(0, box.selectionStart - done.length);
  box.value = rest;
  box.setSelectionRange(caret, caret);
  feed(all ? `${done} ` : done);
}

$("box").addEventListener("input", (event) => event.isComposing || takeTyped());
$("box").addEventListener("compositionend", () => takeTyped());
$("box").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || session === null) return;
  event.preventDefault();
  takeTyped(true);
  if (!session.documents || event.ctrlKey || event.metaKey) endPiece();
});
$("end").addEventListener("click", () => {
  if (session === null) return;
  takeTyped(true);
  endPiece();
  $("box").focus();
});

// --- what the service tells

function heard(message) {
  const now = performance.now();
  if (message.type === "session.created") return created(message);
  if (message.type === "session.updated") {
    if (message.event_id === "form") controls.choose(message.policy);
    return undefined;
  }
  if (message.type === "error") return failed(message);
  if (message.type === "end" && message.reason === "shutdown") return undefined; // it goes on with the next connection
  const piece = source.of(message);
  if (!piece) return undefined;
  piece.recording.add(message);
  const { recording } = piece;
  const here = piece.row;
  if (message.type === "read") {
    piece.read = message.read;
    if (message.forced) here.forced.push(message.read - here.start);
    flush();
  } else if (message.type === "write") {
    const index = recording.delays.length - 1;
    const [delay, place] = [recording.delays[index], index - here.firstWord];
    const lag = delay - here.start - place;
    if (message.extends) {
      here.extend(message.unit, delay, lag);
    } else {
      here.draft = here.draft.slice(1);
      here.write(message.unit, delay, lag);
    }
    if (!session.revises) figures.answered(waited(piece, message.delay, now));
  } else if (message.type === "revised") {
    here.revise(message.text);
    figures.answered(waited(piece, message.delay, now));
  } else if (message.type === "sentence") {
    if (message.translated > here.start) {
      finish(here, message.translated);
      piece.cut = [recording.messages.length, message.translated];
      newRow(piece, message.translated);
    }
  } else if (message.type === "end") {
    ended(piece, message);
  }
  changed = true;
  draw();
  return undefined;
}

/** Seconds since that was sent which something written waited for: a unit, or the end of the source. */
function waited(piece, delay, now) {
  const unit = piece.sentAt[delay - 1];
  const end = piece.endSentAt !== null && delay === piece.units.length ? piece.endSentAt : unit;
  return (now - Math.max(unit, end)) / 1000;
}

function created(message) {
  const first = session === null;
  session = message;
  document.body.dataset.documents = String(session.documents);
  source.unit = session.source_unit;
  controls.documents = session.documents;
  controls.offer(session.policies, session.policy);
  if (session.documents) source.pieces.filter((piece) => piece.cut).forEach(divide);
  source.restart(session.policy);
  for (const piece of source.pieces) {
    piece.recording = new Recording(session.target_unit);
    piece.row.restart();
    piece.row.forced = [];
  }
  if (first) words();
  changed = true;
  draw();
  takeTyped();
  flush();
}

/** Of a document whose connection broke, what is translated stays; the rest is another document. */
function divide(piece) {
  const [events, units] = piece.cut;
  const { row: last, recording } = piece;
  keep(piece, recording.upTo(events));
  const rest = source.divide(piece, units);
  last.element.remove();
  rows.splice(rows.indexOf(last), 1);
  row = rows[rows.length - 1] ?? null;
  if (!rest) return;
  rest.recording = new Recording(session.target_unit);
  newRow(rest, 0);
}

function ended(piece, message) {
  if (piece.endSentAt === null) { // it has ended by itself: what comes now is another one's
    piece.ended = true;
    connection.say({ type: "input_text_buffer.commit", final: true });
  }
  source.over(piece);
  const here = piece.row;
  if (session.documents && here.start > 0 && !here.words.length) { // nothing is left of the document
    here.element.remove();
    rows.splice(rows.indexOf(here), 1);
    row = rows[rows.length - 1] ?? null;
  } else {
    finish(here, Math.max(piece.units.length, here.start));
  }
  if (message.reason !== "error") keep(piece, piece.recording);
  else here.element.classList.add("failed");
  flush();
}

function finish(here, end) {
  here.finish(end);
  figures.finished(here);
  if (here.text) $("announced").textContent = here.text;
}

function keep(piece, recording) {
  if (!recording.read) return;
  numbered += 1;
  const read = piece.units.slice(0, recording.read);
  traces.push(recording.lines(`live-${numbered}`, join(read, session.source_unit)));
}

function failed({ code, message }) {
  if (code === "wrong_choice") {
    source.policy = null;
    controls.refuse(`${PASSING[code]} (${message})`);
  } else {
    $("announced").textContent = PASSING[code] ?? message;
  }
}

// --- rows

const rows = [];

function newRow(piece, start) {
  const label = labelOf(piece.policy);
  const before = rows[rows.length - 1];
  row = new Row(piece, start, before?.label === label ? "" : label, { source: session.source_unit, target: session.target_unit });
  Object.assign(row, { label, forced: [], firstWord: piece.recording.delays.length });
  piece.row = row;
  rows.push(row);
  $("rows").append(row.element);
  if (rows.length > ROWS) rows.shift().element.remove();
}

let waitsForFrame = false;
let calm = null;

/** Brings what has changed to the page, with the next frame. */
function draw() {
  if (waitsForFrame) return;
  waitsForFrame = true;
  requestAnimationFrame(() => {
    waitsForFrame = false;
    const log = $("transcript");
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    if (changed) {
      $("nothing").hidden = rows.length > 0;
      for (const each of rows.filter((one) => one.end === null || !one.whole)) {
        each.draw();
        each.whole = each.end !== null && each.stable.next === Infinity;
      }
      if (row) figures.show(shownRow());
      showTraces();
    }
    changed = false;
    showCalm();
    if (follows) log.scrollTop = log.scrollHeight;
  });
}

/** The row that figures tell of: the one that is being translated. */
const shownRow = () => rows.find((one) => one.end === null && one.piece.read > one.start) ?? [...rows].reverse().find((one) => one.end !== null) ?? row;

/** The reading mode, and again when more of it is due. */
function showCalm() {
  clearTimeout(calm);
  let next = Infinity;
  for (const each of rows) if (each.stable.next < Infinity) next = Math.min(next, each.drawCalm());
  if (next < Infinity) calm = setTimeout(draw, Math.max(10, next - performance.now()));
}

// --- the state of the connection

let countdown = null;

function showState(state) {
  clearInterval(countdown);
  const texts = { connecting: "Connecting …", open: `Connected: ${state.stream}`, waiting: "Not connected", asleep: "Asleep",
    stopped: "Not connected" };
  $("state").dataset.state = state.name;
  $("state-text").textContent = texts[state.name];
  const { fault } = state;
  if (fault?.code === "too_fast" && state.name !== "connecting") source.slowDown();
  const told = fault ? FAULTS[fault.code] ?? { title: `Closed: ${fault.code}`, todo: "" } : null;
  const wrong = fault?.code === "token" && state.name === "stopped" && sessionStorage.getItem("token");
  if (wrong) sessionStorage.removeItem("token");
  $("fault").hidden = !told;
  if (told) {
    setText("fault-title", wrong ? "This is not the service's token" : told.title);
    setText("fault-todo", told.todo);
    setText("fault-message", fault.message && fault.code !== "token" ? `(${fault.message})` : "");
  }
  $("again").hidden = !(state.name === "waiting" || (state.name === "stopped" && fault?.code !== "token"));
  $("token-form").hidden = !(fault?.code === "token" && state.name === "stopped");
  if (!$("token-form").hidden) $("token").focus();
  const seconds = () => Math.max(1, Math.ceil((state.at - Date.now()) / 1000));
  const wait = () => { $("fault-wait").textContent = state.name === "waiting" ? `Next attempt in ${seconds()} s` : ""; };
  wait();
  if (state.name === "waiting") countdown = setInterval(wait, 500);
  if (state.name === "asleep" && source.pieces.some((piece) => piece.ended)) flush(); // its end is still owed
  changed = true;
  draw();
}

/** Only what has changed is read out. */
function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

$("again").addEventListener("click", () => connection.open());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("token").value = "";
  connection.open();
  $("box").focus();
});

// --- traces

const linesOf = (which) => traces.map((lines) => `${JSON.stringify(lines[which])}\n`).join("");

function showTraces() {
  for (const id of ["download", "times", "copy"]) $(id).disabled = !traces.length;
  const things = session?.documents ? "document" : "sentence";
  setText("traced", traces.length ? `${traces.length} ${things}${traces.length > 1 ? "s" : ""}` : `once a ${things} has ended`);
}

function save(which, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([linesOf(which)], { type: "application/x-ndjson" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

$("download").addEventListener("click", () => save(0, "predictions.jsonl"));
$("times").addEventListener("click", () => save(1, "timings.jsonl"));
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(linesOf(0));
    setText("traced", "copied");
  } catch { // a page without TLS, or a browser that asks first
    setText("traced", "the browser does not let this page copy: download it");
  }
});
$("clear").addEventListener("click", () => {
  traces.length = 0;
  for (const done of rows.filter((one) => one.end !== null)) done.element.remove();
  rows.splice(0, rows.length, ...rows.filter((one) => one.end === null));
  row = rows[rows.length - 1] ?? null;
  figures.clear();
  changed = true;
  draw();
});

// --- what is chosen on this page alone

/** Words that say what a source is here. */
function words() {
  const documents = session.documents;
  $("end").textContent = documents ? "End document" : "End sentence";
  $("stops-label").hidden = documents;
  for (const place of document.querySelectorAll("[data-units]")) place.textContent = `${session[place.dataset.units]}s`;
  $("box-hint").textContent = session.source_unit === "word"
    ? `A word goes out with the space after it. ${documents ? "Ctrl+Enter ends the document." : "Enter ends the sentence."}`
    : `Each character goes out at once. ${documents ? "Ctrl+Enter ends the document." : "Enter ends the sentence."}`;
  $("legend-draft").hidden = !session.revises;
  showTraces();
}

for (const input of document.querySelectorAll("input[name=view]"))
  input.addEventListener("change", () => { document.body.dataset.view = input.value; });
for (const input of document.querySelectorAll("input[name=way]"))
  input.addEventListener("change", () => {
    $("type-pane").hidden = input.value !== "type";
    $("play-pane").hidden = input.value !== "play";
  });
for (const input of document.querySelectorAll("input[name=view]:checked, input[name=way]:checked"))
  input.dispatchEvent(new Event("change")); // a browser may remember them

$("theme").value = document.documentElement.dataset.theme ?? "";
$("theme").addEventListener("change", () => {
  const { value } = $("theme");
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("theme", value);
});

$("play").addEventListener("click", () => session && player.toggle());
figures.show(null);
showTraces();
connection.open();
$("box").focus();
