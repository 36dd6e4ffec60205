// Source and translation side by side: a row for each sentence.

import { shade } from "./lagging.js";
import { Stable } from "./stable.js";
import { join, split } from "./units.js";

const READING = 1000; // milliseconds that text has stood in the reading mode

function html(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * One sentence: source units `start` to `end` of its piece, and what was written of them. What changes is kept as data,
 * and `draw` brings it to the page.
 */
export class Row {
  constructor(piece, start, policy, units) {
    Object.assign(this, { piece, start, end: null, words: [], draft: [], failed: false, units });
    this.note = policy ? html("p", { class: "note" }, policy) : "";
    this.source = html("p", { class: "source", dir: "auto" });
    this.now = html("span", { class: "now" });
    this.calm = html("span", { class: "calm" });
    const target = html("p", { class: "target", dir: "auto" }, this.now, this.calm);
    this.element = html("li", {}, this.note, this.source, target);
    this.restart();
  }

  /** Nothing of it was written. */
  restart() {
    Object.assign(this, { words: [], draft: [], drawn: 0, calmDrawn: [], standing: 0 });
    this.stable = new Stable(READING);
    this.now.replaceChildren();
    this.calm.replaceChildren();
    this.source.replaceChildren();
  }

  write(text, delay, lag) {
    this.words.push({ text, delay, lag });
    this.say();
  }

  /** The last word gets an ending. */
  extend(text, delay, lag) {
    const last = this.words[this.words.length - 1];
    Object.assign(last, { text: last.text + text, delay, lag });
    this.drawn = Math.min(this.drawn, this.words.length - 1);
    this.say();
  }

  revise(text) {
    this.draft = split(text, this.units.target);
    this.say();
  }

  finish(end) {
    this.end = end;
    this.draft = [];
    this.say(true);
  }

  say(over = false) {
    this.stable.say([...this.words.map(({ text }) => text), ...this.draft], performance.now(), over);
  }

  get text() {
    return join(this.words.map(({ text }) => text), this.units.target);
  }

  draw() {
    this.drawSource();
    while (this.now.children.length > this.drawn) this.now.lastElementChild.remove();
    for (const { text, delay, lag } of this.words.slice(this.drawn)) {
      const said = `written after ${delay - this.start} read: ${lag} behind`;
      this.append(this.now, text, { class: "word", "data-shade": shade(lag), title: said });
    }
    this.drawn = this.words.length;
    if (this.draft.length) this.append(this.now, join(this.draft, this.units.target), { class: "draft" });
    this.drawCalm();
  }

  /** The reading mode. Returns when there will be more of it. */
  drawCalm() {
    const shown = this.stable.at(performance.now());
    if (shown !== this.calmDrawn) {
      let same = 0;
      while (same < this.calmDrawn.length && this.calmDrawn[same] === shown[same]) same += 1;
      while (this.calm.children.length > same) this.calm.lastElementChild.remove();
      for (const text of shown.slice(same)) this.append(this.calm, text, { class: "word" });
      this.calmDrawn = shown;
    }
    return this.stable.next;
  }

  append(into, text, attributes) {
    const space = this.units.target === "word" && into.children.length ? " " : "";
    into.append(html("span", {}, space, html("span", attributes, text)));
  }

  drawSource() {
    const { piece, source, start } = this;
    const until = this.end ?? piece.units.length;
    while (source.children.length > until - start) source.lastElementChild.remove();
    for (let i = this.standing; i < until - start; i += 1) {
      const unit = start + i;
      const kind = unit < piece.read ? "read" : unit < piece.sent ? "sent" : "waits";
      const space = this.units.source === "word" && i ? " " : "";
      if (source.children[i] === undefined) source.append(html("span", {}, space + piece.units[unit]));
      source.children[i].className = kind;
      if (kind === "read" && i === this.standing) this.standing += 1;
    }
  }
}
