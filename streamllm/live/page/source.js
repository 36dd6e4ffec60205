// What was typed and is not translated to its end yet, and how much of it the service has. Invariant: text leaves it
// only once its sentence is over, so a connection that breaks loses none.

import { pieces } from "./units.js";

const WINDOW = 200; // units that the service has and has not read, at most
const MOST = 50; // units of a message

/** One sentence, or one document: what begins with a unit and has one `end`. */
export class Piece {
  constructor(policy) {
    Object.assign(this, { policy, units: [], ended: false, before: "" });
    this.restart();
  }

  /** The service has nothing of it. */
  restart() {
    Object.assign(this, { sentAt: [], endSentAt: null, read: 0 });
  }

  get sent() {
    return this.sentAt.length;
  }

  add(text, unit) {
    const more = pieces(text, unit, this.before);
    this.before = (this.before + text).slice(-2);
    this.units.push(...more);
    return more.length;
  }
}

export class Source {
  constructor() {
    this.unit = "word";
    this.pieces = []; // not over, in their order
    this.told = []; // those of this connection, by the service's number of the sentence
    this.policy = null; // that the service has, as JSON; null where that is not known
    this.expected = ""; // what it has of text that may still change
    this.pace = 40; // units a second, on average
    this.burst = 200; // units that may go out at once
    [this.credit, this.creditAt] = [this.burst, 0];
  }

  /** The piece that takes what is typed next; null where that begins another one. */
  get open() {
    const last = this.pieces[this.pieces.length - 1];
    return last && !last.ended ? last : null;
  }

  begin(policy) {
    const piece = new Piece(policy);
    this.pieces.push(piece);
    return piece;
  }

  /** The piece that a message is about. */
  of(message) {
    return this.told[message.sentence];
  }

  over(piece) {
    this.pieces = this.pieces.filter((one) => one !== piece);
  }

  /** The connection is a new one. */
  restart(policy) {
    this.told = [];
    this.expected = "";
    this.policy = JSON.stringify(policy);
    for (const piece of this.pieces) piece.restart();
  }

  /** A document goes on with another connection, behind its first `done` units; returns what is left, or null. */
  divide(piece, done) {
    const rest = new Piece(piece.policy);
    rest.units = piece.units.splice(done);
    Object.assign(rest, { ended: piece.ended, before: piece.before });
    const place = this.pieces.indexOf(piece);
    const left = rest.units.length > 0;
    this.pieces.splice(place, 1, ...(left ? [rest] : []));
    return left ? rest : null;
  }

  /** Words came too fast: fewer, from now on. */
  slowDown() {
    this.pace = Math.max(1, this.pace / 4);
    this.burst = Math.max(1, this.burst / 10);
    this.credit = Math.min(this.credit, this.burst);
  }

  /** Sends what may go out now, by `say`; `now` in milliseconds. Returns when more may, Infinity if that is not for the
   * clock to say. */
  send(say, now) {
    this.credit = Math.min(this.burst, this.credit + ((now - this.creditAt) * this.pace) / 1000);
    this.creditAt = now;
    let ahead = this.pieces.reduce((sum, piece) => sum + piece.sent - piece.read, 0);
    for (const piece of this.pieces) {
      while (piece.sent < piece.units.length) {
        const room = Math.min(MOST, WINDOW - ahead, piece.units.length - piece.sent);
        if (room <= 0) return Infinity; // until something is read
        const many = Math.min(room, Math.floor(this.credit));
        if (many < 1) return now + ((1 - this.credit) * 1000) / this.pace;
        if (piece.sent === 0) this.announce(piece, say);
        const units = piece.units.slice(piece.sent, piece.sent + many);
        const last = piece.ended && piece.sent + many === piece.units.length;
        const text = this.unit === "word" ? ` ${units.join(" ")}` : units.join("");
        this.commit(text, last, say);
        for (let i = 0; i < many; i += 1) piece.sentAt.push(now);
        if (last) piece.endSentAt = now;
        this.credit -= many;
        ahead += many;
      }
      if (piece.ended && piece.endSentAt === null) {
        this.commit("", true, say);
        piece.endSentAt = now;
      }
      if (!piece.ended) break;
    }
    return Infinity;
  }

  /** Text that may still change, which the service may translate ahead: all there is of it by now. */
  expect(text, say) {
    if (this.pieces.some((piece) => piece.sent < piece.units.length)) return; // what comes before it waits, too
    if (!text.startsWith(this.expected)) this.forget(say);
    if (text !== this.expected) say({ type: "input_text_buffer.append", text: text.slice(this.expected.length) });
    this.expected = text;
  }

  forget(say) {
    say({ type: "input_text_buffer.clear" });
    this.expected = "";
  }

  commit(text, final, say) {
    if (!text.startsWith(this.expected)) this.forget(say);
    say({ type: "input_text_buffer.commit", text: text.slice(this.expected.length), final });
    this.expected = "";
  }

  announce(piece, say) {
    this.told.push(piece);
    const policy = JSON.stringify(piece.policy);
    if (policy === this.policy) return;
    say({ type: "session.update", policy: piece.policy });
    this.policy = policy;
  }
}
