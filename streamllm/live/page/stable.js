// The reading mode: text that has stood for a while. It only grows, but where the translation itself was changed, and
// the change has stood for as long.

import { commonPrefix } from "./recording.js";

export class Stable {
  /** @param wait milliseconds that a word, and all before it, must have stood */
  constructor(wait) {
    this.wait = wait;
    this.shown = [];
    this.history = [[-Infinity, []]]; // [when, words]; the first is the one that stood `wait` ago
  }

  /** The words are so from now on. `over`: for good. */
  say(words, now, over = false) {
    this.history.push([now, words]);
    this.over = over;
  }

  /** The words to show now. */
  at(now) {
    while (this.history.length > 1 && this.history[1][0] <= now - this.wait) this.history.shift();
    const [[, stood], ...later] = this.history;
    const same = later.reduce((least, [, words]) => Math.min(least, commonPrefix(words, stood)), stood.length);
    const grows = commonPrefix(stood.slice(0, same), this.shown) < same;
    if (grows || (this.over && !later.length)) this.shown = stood.slice(0, same);
    return this.shown;
  }

  /** When `at` may say something else; Infinity once all is shown. */
  get next() {
    return this.history.length > 1 ? this.history[1][0] + this.wait : Infinity;
  }
}
