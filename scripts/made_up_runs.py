"""Runs over sentences that nobody translated, for bench_scale.py: as long as those of Multi30k under wait-3.

Called as TASK FOLDER SENTENCES in a process of its own, it prints what it measured as JSON: processor time in seconds,
and its largest memory in MB."""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamllm.records import Event, Example, Trace

CONFIG = {"dataset": {"target_language": "de", "target_unit": "word"}, "policy": {"k": 3}}
WORDS = [f"{a}{b}{c}" for a in ("ein", "Mann", "grün", "steh") for b in ("st", "er", "fahr", "ä") for c in "abcdefghij"]


# --- sentences that nobody translated


def pair(number: int) -> Example:
    words = random.Random(number)
    source, reference = (" ".join(words.choices(WORDS, k=words.randint(8, 15))) for _ in range(2))
    return Example(f"made-up-{number}", source, reference)


def trace(example: Example, k: int = 3) -> Trace:
    words = random.Random(example.id)
    source = example.source.split()
    units = [word if words.random() < 0.6 else words.choice(WORDS) for word in example.reference.split()]
    events, delays, times = [], [], []
    read, now = 0, 0.0
    for number, unit in enumerate(units):
        while read < min(k + number, len(source)):
            events.append(Event("read", source[read], now := now + words.random() / 10))
            read += 1
        events.append(Event("write", unit, now := now + words.random() / 10))
        delays.append(read)
        times.append(now)
    events += [Event("read", unit, now) for unit in source[read:]] + [
        Event("end", "", now),
        Event("stop", "end_token", now),
    ]
    stats = {"seconds": now, "forward_passes": 30, "source_tokens": 30, "target_tokens": 20}
    return Trace(
        *(example.id, example.source, example.reference, tuple(units), tuple(delays), tuple(times), tuple(events)),
        *(len(source), " ".join(units), stats),
    )


# --- one run in this process


def used() -> float:
    return time.process_time()


def evaluate(root: Path, sentences: int, stop_at: int | None = None) -> dict[str, float]:
    """A whole run, or the rest of one, from `Example` to metrics.json; ``stop_at`` presses Ctrl-C after so many."""
    from streamllm.evaluation.runner import complete
    from streamllm.runs.folder import RunFolder

    examples = [pair(number) for number in range(sentences)]
    marks: dict[str, float] = {"called": used()}

    def translate(todo: Sequence[Example]) -> Iterator[Trace]:
        marks["first"] = used()
        for number, example in enumerate(todo):
            if number == stop_at:
                print(json.dumps({"begin": marks["first"] - marks["called"], "pressed": used()}), flush=True)
                os.kill(os.getpid(), signal.SIGINT)
            yield trace(example)
        marks["last"] = used()

    complete(RunFolder(root / "run-1"), examples, lambda: translate, config=CONFIG, target_language="de")
    return {"begin": marks["first"] - marks["called"], "end": used() - marks["last"], "whole": used() - marks["called"]}


def stored(root: Path, share: float, sentences: int) -> None:
    """A run that was killed after a share of its sentences."""
    from streamllm.runs.folder import RunFolder
    from streamllm.runs.lines import json_line, to_prediction, to_timing

    folder = RunFolder(root / "run-1")
    with folder:
        folder.begin(CONFIG, {})
    with open(folder.path / "predictions.jsonl", "wb") as lines, open(folder.path / "timings.jsonl", "wb") as times:
        for number in range(int(share * sentences)):
            one = trace(pair(number))
            lines.write(json_line(to_prediction(one)))
            times.write(json_line(to_timing(one)))


def drawn(root: Path) -> dict[str, float]:
    from streamllm.runs.compare import bootstrap

    begun = used()
    found = bootstrap(root / "run-1")
    values = [number for one in found.values() for number in (one.value, one.low, one.high)]
    return {"seconds": used() - begun, "checksum": sum(values)}


TASKS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "evaluate": evaluate,
    "interrupted": lambda root, sentences: evaluate(root, sentences, stop_at=10),
    "drawn": lambda root, sentences: drawn(root),
}


def main(task: str, folder: str, sentences: str) -> None:
    found: dict[str, float] = {}
    try:
        found = TASKS[task](Path(folder), int(sentences))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # KB on Linux
        print(json.dumps({**found, "memory": memory}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
