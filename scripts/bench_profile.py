"""Where the CPU time of a run goes: by operation, as `perf` sees the process, and by file of Python.

    python scripts/bench_profile.py [--policies full waitk] [--data-dir FOLDER] [--json FILE]

By operation: run.py under `perf record` (Linux, package linux-perf), with many sentences and with a few; the samples of
the few are taken off, so the start is left out. A sample belongs to the group of the symbol in which it was taken. "Of
Python" are the threads that run Python (more than a twentieth of their samples), "of MLX" the others.

By file: cProfile with the CPU time of the thread that runs Python, in one thread; what is built in is charged to its
caller. cProfile slows small functions down, so their shares are too large: compare them with each other, and with the
first table.
"""

import argparse
import cProfile
import os
import pstats
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench_start import ROOT
from benchmark import markdown, save

POLICIES = {"full": "policy=full", "waitk": "policy=waitk k=3", "alignatt": "policy=alignatt policy.f=2"}
BATCH_SIZE = 64  # of the table by file: the default of a thread
HERTZ = 499
GROUPS = (  # the first that fits library and symbol; "" fits all
    ("packing for products", "mkl|openblas", r"(?<!no)copy|pack"),
    ("matrix products", "mkl|openblas", ""),
    ("kernel: thread switches, pages", r"\[kernel|vdso", ""),
    ("softmax and sigmoid, by numpy", "_multiarray", "exp|maximum|divide|pairwise|reciprocal|negative|masked"),
    ("numpy, other", "_multiarray", ""),
    ("writing keys and values (scatter)", "libmlx", "scatter"),
    ("gathering", "libmlx", "gather"),
    ("copies", "libmlx", "copy|ContiguousIterator|contiguous"),
    ("small operations", "libmlx|libCf", "binary|unary|reduc|ternary|select|arange|simd|Compiled"),
    ("small operations", "^libCf", ""),  # what mx.compile has made
    ("MLX: graph, scheduler, allocator", r"libmlx|libstdc|libm\.|^ld-", ""),
    ("MLX: bindings", "^core.*so", ""),
    ("memory: copied and set", "libc", "mem(move|cpy|set)"),
    ("memory: allocated and freed; locks", "libc", ""),
    ("tokenizers, JSON, other libraries", "tokenizers|_json|regex|msgspec|unicodedata", ""),
    ("Python: collecting garbage", "libpython|^python", "gc_collect|visit_(decref|reachable)|_traverse$|subtract_refs"),
    ("Python", "", ""),
)
OPERATIONS = {
    "what": ("", ""),
    "python": ("of Python", ".1%"),
    "mlx": ("of MLX", ".1%"),
    "main": ("of the main thread", ".1%"),
    "share": ("all", ".1%"),
}
FILES = {
    "file": ("file", ""),
    "ms": ("CPU ms/sentence", ".2f"),
    "share": ("share", ".1%"),
    "function": ("its dearest function", ""),
    "function_ms": ("CPU ms/sentence", ".2f"),
    "calls": ("calls/sentence", ".1f"),
}


class Sample(NamedTuple):
    """Where a thread was."""

    process: int
    thread: int
    symbol: str
    library: str


def group_of(sample: Sample) -> str:
    fits = (
        name
        for name, library, symbol in GROUPS
        if re.search(library, sample.library) and re.search(symbol, sample.symbol)
    )
    return next(fits)


def parse_samples(printed: str) -> list[Sample]:
    """What ``perf script -F pid,tid,ip,sym,dso`` printed of samples without call chains."""
    line = re.compile(r"\s*(\d+)/(\d+)\s+[0-9a-f]+\s+(.*) \(([^()]*)\)\s*$")
    found = filter(None, map(line.match, printed.splitlines()))
    return [Sample(int(m[1]), int(m[2]), m[3], m[4].rpartition("/")[2]) for m in found]


def by_operation(samples: Iterable[Sample]) -> Counter[tuple[str, str]]:
    """How many samples each group has in each kind of thread: ``main``, ``python`` or ``mlx``."""
    samples = list(samples)
    every = Counter(sample.thread for sample in samples)
    python = Counter(sample.thread for sample in samples if re.search("libpython|^python", sample.library))

    def kind(sample: Sample) -> str:
        if sample.process == sample.thread:
            return "main"
        return "python" if 20 * python[sample.thread] > every[sample.thread] else "mlx"

    return Counter((group_of(sample), kind(sample)) for sample in samples)


def operations(whole: Counter[tuple[str, str]], start: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows of shares, the largest first; ``start`` is taken off."""
    left = {key: max(0, count - start[key]) for key, count in whole.items()}
    total = sum(left.values())
    rows = []
    for name in dict.fromkeys(name for name, *_ in GROUPS):
        parts = {kind: left.get((name, kind), 0) / total for kind in ("python", "mlx", "main")}
        rows.append({"what": name, **parts, "share": sum(parts.values())})
    rows.sort(key=lambda row: -float(row["share"]))  # type: ignore[arg-type]
    every = {kind: sum(row[kind] for row in rows) for kind in ("python", "mlx", "main", "share")}  # type: ignore[misc]
    return [*rows, {"what": "all of these", **every}]


def record(overrides: Sequence[str]) -> Counter[tuple[str, str]]:
    """Samples of one run of run.py.

    Raises:
        SystemExit: perf or the run failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        command = ["perf", "record", "-q", "-F", str(HERTZ), "-e", "cpu-clock", "-o", data, "--", sys.executable]
        run([*command, str(ROOT / "run.py"), *overrides, "tracker=none", f"output.root={folder}/outputs"])
        return by_operation(parse_samples(run(["perf", "script", "-i", data, "-F", "pid,tid,ip,sym,dso"])))


def run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def profile(policy: str, data_dir: Path | None, sentences: int) -> tuple[pstats.Stats, float, float]:
    """Profile of the thread that runs Python; and the CPU ms of a sentence without profiling, of all threads and of
    that one."""
    os.environ["STREAMLLM_THREADS"] = "1"
    from bench_eval import POLICIES, load_dataset

    from streamllm.batching.scheduler import translate_many
    from streamllm.models.loading import ModelConfig

    dataset = load_dataset(data_dir, sentences)
    examples = dataset.load()
    model = ModelConfig("bundled:tiny-en-de").load(source_unit=dataset.source_unit, target_unit=dataset.target_unit)

    def translate() -> None:
        list(translate_many(model, examples, POLICIES[policy], batch_size=BATCH_SIZE))

    list(translate_many(model, examples[:2], POLICIES[policy], batch_size=2))  # warm
    before, own = time.process_time(), time.thread_time()
    translate()
    plain = [1e3 * used / len(examples) for used in (time.process_time() - before, time.thread_time() - own)]
    profiler = cProfile.Profile(time.thread_time)
    profiler.runcall(translate)
    return pstats.Stats(profiler), plain[0], plain[1]


def by_file(stats: pstats.Stats, sentences: int) -> list[dict[str, Any]]:
    """Rows of the own time of each file's functions, and of the built-in ones that they call."""
    own: Counter[tuple[str, str]] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    found: Any = stats.stats  # type: ignore[attr-defined]
    for (path, _, name), (_, number, seconds, _, callers) in found.items():
        if path != "~":  # what is built in has no file
            own[short(path), name] += seconds
            calls[short(path), name] += number
            continue
        for (caller_path, _, caller), (_, _, caller_seconds, _) in callers.items():
            own[short(caller_path), caller] += caller_seconds
    files: Counter[str] = Counter()
    for (path, _), seconds in own.items():
        files[path] += seconds  # type: ignore[assignment]
    total = sum(files.values())
    rows = []
    for path, seconds in files.most_common():
        (dearest, of_dearest) = max(((key, value) for key, value in own.items() if key[0] == path), key=lambda p: p[1])
        rows.append(
            {
                "file": f"`{path}`",
                "ms": 1e3 * seconds / sentences,
                "share": seconds / total,
                "function": f"`{dearest[1]}`",
                "function_ms": 1e3 * of_dearest / sentences,
                "calls": calls[dearest] / sentences,
            }
        )
    return rows


def short(path: str) -> str:
    """Of a file: from the package on."""
    return re.sub(r"^.*/(?=(streamllm|site-packages|lib/python[\d.]+)/)", "", path).replace("site-packages/", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=["full", "waitk"])
    parser.add_argument("--data-dir", type=Path, help="folder of Multi30k; without it, the bundled sample of 180")
    parser.add_argument("--sentences", type=int, default=640)
    parser.add_argument("--few", type=int, default=10, help="sentences of the run whose samples are taken off")
    parser.add_argument("--profiled", type=int, default=128, help="sentences of the table by file; 0: without it")
    parser.add_argument("--top", type=int, default=20, help="files in it")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    data = [] if args.data_dir is None else ["dataset=multi30k", f"dataset.data_dir={args.data_dir.resolve()}"]
    tables: dict[str, Any] = {}
    if shutil.which("perf") is None:
        print("perf is not there (package linux-perf): no table by operation", file=sys.stderr)
    else:
        for name in args.policies:
            keys = shlex.split(POLICIES[name])
            counts = (record([*keys, *data, f"dataset.limit={n}"]) for n in (args.sentences, args.few))
            tables[f"operations of {name}"] = operations(*counts)
            print(f"{name}\n\n{markdown(tables[f'operations of {name}'], OPERATIONS)}\n", flush=True)
    for name in args.policies if args.profiled else ():
        stats, every, python = profile(name, args.data_dir, args.profiled)
        tables[f"files of {name}"] = by_file(stats, args.profiled)[: args.top]
        print(f"{name}: {every:.1f} CPU ms/sentence without a profiler, {python:.1f} of them in the thread of Python")
        print(f"\n{markdown(tables[f'files of {name}'], FILES)}\n", flush=True)
    save(args.json, {"sentences": args.sentences, "profiled": args.profiled}, **tables)


if __name__ == "__main__":
    main()
