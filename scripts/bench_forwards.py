"""Forward passes per target token: a loop that looks ahead and forgets, ours, and ours in batches; and what it gains to
read and write in one forward.

    python scripts/bench_forwards.py [--k 3 5] [--data-dir FOLDER] [--limit 180] [--batch-size 32] [--join 20]
        [--json FILE]

*Forgetful* is the same session made to drop its look-ahead before every write, as loops do that call the model for one
word at a time: it feeds the last target token again, whether or not source came in between. In *a pool*, a read waits
for the next write and goes through one forward with it; in a pool of several sentences, one forward serves all. All
must write the same. The second table is of pools only: each design translates all sentences in turn, in each round, and
the CPU time of this process is compared with that of the first. The third table is of sentences joined, each document
translated as if it were one sentence: what a read costs after its target has ended, with the prediction after it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_eval import load_dataset, outcome
from benchmark import markdown, save

import streamllm  # noqa: F401  (loads the BLAS before mlx)
from streamllm.batching import pool
from streamllm.batching.coroutines import Task, run_all
from streamllm.batching.pool import Pool
from streamllm.data.joined import joined
from streamllm.engine import forward
from streamllm.engine import session as sessions
from streamllm.engine.head import Cut
from streamllm.engine.loop import stream, translate
from streamllm.engine.session import Session
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.records import Emission, Example, Trace

SCHEMES = {
    "k": ("k", "d"),
    "scheme": ("scheme", ""),
    "forward_passes": ("forward passes", ",d"),
    "per_target_token": ("per target token", ".2f"),
    "tokens_per_target_token": ("tokens fed per target token", ".2f"),
    "different": ("different", "d"),
}
DESIGNS = {
    "k": ("k", "d"),
    "design": ("reads", ""),
    "forward_passes": ("forward passes", ",d"),
    "fed_tokens": ("tokens fed", ",d"),
    "cpu_ms_per_sentence": ("CPU ms/sentence", ".1f"),
    "cpu_ratio": ("CPU ratio", ".2f"),
}


ENDS = {
    "k": ("k", "d"),
    "way": ("after the end of a target", ""),
    "reads": ("reads", ",d"),
    "forward_passes": ("forward passes", ",d"),
    "per_read": ("per read", ".2f"),
    "different": ("different", "d"),
}


@contextmanager
def all_logits(model: Any, rows: Any, columns: Any) -> Iterator[Cut]:
    """In the place of `streamllm.engine.head.logits_at`: nothing is cut on its way to the head."""
    yield Cut(rows, columns)


# What of `streamllm.batching.pool` makes each design: reads of more tokens than LONG_READ, or AVERAGE_READ on average,
# go before.
READS: dict[str, dict[str, Any]] = {
    "before, in a forward of their own": {"LONG_READ": 0, "AVERAGE_READ": 0},
    "with the writes, if they are short": {},
    "with the writes, all": {"LONG_READ": 10**9, "AVERAGE_READ": 10**9},
    "with the writes, if they are short; logits of all": {"logits_at": all_logits},
}


class Forgetful(Session):
    """Forgets what it has predicted whenever it is to write."""

    def write(self, tokens: tuple[int, ...] = (), bare: bool = False) -> Emission:
        if not self._output.has_more:
            self._ahead.forget()
        return super().write(tokens, bare)


def translate_alone(kind: type[Session], model: StreamingModel, examples: Sequence[Example], k: int) -> list[Trace]:
    sessions = (kind(model.session().memory, model.prompt) for _ in examples)
    return [translate(session, example, WaitK(k)) for session, example in zip(sessions, examples, strict=True)]


def translate_in(pool: Pool, model: StreamingModel, examples: Sequence[Example], k: int) -> list[Trace]:
    def task(example: Example) -> Task[Trace]:
        return lambda row, clock: translate(Session(row, model.prompt), example, WaitK(k))

    found = {trace.id: trace for trace in run_all(pool, map(task, examples))}
    return [found[example.id] for example in examples]


def compare_schemes(
    model: StreamingModel, examples: Sequence[Example], k: int, batch_size: int
) -> list[dict[str, Any]]:
    """One row for each scheme; *different* counts sentences that it writes otherwise than the first."""
    rows: list[dict[str, Any]] = []
    first: list[Trace] = []

    def add(scheme: str, found: list[Trace], of: Pool | None = None) -> None:
        first[:] = first or found
        passes, fed, written = (
            sum(trace.stats[key] for trace in found) for key in ("forward_passes", "fed_tokens", "target_tokens")
        )
        if of is not None:
            passes, fed = of.forward_passes, of.fed_tokens
        rows.append(
            {
                "k": k,
                "scheme": scheme,
                "forward_passes": passes,
                "per_target_token": passes / written,
                "tokens_per_target_token": fed / written,
                "different": sum(a.units != b.units for a, b in zip(first, found, strict=True)),
            }
        )

    add("forgetful", translate_alone(Forgetful, model, examples, k))
    add("a session", translate_alone(Session, model, examples, k))
    for size in (1, batch_size):
        rows_of = Pool(model.model, size, model.target_start)
        add(f"a pool of {size}", translate_in(rows_of, model, examples, k), rows_of)
    return rows


def compare_designs(
    model: StreamingModel, examples: Sequence[Example], k: int, batch_size: int, rounds: int
) -> list[dict[str, Any]]:
    """One row for each of `READS`; medians over the rounds."""
    usual = {name: getattr(pool, name) for name in ("LONG_READ", "AVERAGE_READ")}
    usual_cut = vars(forward)["logits_at"]
    cpu: dict[str, list[float]] = {design: [] for design in READS}
    pools: dict[str, Pool] = {}
    try:
        for _ in range(rounds):
            for design, changes in READS.items():
                vars(pool).update(usual | {name: value for name, value in changes.items() if name in usual})
                vars(forward)["logits_at"] = changes.get("logits_at", usual_cut)
                pools[design] = Pool(model.model, batch_size, model.target_start)
                cpu[design].append(seconds(lambda pool: translate_in(pool, model, examples, k), pools[design]))
    finally:
        vars(pool).update(usual)
        vars(forward)["logits_at"] = usual_cut
    medians = {design: statistics.median(values) for design, values in cpu.items()}
    return [
        {
            "k": k,
            "design": design,
            "forward_passes": pools[design].forward_passes,
            "fed_tokens": pools[design].fed_tokens,
            "cpu_ms_per_sentence": medians[design] / len(examples) * 1e3,
            "cpu_ratio": next(iter(medians.values())) / medians[design],
        }
        for design in READS
    ]


def compare_ends(model: StreamingModel, documents: Sequence[Example], k: int) -> list[dict[str, Any]]:
    """One row for each way to read on after a target has ended; *different* counts documents that come out otherwise
    than with the first."""
    usual = sessions.ENDED_READS
    rows: list[dict[str, Any]] = []
    first: list[Any] = []
    try:
        for way, after in (("each read at once", sys.maxsize), ("reads wait for the prediction", usual)):
            sessions.ENDED_READS = after
            costs = [after_the_end(model, document, k) for document in documents]
            found = [result[:3] for result in map(outcome, translate_alone(Session, model, documents, k))]
            first = first or found
            reads, passes = (sum(cost[i] for cost in costs) for i in range(2))
            rows.append(
                {
                    "k": k,
                    "way": way,
                    "reads": reads,
                    "forward_passes": passes,
                    "per_read": passes / max(1, reads),
                    "different": sum(a != b for a, b in zip(first, found, strict=True)),
                }
            )
    finally:
        sessions.ENDED_READS = usual
    return rows


def after_the_end(model: StreamingModel, document: Example, k: int) -> tuple[int, int]:
    """Reads after the last unit was written, and the forward passes since."""
    session = Session(model.session().memory, model.prompt)
    reads = passes = 0
    for event, _ in stream(session, document.source.split(), WaitK(k).start(document)):
        if event.kind in ("write", "extend"):
            reads, passes = 0, session.forward_passes
        reads += event.kind in ("read", "forced_read")
    return reads, session.forward_passes - passes


def seconds(do: Callable[[Pool], Any], pool: Pool) -> float:
    started = time.process_time()
    do(pool)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="bundled:tiny-en-de", help="as model.path of run.py")
    parser.add_argument("--data-dir", type=Path, help="folder of Multi30k; without it, the bundled sample")
    parser.add_argument("--limit", type=int, default=180, help="sentences")
    parser.add_argument("--k", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="of the second table; 0 leaves it out")
    parser.add_argument("--join", type=int, default=20, help="sentences a document of the third table; 0 leaves it out")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    dataset = load_dataset(args.data_dir, args.limit)
    examples = dataset.load()
    model = ModelConfig(args.model).load(source_unit=dataset.source_unit, target_unit=dataset.target_unit)
    rows = [row for k in args.k for row in compare_schemes(model, examples, k, args.batch_size)]
    print(markdown(rows, SCHEMES), flush=True)
    designs: list[dict[str, Any]] = []
    if args.rounds:
        translate_in(Pool(model.model, 2, model.target_start), model, examples[:2], 3)  # warm
        designs = [row for k in args.k for row in compare_designs(model, examples, k, args.batch_size, args.rounds)]
        print(f"\n{markdown(designs, DESIGNS)}")
    ends: list[dict[str, Any]] = []
    if args.join:
        documents = [*joined(examples, args.join, "joined", dataset.source_unit, dataset.target_unit)]
        ends = [row for k in args.k for row in compare_ends(model, documents, k)]
        print(f"\n{markdown(ends, ENDS)}")
    save(args.json, {"model": args.model, "sentences": len(examples)}, rows=rows, designs=designs, ends=ends)


if __name__ == "__main__":
    main()
