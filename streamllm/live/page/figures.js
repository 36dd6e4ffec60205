// Latency so far, and the staircase.

import { averageLagging, mean, median } from "./lagging.js";
import { drawStaircase } from "./staircase.js";

const $ = (id) => document.getElementById(id);
const LAST = 1000; // times that the median is of

const number = (value, digits) => (Number.isFinite(value) ? value.toFixed(digits).replace("-", "−") : "–");

/** AL of a row's sentence by now. */
export function laggingOf(row) {
  const delays = row.delays ?? delaysOf(row);
  const read = (row.end ?? row.piece.read) - row.start;
  return averageLagging(delays, read, delays.length);
}

function delaysOf(row) {
  return row.piece.recording.delaysByNow().slice(row.firstWord).map((delay) => delay - row.start);
}

export class Figures {
  constructor() {
    this.clear();
  }

  clear() {
    Object.assign(this, { lags: [], seconds: [] });
    this.show(null);
  }

  /** Something was written, so many seconds after what it waited for. */
  answered(seconds) {
    if (Number.isFinite(seconds)) this.seconds.push(seconds);
    if (this.seconds.length > LAST) this.seconds.shift();
  }

  /** The sentence of a row is over. */
  finished(row) {
    row.delays = row.words.map(({ delay }) => delay - row.start);
    const lagging = laggingOf(row);
    if (Number.isFinite(lagging)) this.lags.push(lagging);
  }

  /** Of the row of now; null where there is none. */
  show(row) {
    $("al").textContent = row ? number(laggingOf(row), 2) : "–";
    $("al-mean").textContent = number(mean(this.lags), 2);
    $("al-count").textContent = this.lags.length ? `mean of ${this.lags.length}` : "mean";
    $("seconds").textContent = number(median(this.seconds), 2);
    $("seconds-last").textContent = number(this.seconds[this.seconds.length - 1], 2);
    const read = row ? (row.end ?? row.piece.read) - row.start : 0;
    const written = row ? row.words.length + row.draft.length : 0;
    $("read").textContent = String(read);
    $("written").textContent = String(written);
    const words = (row?.words ?? []).map(({ text, delay, lag }) =>
      ({ text: text.trim(), delay: delay - row.start, lag }));
    const open = row ? row.piece.recording.delaysByNow().slice(row.firstWord + row.words.length) : [];
    const draft = row ? row.draft.map((text, t) => ({ text, delay: open[t] - row.start })) : [];
    const source = row ? row.piece.units.slice(row.start, row.start + read) : [];
    const waits = row && row.end === null ? Math.min(row.piece.units.length - row.start - read, 20) : 0;
    drawStaircase($("stairs"), { source, waits, words, draft, forced: row ? row.forced : [] });
    $("stairs").setAttribute("aria-label", `Path of the sentence: ${read} read, ${written} written`);
  }
}
