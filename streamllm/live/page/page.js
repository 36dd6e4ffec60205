// The page: what is typed goes to the service, and what the service tells is shown.

import { Banner, token } from "./banner.js";
import { Connection } from "./connection.js";
import { Controls, labelOf } from "./controls.js";
import { PASSING } from "./faults.js";
import { Figures } from "./figures.js";
import { Player } from "./player.js";
import { Recording } from "./recording.js";
import { Source } from "./source.js";
import { Traces } from "./traces.js";
import { Row } from "./transcript.js";
import { endsSentence, join, whole } from "./units.js";

const ROWS = 300; // sentences that stay on the page
const HALT = 150; // milliseconds without a key
const $ = (id) => document.getElementById(id);

let session = null; // the last session.created
let row = null; // the last one
let changed = false; // something is to be drawn
let flushing = null; // the timer of what cannot go out yet
let typing = null; // that of what is not whole yet
const source = new Source();
const figures = new Figures();
const controls = new Controls((policy) => {
  if (!connection.isOpen) return;
  source.policy = null; // what the service has from now on is not that of the sentences that wait here
  connection.say({ type: "session.update", policy, event_id: "form" });
});
const connection = new Connection(
  new URL("../v1/stream", location.href.replace(/^http/, "ws")).href.replace(/[?#].*/, ""),
  token, heard, showState);
const banner = new Banner(() => connection.open());
const traces = new Traces(clear);
const player = new Player({ say: feed, end: endPiece, separate: () => session.documents });

// --- what is typed

/** Takes text that ends with a whole unit. A line's end ends the sentence, and a full stop where that is wanted. */
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
  const words = session.source_unit === "word";
  const parts = line.split(words ? /(?<=\s)(?=\S)/u : /(?<=[。！？｡][」』”’）]?)(?![」』”’）])/u);
  const ends = (part) => (words ? endsSentence(part) : /[。！？｡][」』”’）]?$/u.test(part));
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
  const next = source.send((message) => connection.say(message), performance.now());
  if (next < Infinity) flushing = setTimeout(flush, Math.max(10, next - performance.now()));
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

/** The service may translate ahead what is not whole yet, once typing halts. */
function expect() {
  const rest = $("box").value;
  if (!connection.isOpen || !session.drafts || session.source_unit !== "word") return;
  source.expect(rest.trim() ? ` ${rest}` : "", (message) => connection.say(message));
}

$("box").addEventListener("input", (event) => {
  if (event.isComposing) return;
  takeTyped();
  clearTimeout(typing);
  typing = setTimeout(expect, HALT);
});
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
  traces.add(recording, join(piece.units.slice(0, recording.read), session.source_unit));
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
  const units = { source: session.source_unit, target: session.target_unit };
  row = new Row(piece, start, before?.label === label ? "" : label, units);
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
      traces.show(session?.documents ? "document" : "sentence");
    }
    changed = false;
    showCalm();
    if (follows) log.scrollTop = log.scrollHeight;
  });
}

/** The row that figures tell of: the one that is being translated, or the last that was. */
function shownRow() {
  const underWay = rows.find((one) => one.end === null && one.piece.read > one.start);
  return underWay ?? [...rows].reverse().find((one) => one.end !== null) ?? row;
}

/** Rows that are over go. */
function clear() {
  for (const done of rows.filter((one) => one.end !== null)) done.element.remove();
  rows.splice(0, rows.length, ...rows.filter((one) => one.end === null));
  row = rows[rows.length - 1] ?? null;
  figures.clear();
  changed = true;
  draw();
}

/** The reading mode, and again when more of it is due. */
function showCalm() {
  clearTimeout(calm);
  let next = Infinity;
  for (const each of rows) if (each.stable.next < Infinity) next = Math.min(next, each.drawCalm());
  if (next < Infinity) calm = setTimeout(draw, Math.max(10, next - performance.now()));
}

// --- the state of the connection

function showState(state) {
  banner.show(state);
  if (state.fault?.code === "too_fast" && state.name === "waiting") source.slowDown();
  if (state.name === "asleep" && source.pieces.some((piece) => piece.ended)) flush(); // an end is still owed
  changed = true;
  draw();
}

// --- what is chosen on this page alone

/** Words that say what a source is here. */
function words() {
  const documents = session.documents;
  $("end").textContent = documents ? "End document" : "End sentence";
  $("stops-label").hidden = documents;
  for (const place of document.querySelectorAll("[data-units]"))
    place.textContent = `${session[place.dataset.units]}s`;
  const words = session.source_unit === "word";
  const when = words ? "A word goes out with the space after it." : "Each character goes out at once.";
  $("box-hint").textContent = `${when} ${documents ? "Ctrl+Enter ends the document." : "Enter ends the sentence."}`;
  $("legend-draft").hidden = !session.revises;
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
traces.show("sentence");
connection.open();
$("box").focus();
