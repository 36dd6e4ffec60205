"""Streams of many sentences: does a long one drift, does it cost the same for ever, what do batches gain.

    python scripts/bench_documents.py drift --data-dir FOLDER [--split val] [--words 10000] [--paradigm sentences …]
    python scripts/bench_documents.py endless --data-dir FOLDER [--words 100000] [--paradigm sentences]
    python scripts/bench_documents.py batch --data-dir FOLDER [--split val] [--documents 50] [--sentences 20]

All take --model (bundled:tiny-en-de) and --k (3) for wait-k. FOLDER has Multi30k's plain files.

*drift* translates one stream of so many words, and the same sentences one by one. Of each half: BLEU after
re-segmentation, and its quotient by that of the sentences alone, which measure how hard the text is; LAAL. The interval
of quotient of quotients is a percentile bootstrap over sentences.

*endless* reads the training side as one stream, and prints CPU time a word, keys and values held and the peak of the
process, a line for each tenth of the words; at last, what its last tenth costs over the same words in a new stream,
both in turns.

*batch* translates documents one by one and in a batch, both by CPU and by wall time.
"""

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import streamllm  # noqa: F401  (loads the BLAS before mlx)

import numpy as np  # isort: skip

from streamllm.batching.row import Row
from streamllm.batching.scheduler import translate_many
from streamllm.batching.sizes import default_batch_size
from streamllm.batching.trial import batching
from streamllm.data.joined import document, joined
from streamllm.data.text import read_parallel
from streamllm.engine.loop import stream_document
from streamllm.engine.paradigms.documents import Continuous, Sentences
from streamllm.metrics.latency import latency
from streamllm.metrics.longform import Sentence, resegment, sentence_latency
from streamllm.metrics.longform import document as scored
from streamllm.metrics.quality import quality
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.records import Example, Trace
from streamllm.runs.sums import SEED, bleu_of_sums, bleu_scorer, bleu_statistics, percentiles, resample

PARADIGMS = {"sentences": Sentences, "continuous": Continuous}
DRAWS = 1000
TURN = 250


def sentences_of(given: argparse.Namespace, split: str) -> list[Example]:
    folder = given.data_dir
    ending = ".gz" if (folder / f"{split}.en.gz").exists() else ""
    return read_parallel(folder / f"{split}.en{ending}", folder / f"{split}.de{ending}", name=split)


def loaded(given: argparse.Namespace, paradigm: str | None) -> StreamingModel:
    return ModelConfig(given.model).load(paradigm=PARADIGMS[paradigm]() if paradigm else None)


def until(examples: Sequence[Example], words: int) -> list[Example]:
    """The first sentences that have so many words together, or all."""
    total = list(itertools.accumulate(len(example.source.split()) for example in examples))
    return list(examples[: 1 + sum(n < words for n in total)])


# --- drift


def drift(given: argparse.Namespace) -> None:
    examples = until(sentences_of(given, given.split), given.words)
    words = sum(len(example.source.split()) for example in examples)
    print(f"{given.split}: {len(examples)} sentences, {words} words; wait-{given.k}\n")
    alone = {
        trace.id: trace for trace in translate_many(loaded(given, None), examples, WaitK(given.k), batch_size=None)
    }
    one_by_one = [alone[example.id] for example in examples]
    whole = document("stream", [(example.source, example.reference) for example in examples], "word", "word")
    print("| paradigm | half | BLEU | of the sentences alone | quotient | LAAL | alone | forwards a target token |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for paradigm in given.paradigm:
        (trace,) = translate_many(loaded(given, paradigm), [whole], WaitK(given.k))
        found = resegment([scored(trace, "word")], "de", "word")
        passes = trace.stats["forward_passes"] / trace.stats["target_tokens"]
        middle = len(examples) // 2
        for name, half in (("first", slice(0, middle)), ("last", slice(middle, None))):
            ours, theirs = bleu(found[half]), bleu_alone(one_by_one[half])
            row = (ours, theirs, ours / theirs, laal(found[half]), laal_alone(one_by_one[half]), passes)
            print(f"| {paradigm} | {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
        low, high, at = interval(found, one_by_one)
        print(f"\n{paradigm}: quotient of the last half over that of the first {at:.3f} [{low:.3f}, {high:.3f}]\n")


def bleu(found: Sequence[Sentence]) -> float:
    return float(quality([one.prediction for one in found], [one.reference for one in found], "de")["bleu"])


def bleu_alone(traces: Sequence[Trace]) -> float:
    return float(quality([one.prediction for one in traces], [one.reference for one in traces], "de")["bleu"])


def laal(found: Sequence[Sentence]) -> float:
    return float(np.nanmean([sentence_latency(one, "word")["long_laal"] for one in found]))


def laal_alone(traces: Sequence[Trace]) -> float:
    return float(np.nanmean([latency(one.delays, one.source_units, one.reference, "word")["laal"] for one in traces]))


def interval(found: Sequence[Sentence], alone: Sequence[Trace]) -> tuple[float, float, float]:
    """2.5 and 97.5 percent of the quotient of both halves' quotients of BLEU, and its value. Sentences are drawn with
    replacement within each half, the same of both systems."""
    scorer = bleu_scorer("de", None)
    statistics = [bleu_statistics(system, "de", None).astype(np.float64) for system in (found, alone)]
    middle = len(found) // 2
    quotients = []
    for half in (slice(0, middle), slice(middle, None)):
        ours, theirs = (values[half] for values in statistics)
        counts = np.concatenate([np.ones((1, len(ours))), resample(len(ours), DRAWS, SEED)])
        quotients.append(bleu_of_sums(counts @ ours, scorer) / bleu_of_sums(counts @ theirs, scorer))
    value, *drawn = quotients[1] / quotients[0]
    return *percentiles(np.array(drawn)), float(value)


# --- without end


def endless(given: argparse.Namespace) -> None:
    words = [word for example in sentences_of(given, "train") for word in example.source.split()]
    for paradigm in given.paradigm:
        model = loaded(given, paradigm)
        pool = batching(model).pool(model, 2)
        source = list(itertools.islice(itertools.cycle(words), given.words))
        every = max(1, given.words // 10)
        print(f"{paradigm}, wait-{given.k}\n")
        print("| words | CPU ms a word | held source tokens | held target tokens | keys and values, MB | peak, MB |")
        print("| --- | --- | --- | --- | --- | --- |")
        row = pool.open()
        old = steps(model, row, source, given.k)
        for tenth in range(1, 10):
            spent = cpu(old, every)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
            tokens = f"{row.source_held} | {row.target_offset}"
            print(
                f"| {tenth * every} | {spent / every * 1e3:.3f} | {tokens} | {pool.nbytes / 1e6:.2f} | {peak:.0f} |",
                flush=True,
            )
        # The last tenth, in turns with a stream that begins with the same words.
        new = steps(model, pool.open(), source[9 * every :], given.k)
        turns = [(cpu(old, TURN), cpu(new, TURN)) for _ in range(every // TURN)]
        by_old, by_new = (sum(one) for one in zip(*turns, strict=True))
        print(f"\nthe last tenth over the same words in a new stream: {by_old / by_new:.3f}\n", flush=True)


def steps(model: StreamingModel, row: Row, source: Sequence[str], k: int) -> Iterator[None]:
    """One for each word that is read, with what is written before the next."""
    assert model.living_on is not None
    events = stream_document(model.session(memory=row), source, WaitK(k), Example("", "", ""), model.living_on)
    return (None for event, _ in events if event.kind in ("read", "forced_read"))


def cpu(words: Iterator[None], n: int) -> float:
    """CPU seconds of the next ``n``."""
    started = time.process_time()
    for _ in itertools.islice(words, n):
        pass
    return time.process_time() - started


# --- batches


def batch(given: argparse.Namespace) -> None:
    examples = list(joined(sentences_of(given, given.split), given.sentences, given.split, "word", "word"))
    examples = examples[: given.documents]
    print(f"{len(examples)} documents of {given.sentences} sentences, wait-{given.k}\n")
    print("| paradigm | batch | documents/s | CPU s | times as fast | times the CPU time | other outputs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for paradigm in given.paradigm:
        model = loaded(given, paradigm)
        list(translate_many(model, examples[:2], WaitK(given.k), batch_size=2))  # what is made once
        first: tuple[float, float, dict[str, Trace]] | None = None
        for size in (1, default_batch_size()):
            wall, cpu = time.perf_counter(), time.process_time()
            found = {trace.id: trace for trace in translate_many(model, examples, WaitK(given.k), batch_size=size)}
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            first = first or (wall, cpu, found)
            others = sum(found[name].prediction != trace.prediction for name, trace in first[2].items())
            row = f"{len(examples) / wall:.2f} | {cpu:.1f} | {first[0] / wall:.2f} | {cpu / first[1]:.3f} | {others}"
            print(f"| {paradigm} | {size} | {row} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["drift", "endless", "batch"])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="bundled:tiny-en-de")
    parser.add_argument("--paradigm", nargs="+", choices=PARADIGMS, default=["sentences", "continuous"])
    parser.add_argument("--k", type=int, default=3)
    parser.add_argument("--words", type=int)
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--sentences", type=int, default=20)
    given = parser.parse_args()
    given.words = given.words or {"drift": 10_000, "endless": 100_000, "batch": 0}[given.what]
    {"drift": drift, "endless": endless, "batch": batch}[given.what](given)


if __name__ == "__main__":
    main()
