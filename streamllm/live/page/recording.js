// A trace, made of what the service tells of one sentence or document, as streamllm/engine/recording.py makes it; and
// its line in the files of a run folder.

import { join, split } from "./units.js";

/** When each unit of the last of successive outputs was final (streamllm.units.settled). */
export function settled(outputs, when) {
  const last = outputs[outputs.length - 1];
  const found = [];
  let same = last.length;
  for (let i = outputs.length - 1; i >= 0; i -= 1) {
    same = Math.min(same, commonPrefix(outputs[i], last));
    found.fill(when[i], 0, same);
    while (found.length < same) found.push(when[i]);
  }
  return found;
}

export function commonPrefix(a, b) {
  let same = 0;
  while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
  return same;
}

// Kinds of events by types of messages; what extends a unit, and what was forced, has a kind of its own.
const KINDS = { read: "read", write: "write", revised: "shown", sentence: "sentence", end: "stop" };

export class Recording {
  constructor(targetUnit) {
    this.targetUnit = targetUnit;
    this.messages = [];
    this.units = [];
    this.written = []; // units with the space before them
    this.delays = [];
    this.elapsed = [];
    this.read = 0;
    this.outputs = []; // that may be revised, and when each was shown
    this.shownAt = [];
    this.settledAt = [];
  }

  /** One more message of the service. */
  add(message) {
    const { type, time } = message;
    const last = this.units.length - 1;
    this.messages.push(message);
    if (type === "read") {
      this.read = message.read;
    } else if (type === "write" && message.extends) {
      this.units[last] += message.unit;
      this.written[last] += message.unit;
      [this.delays[last], this.elapsed[last]] = [message.delay, time];
    } else if (type === "write") {
      this.units.push(message.unit.trimStart());
      this.written.push(message.unit);
      if (this.outputs.length) {
        this.settledAt = settled(this.outputs, this.shownAt);
        [this.outputs, this.shownAt] = [[], []];
      }
      const [delay, seconds] = this.settledAt.shift() ?? [message.delay, time];
      this.delays.push(delay);
      this.elapsed.push(seconds);
    } else if (type === "revised") {
      this.outputs.push(split(message.text, this.targetUnit));
      this.shownAt.push([message.delay, time]);
    }
  }

  /** What it was after so many messages. */
  upTo(many) {
    const before = new Recording(this.targetUnit);
    for (const message of this.messages.slice(0, many)) before.add(message);
    return before;
  }

  /** Delays by now: of units that are written, and of those that are shown and not final. */
  delaysByNow() {
    const open = this.outputs.length ? settled(this.outputs, this.shownAt) : this.settledAt;
    return [...this.delays, ...open.map(([delay]) => delay)];
  }

  /** The lines of predictions.jsonl and timings.jsonl. `source`: the text of the units read. */
  lines(id, source) {
    const seconds = this.messages.map(({ time }) => time);
    return [{
      id, source, reference: "", prediction: join(this.written, this.targetUnit), delays: this.delays,
      elapsed: this.elapsed.map(() => 0), units: this.units, source_units: this.read,
      events: this.messages.map(eventOf), stats: {},
    }, { id, elapsed: this.elapsed, events: seconds, stats: { seconds: seconds[seconds.length - 1] ?? 0 } }];
  }
}

function eventOf(message) {
  const kind = message.forced ? "forced_read" : message.extends ? "extend" : KINDS[message.type];
  return { kind, text: String(message.unit ?? message.text ?? message.translated ?? message.reason) };
}
