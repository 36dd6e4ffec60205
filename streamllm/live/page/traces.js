// The traces of what has ended, to copy and to download: lines of a run folder's files.

const $ = (id) => document.getElementById(id);

export class Traces {
  /** @param cleared is told when all is to be forgotten */
  constructor(cleared) {
    this.lines = []; // [line of predictions.jsonl, line of timings.jsonl]
    this.numbered = 0;
    $("download").addEventListener("click", () => this.save(0, "predictions.jsonl"));
    $("times").addEventListener("click", () => this.save(1, "timings.jsonl"));
    $("copy").addEventListener("click", () => this.copy());
    $("clear").addEventListener("click", () => {
      this.lines = [];
      cleared();
    });
  }

  /** One more. @param source the text of what was read of it */
  add(recording, source) {
    this.numbered += 1;
    this.lines.push(recording.lines(`live-${this.numbered}`, source));
  }

  /** @param thing what each is of, "sentence" or "document" */
  show(thing) {
    const many = this.lines.length;
    for (const id of ["download", "times", "copy"]) $(id).disabled = !many;
    this.say(many ? `${many} ${thing}${many > 1 ? "s" : ""}` : `once a ${thing} has ended`);
  }

  say(text) {
    if ($("traced").textContent !== text) $("traced").textContent = text;
  }

  text(which) {
    return this.lines.map((lines) => `${JSON.stringify(lines[which])}\n`).join("");
  }

  save(which, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.text(which)], { type: "application/x-ndjson" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text(0));
      this.say("copied");
    } catch { // a page without TLS, or a browser that asks first
      this.say("the browser does not let this page copy: download it");
    }
  }
}
