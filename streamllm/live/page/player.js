// Plays a text at so many words a second, so that a demonstration runs by itself.

import { split } from "./units.js";

const $ = (id) => document.getElementById(id);

export class Player {
  /** @param say takes words of the text @param end ends it @param separate whether lines are no sentences */
  constructor({ say, end, separate }) {
    Object.assign(this, { say, end, separate, words: [], next: 0, timer: null });
    $("rewind").addEventListener("click", () => this.rewind());
    $("text").addEventListener("input", () => this.rewind());
    $("rate").addEventListener("input", () => this.timer !== null && this.run());
    addEventListener("keydown", (event) => event.key === "Escape" && this.pause());
  }

  get rate() {
    const rate = $("rate").valueAsNumber;
    return Math.min(20, Math.max(0.5, Number.isFinite(rate) ? rate : 3));
  }

  toggle() {
    if (this.timer === null) this.run();
    else this.pause();
  }

  run() {
    clearInterval(this.timer);
    if (!this.next) this.words = wordsOf($("text").value);
    if (!this.words.length) return;
    // Timers of a tab in the background are late: words go out by the clock.
    const [from, since] = [this.next, performance.now()];
    const timer = setInterval(() => {
      const due = from + 1 + Math.floor(((performance.now() - since) * this.rate) / 1000);
      while (this.timer === timer && this.next < due) this.play();
    }, 250 / this.rate);
    this.timer = timer;
    this.play();
    this.show();
  }

  play() {
    const word = this.words[this.next];
    this.next += 1;
    this.say(`${word}`);
    if (this.next === this.words.length) {
      const repeats = $("repeat").checked;
      if (!repeats || !this.separate()) this.end();
      this.pause();
      this.next = 0;
      if (repeats) this.run();
    }
    this.show();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.show();
  }

  rewind() {
    this.next = 0;
    this.pause();
  }

  show() {
    $("play").textContent = this.timer !== null ? "Pause" : this.next ? "Go on" : "Play";
    $("played").textContent = this.next ? `${this.next} of ${this.words.length} words` : "";
  }
}

/** Words, each with the white space after it; a line's end stays one. */
function wordsOf(text) {
  const found = [];
  for (const line of text.trim().split("\n")) {
    const words = split(line, "word").map((word) => `${word} `);
    if (!words.length) continue;
    words[words.length - 1] = `${words[words.length - 1].trim()}\n`;
    found.push(...words);
  }
  return found;
}
