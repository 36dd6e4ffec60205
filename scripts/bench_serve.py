"""How long live streams wait for their translations while others are under way, and how many a machine carries.

    python scripts/bench_serve.py [--streams 64:60,256:300] [--alone 64:30] [--most 250] [KEY=VALUE ...]

KEY=VALUE are keys of `streamllm serve` (policy=waitk k=3, unless told otherwise). For each number of streams a service
is started on a free port of this machine, and this process sends it sentences of the sample corpus, word by word at an
even pace (--words-per-second, 3), from as many sockets, for the seconds behind the colon; then it lets the sentences
under way end, and stops. It opens no more than 1024 sockets, runs for at most 15 minutes a row, and talks to this
machine alone. Where a stream has not ended a minute later, the lag is infinite.

*lag* is from the word that a target unit waited for (with wait-k the (t + k - 1)-th for unit t, or the end of the
source) to its arrival here, in milliseconds. *in source* are those units that wait for no end; *tail* are the others,
of which each waits for the one before it. *width* is how many streams went through a forward together, on average.
Processor time is per second, of the service and of this process, which share the cores, and of the service per word.
*memory* is the service's: once all streams are open, after each minute, and at the end, in MB. *different* counts
sentences that are not those of `streamllm run` at batch size 1.

``--alone`` adds rows in which each forward takes one stream. ``--most 250`` looks for the largest number of streams, in
steps of 32, whose p95 is at most so many milliseconds, by runs of 30 seconds between the largest row that keeps it and
the smallest that does not.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from benchmark import markdown, save

ROOT = Path(__file__).parent.parent
MOST_STREAMS, LONGEST, SHORT = 1024, 900.0, 30.0
COLUMNS = {
    "streams": ("streams", ""),
    "way": ("way", ""),
    "sentences": ("sentences", ""),
    "words_per_s": ("source words/s", ".0f"),
    "p50": ("lag p50", ".0f"),
    "p95": ("p95", ".0f"),
    "p99": ("p99", ".0f"),
    "p95_source": ("in source p95", ".0f"),
    "p95_tail": ("tail p95", ".0f"),
    "worst_stream": ("p95 of the worst stream", ".0f"),
    "late_ms": ("sent late p95", ".0f"),
    "width": ("width", ".1f"),
    "service_cpu": ("CPU of the service", ".2f"),
    "load_cpu": ("of the load", ".2f"),
    "cpu_ms_a_word": ("ms a word", ".2f"),
    "memory_mb": ("memory", ""),
    "different": ("different", ""),
}


@dataclass
class Heard:
    """What one stream came to: lags in seconds, and the words of each sentence of its own."""

    in_source: list[float] = field(default_factory=list)
    tail: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    words: int = 0
    lost: bool = False
    sentences: list[tuple[str, str]] = field(default_factory=list)


async def stream(
    address: str, number: int, sources: list[str], k: int | None, seconds: float, args: argparse.Namespace
) -> Heard:
    """Speak sentences, one word each so many seconds, and listen."""
    from websockets.asyncio.client import connect

    heard, gap = Heard(), 1 / args.words_per_second
    sent: dict[int, list[float]] = {}
    ended: dict[int, float] = {}
    texts: dict[int, str] = {}
    over = asyncio.Event()
    last = -1

    async def listen(socket: Any) -> None:
        written: dict[int, list[str]] = {}
        async for text in socket:
            now, message = time.perf_counter(), msgspec.json.decode(text)
            match message["type"]:
                case "write":
                    sentence, unit = message["sentence"], message["written"]
                    words = written.setdefault(sentence, [])
                    if message["extends"]:
                        words[-1] += message["unit"]
                        continue
                    words.append(message["unit"])
                    waited = message["delay"] if k is None else unit + k - 1
                    if waited > len(texts[sentence].split()):
                        heard.tail.append(now - ended[sentence])
                    else:
                        heard.in_source.append(now - sent[sentence][max(waited, message["delay"]) - 1])
                case "end":
                    sentence = message["sentence"]
                    heard.sentences.append((texts[sentence], " ".join(written.pop(sentence, []))))
                    sent.pop(sentence), ended.pop(sentence)
                    if sentence == last:
                        over.set()
                case "error":
                    raise RuntimeError(f"stream {number}: {message['message']}")

    async with connect(address, compression=None, open_timeout=60) as socket:
        listening = asyncio.create_task(listen(socket))
        rng = np.random.default_rng(number)
        begin = time.perf_counter() + 2 + float(rng.uniform(0, gap))
        due, sentence = begin, 0
        while due < begin + seconds:
            texts[sentence] = sources[(number * 37 + sentence) % len(sources)]
            sent[sentence] = []
            words = texts[sentence].split()
            for i, word in enumerate(words):
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                heard.late.append(time.perf_counter() - due)
                now = time.perf_counter()
                sent[sentence].append(now)
                final = i == len(words) - 1
                if final:
                    ended[sentence] = now
                message = {"type": "input_text_buffer.commit", "text": f" {word}", "final": final}
                await socket.send(json.dumps(message))
                heard.words += 1
                due += gap
            last, sentence = sentence, sentence + 1
        try:
            await asyncio.wait_for(over.wait(), 60)
        except TimeoutError:
            heard.lost = True
        listening.cancel()
    return heard


async def load(
    address: str, streams: int, sources: list[str], k: int | None, seconds: float, args: argparse.Namespace
) -> list[Heard]:
    one_by_one = (stream(address, number, sources, k, seconds, args) for number in range(streams))
    async with asyncio.timeout(LONGEST):
        return await asyncio.gather(*one_by_one)


def cpu(process: int) -> float:
    """Processor seconds by now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(process: int) -> float:
    """Megabytes of memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        found = re.search(rf"^streamllm_{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else float("nan")


def measure(
    streams: int, seconds: float, way: str, sources: list[str], args: argparse.Namespace
) -> tuple[dict[str, Any], list[Heard]]:
    """One row: a service, and its load."""
    keys = ["policy=waitk", "k=3", *args.keys, "port=0", "host=127.0.0.1", f"quotas.streams={streams}"]
    keys += ["streams_per_forward=1"] if way == "alone" else []
    given = [key.removeprefix("k=") for key in keys if re.fullmatch(r"k=\d+", key)]
    k = int(given[-1]) if "policy=waitk" in [key for key in keys if key.startswith("policy=")][-1:] else None
    command = [sys.executable, "-m", "streamllm", "serve", *keys]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", service.stdout.readline())
            if not found:
                raise SystemExit(f"the service does not start: {' '.join(command)}")
            port = int(found[1])
            memory: list[float] = []

            async def watched() -> list[Heard]:
                async def watch() -> None:
                    await asyncio.sleep(4)  # all streams are open, and the first words have come
                    while True:
                        memory.append(rss(service.pid))
                        await asyncio.sleep(60)

                watching = asyncio.create_task(watch())
                try:
                    return await load(f"ws://127.0.0.1:{port}/v1/stream", streams, sources, k, seconds, args)
                finally:
                    watching.cancel()
                    memory.append(rss(service.pid))

            before, own, began = cpu(service.pid), time.process_time(), time.perf_counter()
            heard = asyncio.run(watched())
            took = time.perf_counter() - began
            service_cpu, load_cpu = (cpu(service.pid) - before) / took, (time.process_time() - own) / took
            width = metric(port, "forward_rows_total") / metric(port, "forwards_total")
        finally:
            service.terminate()
            service.wait(30)
    in_source, tail = (np.concatenate([getattr(each, name) for each in heard]) for name in ("in_source", "tail"))
    every = np.concatenate([in_source, tail]) * 1e3
    if any(each.lost for each in heard):
        every[:] = np.inf
    p50, p95, p99 = np.quantile(every, [0.5, 0.95, 0.99])
    return {
        "streams": streams,
        "way": way,
        "sentences": sum(len(each.sentences) for each in heard),
        "words_per_s": sum(each.words for each in heard) / seconds,
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "p95_source": np.quantile(in_source, 0.95) * 1e3,
        "p95_tail": np.quantile(tail, 0.95) * 1e3 if len(tail) else float("nan"),
        "worst_stream": max(np.quantile([*each.in_source, *each.tail], 0.95) for each in heard) * 1e3,
        "late_ms": np.quantile(np.concatenate([each.late for each in heard]), 0.95) * 1e3,
        "width": width,
        "service_cpu": service_cpu,
        "load_cpu": load_cpu,
        "cpu_ms_a_word": service_cpu * took / sum(each.words for each in heard) * 1e3,
        "memory_mb": ", ".join(f"{each:.0f}" for each in memory),
    }, heard


def expected(sources: list[str]) -> dict[str, str]:
    """What `streamllm run` makes of each source at batch size 1."""
    from streamllm.batching.scheduler import translate_many
    from streamllm.models.loading import ModelConfig
    from streamllm.policies import WaitK
    from streamllm.records import Example

    model = ModelConfig("bundled:tiny-en-de").load()
    examples = [Example(str(i), source, "") for i, source in enumerate(sources)]
    return {trace.source: " ".join(trace.units) for trace in translate_many(model, examples, WaitK(3), batch_size=1)}


def rows_of(text: str) -> list[tuple[int, float]]:
    """``64:60,256`` as numbers of streams and seconds."""
    found = []
    for each in text.split(","):
        streams, _, seconds = each.partition(":")
        found.append((int(streams), float(seconds or 60)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=rows_of, default="64,256", help="numbers of streams, and seconds: 64:60,256")
    parser.add_argument("--alone", type=rows_of, default=[], help="rows in which each forward takes one stream")
    parser.add_argument(
        "--most", type=float, help="look for the largest number of streams that keeps a p95 of these ms"
    )
    parser.add_argument("--words-per-second", type=float, default=3.0)
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    asked = [*args.streams, *args.alone]
    if not all(0 < streams <= MOST_STREAMS and 0 < seconds <= LONGEST - 90 for streams, seconds in asked):
        parser.error(f"accepted are 1 to {MOST_STREAMS} streams, and up to {LONGEST - 90:g} seconds")
    from streamllm.data.sample import Sample

    sources = [example.source for example in Sample().load()]
    rows: list[dict[str, Any]] = []
    heard_of: list[list[Heard]] = []

    def row(streams: int, seconds: float, way: str) -> float:
        found, heard = measure(streams, seconds, way, sources, args)
        rows.append(found)
        heard_of.append(heard)
        print(f"{streams} streams, {way}: p95 {found['p95']:.0f} ms", file=sys.stderr, flush=True)
        return float(found["p95"])

    for streams, seconds in args.alone:
        row(streams, seconds, "alone")
    lags = {streams: row(streams, seconds, "together") for streams, seconds in args.streams}
    if args.most is not None:
        print(f"the largest number that keeps {args.most:g} ms: {largest(lags, args.most, row)}", file=sys.stderr)
    if not args.keys:
        reference = expected(sorted({text for heard in heard_of for each in heard for text, _ in each.sentences}))
        for found, heard in zip(rows, heard_of, strict=True):
            found["different"] = sum(reference[text] != ours for each in heard for text, ours in each.sentences)
    print(markdown(rows, COLUMNS))
    save(args.json, vars(args) | {"json": str(args.json)}, rows=rows)


def largest(lags: dict[int, float], most: float, row: Callable[[int, float, str], float]) -> int:
    """Streams, in steps of 32; 0 if none keeps ``most`` milliseconds."""
    kept = max((streams for streams, lag in lags.items() if lag <= most), default=0)
    failed = min((streams for streams, lag in lags.items() if lag > most and streams > kept), default=None)
    while failed is None and kept < MOST_STREAMS:
        streams = min(MOST_STREAMS, max(64, kept * 5 // 4 // 32 * 32))
        kept, failed = (streams, None) if row(streams, SHORT, "together") <= most else (kept, streams)
    while failed is not None and (streams := (kept + failed) // 64 * 32) > kept:
        kept, failed = (streams, failed) if row(streams, SHORT, "together") <= most else (kept, streams)
    return kept


if __name__ == "__main__":
    main()
