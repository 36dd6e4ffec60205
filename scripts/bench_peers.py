"""What a sentence costs here, and with CTranslate2, SimulEval with transformers, and mlx-lm, all with the same weights.

    pip install -e '.[peers]'
    python scripts/bench_peers.py --data-dir FOLDER [--sentences 1000] [--batch-sizes 1 32 128] [--json FILE]

All sides take turns, each in a process of its own, after a run that does not count; printed are medians. SimulEval is
installed into a folder of its own (``--simuleval FOLDER`` keeps it), since it wants an older tqdm.

How it is measured. Ours and SimulEval: whole runs, the time of all sentences less that of a few (``--few``), so that
the start is left out and scores and files are not. CTranslate2 and mlx-lm: their loop, without loading or text.

- **streamllm**: ``run.py`` with ``policy=full``, ``waitk k=3`` and ``alignatt policy.f=2``.
- **CTranslate2**: the bundled Qwen2, converted here, in float32 and int8. It gets the tokens of the whole source as
  `full` feeds them and writes as many tokens as `full` predicts, the end token included (a callback ends each sentence,
  the end token ends nothing). Sentences go in batches of similar length, as CTranslate2 sorts them by itself.
- **mlx-lm**: `BatchGenerator` with the same prompts and numbers of tokens, with our BLAS (MLX's own is slower).
- **SimulEval**: a wait-3 agent on transformers, sentence by sentence. As agents commonly do, it encodes the source so
  far and the target so far anew for each word, and keeps a cache within a word only; once the source has ended, it
  writes the rest in one go. It gives each stream its positions. In most sentences it writes what our wait-3 writes; not
  in all, since its earlier target tokens, encoded anew, see source words that ours had not read when it fed them.

What is equal: weights, source tokens, numbers of predicted tokens, and so what must be multiplied for `full`, by
CTranslate2 and by mlx-lm. What is not: an ordinary decoder counts target positions on from the source, and the model
was trained to count them from 0, so these two write other words; that the conversion is right is seen from both writing
the same. CTranslate2 feeds the prompts of a batch at once and without logits up to the length of the shortest, and the
rest token by token with logits (`DecoderReplica::run_generation`). Ours leaves out most of the last layer for what is
read. Wait-3 and AlignAtt do more than `full`: they feed tokens again after reads. Ours and SimulEval also divide text,
follow a policy, score, and write files.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from inspect import signature
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

from bench_start import ROOT, measure_run
from benchmark import markdown, save

MODEL = ROOT / "streamllm" / "models" / "assets" / "tiny-en-de"
OURS = {
    "streamllm full": ["policy=full"],
    "streamllm wait-3": ["policy=waitk", "k=3"],
    "streamllm AlignAtt f=2": ["policy=alignatt", "policy.f=2"],
}
CTRANSLATE2 = {f"CTranslate2 {kind}": kind for kind in ("float32", "int8")}
MLX_LM, SIMULEVAL = "mlx-lm BatchGenerator", "SimulEval wait-3"
SIDES = [*OURS, *CTRANSLATE2, MLX_LM, SIMULEVAL]
BASE = "CTranslate2 float32"
PINNED = "simuleval==1.1.4"
K = 3  # of SimulEval's agent
LONGEST = 256  # tokens that the agent writes at most
COLUMNS = {
    "side": ("", ""),
    "batch_size": ("batch size", "d"),
    "sentences": ("sentences", ",d"),
    "sentences_per_second": ("sentences/s", ".1f"),
    "cpu_ms": ("CPU ms/sentence", ".2f"),
    "wall_ms": ("wall ms/sentence", ".2f"),
    "ratio": (f"CPU, in those of {BASE}", ".2f"),
}


@dataclass(frozen=True)
class Work:
    """What all sides do.

    Args:
        prompts: for each sentence, the tokens before the first that is written.
        lengths: how many tokens are predicted for it, the end token included.
        sources, references: the texts.
        source_header, source_footer, target_header: tokens around the words.
        end_tokens: what ends a sentence.
    """

    prompts: list[list[int]]
    lengths: list[int]
    sources: list[str]
    references: list[str]
    source_header: list[int]
    source_footer: list[int]
    target_header: list[int]
    end_tokens: list[int]

    def first(self, n: int) -> "Work":
        """Of the first n sentences."""
        each = {name: getattr(self, name)[:n] for name in ("prompts", "lengths", "sources", "references")}
        return Work(**asdict(self) | each)


@dataclass
class Times:
    """Of one side, round by round, in seconds for ``sentences`` sentences; and what it wrote last."""

    sentences: int
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    written: list[Any] = field(default_factory=list)


# The sides


def of_run(overrides: Sequence[str], data: Sequence[str], sentences: int) -> tuple[float, float, list[dict[str, Any]]]:
    """Wall and CPU time of a whole run of run.py, and the lines of its predictions."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [*overrides, *data, f"dataset.limit={sentences}", "tracker=none"]
        wall, cpu = measure_run([sys.executable, str(ROOT / "run.py")], keys, folder)
        (predictions,) = Path(folder).glob("*/predictions.jsonl")
        lines = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    return wall, cpu, sorted(lines, key=lambda line: str(line["id"]))


def convert(model: Path, to: Path) -> None:
    """Write a Qwen2 of Hugging Face's layout as CTranslate2 has it; its tokens are called by their numbers."""
    import numpy as np
    from ctranslate2.specs import common_spec, transformer_spec
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    weights = {name: value.astype(np.float32) for name, value in load_file(model / "model.safetensors").items()}
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        config["num_hidden_layers"],
        heads,
        activation=common_spec.Activation.SWISH,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,  # all
        rotary_interleave=False,
        rotary_base=config["rope_theta"],
        num_heads_kv=None if shared == heads else shared,
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = weights["model.embed_tokens.weight"]
    decoder.layer_norm.gamma = weights["model.norm.weight"]
    for number, layer in enumerate(decoder.layer):

        def of(name: str, prefix: str = f"model.layers.{number}") -> Any:
            return weights[f"{prefix}.{name}"]

        attention, feed_forward = layer.self_attention, layer.ffn
        attention.layer_norm.gamma = of("input_layernorm.weight")
        for kind in ("weight", "bias"):
            joined = np.concatenate([of(f"self_attn.{name}_proj.{kind}") for name in "qkv"])
            setattr(attention.linear[0], kind, joined)
        attention.linear[1].weight = of("self_attn.o_proj.weight")
        feed_forward.layer_norm.gamma = of("post_attention_layernorm.weight")
        feed_forward.linear_0.weight = of("mlp.gate_proj.weight")
        feed_forward.linear_0_noact.weight = of("mlp.up_proj.weight")
        feed_forward.linear_1.weight = of("mlp.down_proj.weight")
    spec.register_vocabulary([str(token) for token in range(config["vocab_size"])])
    spec.config.layer_norm_epsilon = config["rms_norm_eps"]
    spec.config.unk_token = spec.config.bos_token = spec.config.eos_token = str(config["eos_token_id"])
    to.mkdir(parents=True)
    spec.validate()
    spec.save(str(to))


def in_ctranslate2(work: Work, kind: str, batch_size: int, threads: int) -> tuple[float, float, list[list[int]]]:
    """Wall and CPU time of writing all sentences, and the tokens. Threads share a batch."""
    import ctranslate2

    replicas = min(threads, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        convert(MODEL, Path(folder, "model"))
        settings: dict[str, Any] = {"compute_type": kind, "inter_threads": replicas, "intra_threads": 1}
        generator = ctranslate2.Generator(str(Path(folder, "model")), **settings)
    prompts = [[str(token) for token in prompt] for prompt in work.prompts]

    def write(sentences: int) -> list[list[int]]:
        left = list(work.lengths[:sentences])

        def ended(step: Any) -> bool:
            left[step.batch_id] -= 1
            return bool(left[step.batch_id] <= 0)

        longest = max(work.lengths) + max(map(len, prompts))  # constrained tokens of prompts count
        results = generator.generate_batch(
            prompts[:sentences],
            max_batch_size=batch_size // replicas,
            include_prompt_in_result=False,
            end_token=str(work.source_header[0]),  # so that the usual one ends nothing, as with mlx-lm
            min_length=longest,
            max_length=longest,
            callback=ended,
        )
        return [list(result.sequences_ids[0]) for result in results]

    write(2)  # warm
    started, used = time.perf_counter(), time.process_time()
    written = write(len(prompts))
    return time.perf_counter() - started, time.process_time() - used, written


def in_mlx_lm(work: Work, batch_size: int) -> tuple[float, float, list[list[int]]]:
    """Likewise, by mlx-lm's `BatchGenerator`, which has one thread."""
    import streamllm  # noqa: F401  (loads the BLAS before mlx)

    from mlx_lm.generate import BatchGenerator  # isort: skip

    from streamllm.models.loading import ModelConfig

    model = ModelConfig("bundled:tiny-en-de").load().model  # in float32

    def write(sentences: int) -> list[list[int]]:
        sizes = {"completion_batch_size": batch_size, "prefill_batch_size": batch_size}
        generator = BatchGenerator(model, **sizes)
        numbers = generator.insert(work.prompts[:sentences], max_tokens=work.lengths[:sentences])
        written: dict[int, list[int]] = {number: [] for number in numbers}
        while responses := generator.next_generated():
            for response in responses:
                written[response.uid].append(int(response.token))
        return list(written.values())

    write(2)
    started, used = time.perf_counter(), time.process_time()
    written = write(len(work.prompts))
    return time.perf_counter() - started, time.process_time() - used, written


def wait_k_agent(work: Work, model: Path, k: int) -> type:
    """A class of agents for SimulEval."""
    import torch
    from simuleval.agents import TextToTextAgent
    from simuleval.agents.actions import ReadAction, WriteAction
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    class WaitK(TextToTextAgent):  # type: ignore[misc]
        def __init__(self, args: Any = None):
            super().__init__(args)
            self.tokenizer = AutoTokenizer.from_pretrained(model)
            self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
            # The newer name of the argument; where there are both, the older one warns.
            parameters = signature(self.model.forward).parameters
            self.cache_name = "cache" if "cache" in parameters else "past_key_values"

        def reset(self) -> None:
            super().reset()
            self.target, self.written, self.wants_more = list(work.target_header), 0, False

        def policy(self) -> Any:
            words, finished = self.states.source, self.states.source_finished
            waits = self.wants_more or len(words) - self.written < k
            if waits and not finished:
                self.wants_more = False
                return ReadAction()
            source = list(work.source_header)
            for word in words:
                source += self.tokenizer.encode(" " + word, add_special_tokens=False)
            if waits:  # the policy has asked for more than there is
                tokens, _ = self.continuation([*source, *work.source_footer], to_end=True)
                return WriteAction(self.tokenizer.decode(tokens).strip(), finished=True)
            tokens, ended = self.continuation(source, to_end=False)
            if not tokens or (ended and not finished):
                self.wants_more = True
            if not tokens:
                return ReadAction()
            self.target += tokens
            self.written += 1
            return WriteAction(self.tokenizer.decode(tokens).strip(), finished=False)

        def continuation(self, source: list[int], to_end: bool) -> tuple[list[int], bool]:
            """Tokens of the next word, or of all words, and whether the end token follows."""
            fed, new = [*source, *self.target], list[int]()
            cache = {self.cache_name: DynamicCache(config=self.model.config)}
            positions = [*range(len(source)), *range(len(self.target))]  # each stream has its own
            length = len(fed)
            while True:
                with torch.inference_mode():
                    out = self.model(
                        input_ids=torch.tensor([fed]),
                        position_ids=torch.tensor([positions]),
                        attention_mask=torch.ones(1, length, dtype=torch.long),  # else new positions begin a new text
                        logits_to_keep=1,
                        **cache,
                    )
                token = int(out.logits[0, -1].argmax())
                if token in work.end_tokens or len(self.target) + len(new) == LONGEST:
                    return new, True
                if new and not to_end and self.tokenizer.convert_ids_to_tokens(token)[0] in "Ġ▁":
                    return new, False
                fed, positions = [token], [len(self.target) + len(new)]
                new.append(token)
                length += 1

    return WaitK


def in_simuleval(work: Work, output: Path) -> None:
    """Evaluate the agent with SimulEval, which writes its results to ``output``."""
    import torch
    from simuleval.cli import evaluate

    torch.set_num_threads(1)  # of so small a model, more take longer
    output.mkdir(parents=True)
    for name, texts in (("source", work.sources), ("target", work.references)):
        (output / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    files = {"source": str(output / "source"), "target": str(output / "target"), "output": str(output / "scores")}
    sys.argv[1:] = []  # SimulEval reads them
    evaluate(wait_k_agent(work, MODEL, K), files | {"source_type": "text", "target_type": "text"})


# Measuring


def child(*arguments: str | Path) -> tuple[float, float]:
    """This script, as one side: seconds of wall and of CPU time of the whole process.

    Raises:
        SystemExit: it failed.
    """
    before, started = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    wall, after = time.perf_counter() - started, getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Bench:
    """Measures sides in turn.

    Args:
        work: of all sentences.
        data: keys of run.py that choose the data set.
        few: sentences whose time is taken off whole runs.
        threads: of each side, where it can have several.
        folder: for files of the sides.
    """

    def __init__(self, work: Work, data: Sequence[str], few: int, threads: int, folder: Path):
        self._work, self._data, self._few, self._threads, self._folder = work, data, few, threads, folder
        self._count = 0

    def take(self, side: str, batch_size: int, sentences: int, times: Times) -> None:
        """One round of one side.

        Raises:
            SystemExit: its process failed, or it wrote another number of tokens than it should.
        """
        if side in OURS:
            wall, cpu, times.written = self._whole(side, batch_size, sentences)
        elif side == SIMULEVAL:
            wall, cpu, times.written = self._simuleval(sentences)
        else:
            wall, cpu, times.written = self._loop(side, batch_size, sentences)
            lengths = [len(tokens) for tokens in times.written]
            if lengths != self._work.lengths[:sentences]:
                raise SystemExit(f"{side} wrote {sum(lengths)} tokens, not {sum(self._work.lengths[:sentences])}")
        times.wall.append(wall)
        times.cpu.append(cpu)

    def _whole(self, side: str, batch_size: int, sentences: int) -> tuple[float, float, list[str]]:
        keys = [*OURS[side], f"batch_size={batch_size}"]
        wall, cpu, lines = of_run(keys, self._data, sentences)
        start, start_cpu, _ = of_run(keys, self._data, self._few)
        return wall - start, cpu - start_cpu, [line["prediction"] for line in lines]

    def _simuleval(self, sentences: int) -> tuple[float, float, list[str]]:
        outputs = [self._new_folder(), self._new_folder()]
        found = [
            child("--side", SIMULEVAL, "--work", self._saved(n), "--output", output)
            for n, output in zip((sentences, self._few), outputs, strict=True)
        ]
        rows = (outputs[0] / "scores" / "instances.log").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(row)["prediction"] for row in rows]
        return found[0][0] - found[1][0], found[0][1] - found[1][1], texts

    def _loop(self, side: str, batch_size: int, sentences: int) -> tuple[float, float, list[list[int]]]:
        output = self._new_folder()
        settings = ["--batch-sizes", str(batch_size), "--threads", str(self._threads)]
        child("--side", side, "--work", self._saved(sentences), "--output", output, *settings)
        wall, cpu, written = json.loads(output.read_text())
        return wall, cpu, written

    def _saved(self, sentences: int) -> Path:
        path = self._folder / f"work-{sentences}.json"
        path.write_text(json.dumps(asdict(self._work.first(sentences))), encoding="utf-8")
        return path

    def _new_folder(self) -> Path:
        self._count += 1
        return self._folder / str(self._count)


def work_of(lines: Sequence[Mapping[str, Any]]) -> Work:
    """What `full` has done, from the lines of its predictions."""
    import streamllm  # noqa: F401  (loads the BLAS before mlx)
    from streamllm.models.loading import ModelConfig

    prompt = ModelConfig("bundled:tiny-en-de").load().prompt
    prompts = []
    for line in lines:
        words = [event["text"] for event in line["events"] if event["kind"] == "read"]
        source = [token for i, word in enumerate(words) for token in prompt.source_tokens(word, first=i == 0)]
        prompts.append([*prompt.source_header, *source, *prompt.source_footer, *prompt.target_header])
    return Work(
        prompts=prompts,
        lengths=[line["stats"]["target_tokens"] + 1 for line in lines],
        sources=[line["source"] for line in lines],
        references=[line["reference"] for line in lines],
        source_header=prompt.source_header,
        source_footer=prompt.source_footer,
        target_header=prompt.target_header,
        end_tokens=sorted(prompt.end_tokens),
    )


def rows(found: Mapping[tuple[str, int], Times]) -> list[dict[str, Any]]:
    """A row for each side and batch size: medians over rounds."""
    table = []
    for (side, batch_size), times in found.items():
        wall, cpu = statistics.median(times.wall), statistics.median(times.cpu)
        row: dict[str, Any] = {
            "side": side,
            "batch_size": batch_size,
            "sentences": times.sentences,
            "cpu_ms": 1e3 * cpu / times.sentences,
        }
        if wall > 0:  # else other work on the machine has eaten up the difference of two runs
            row |= {"sentences_per_second": times.sentences / wall, "wall_ms": 1e3 * wall / times.sentences}
        if base := found.get((BASE, batch_size)):
            row["ratio"] = row["cpu_ms"] / (1e3 * statistics.median(base.cpu) / base.sentences)
        table.append(row)
    return table


def agreements(found: Mapping[tuple[str, int], Times]) -> list[str]:
    """Who writes the same as whom, in sentences; what there is of each pair."""
    said = []
    for one, other in ((BASE, MLX_LM), ("CTranslate2 int8", BASE), (SIMULEVAL, "streamllm wait-3")):
        pair = [
            next((times.written for (side, _), times in found.items() if side == name), []) for name in (one, other)
        ]
        n = min(map(len, pair))
        if n:
            same = sum(a == b for a, b in zip(*pair, strict=False))
            said.append(f"{one} writes the same as {other} in {same} of {n} sentences.")
    return said


@contextlib.contextmanager
def simuleval_in(folder: Path) -> Iterator[None]:
    """SimulEval is on the path of Python processes that are started inside."""
    if not (folder / "simuleval").exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "--target", str(folder), PINNED], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cannot install {PINNED}:\n{done.stderr}")
    before = os.environ.get("PYTHONPATH")
    # Last, so that nothing of ours is hidden.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(folder)]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def as_side(args: argparse.Namespace) -> None:
    """What a child does."""
    work = Work(**json.loads(args.work.read_text(encoding="utf-8")))
    (batch_size,) = args.batch_sizes[:1]
    if args.side == SIMULEVAL:
        in_simuleval(work, args.output)
        return
    found = (
        in_mlx_lm(work, batch_size)
        if args.side == MLX_LM
        else in_ctranslate2(work, CTRANSLATE2[args.side], batch_size, args.threads)
    )
    args.output.write_text(json.dumps(found))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of Multi30k; without it, the bundled sample of 180")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--one-by-one", type=int, default=100, help="sentences at batch size 1 and with SimulEval")
    parser.add_argument("--few", type=int, default=10, help="sentences of the runs whose time is taken off")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE", help="; ".join(SIDES))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each side; fewer than all: 1 for ours")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--simuleval", type=Path, help=f"folder to install {PINNED} in, or where it is")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    for hidden, kind in (("--side", str), ("--work", Path), ("--output", Path)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if not 0 < args.few < min(args.sentences, args.one_by_one):
        parser.error("--few must be positive and less than --sentences and --one-by-one")
    if min(args.batch_sizes) < 1 or args.threads < 1 or args.rounds < 1:
        parser.error("--batch-sizes, --threads and --rounds must be positive")
    return args


def turns(
    sides: Sequence[str], batch_sizes: Sequence[int], sentences: int, one_by_one: int
) -> dict[tuple[str, int], int]:
    """Who is measured with which batch size on how many sentences, in the order in which they take turns."""
    found = {}
    for size in batch_sizes:
        for side in sides:
            if side != SIMULEVAL or size == 1:
                found[side, size] = min(sentences, one_by_one) if size == 1 else sentences
    return found


def check_imports(sides: Sequence[str]) -> None:
    """Raises: SystemExit: a side needs what is not installed."""
    from importlib.util import find_spec

    wanted = {"ctranslate2": set(CTRANSLATE2), "torch": {SIMULEVAL}, "textgrid": {SIMULEVAL}, "tornado": {SIMULEVAL}}
    missing = [name for name, users in wanted.items() if users & set(sides) and find_spec(name) is None]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; pip install -e '.[peers]', or choose other --sides")


def main() -> None:
    args = parse()
    if args.side is not None:
        as_side(args)
        return
    check_imports(args.sides)
    if args.threads < (os.cpu_count() or 1):
        os.environ["STREAMLLM_THREADS"] = "1"
    data = [] if args.data_dir is None else ["dataset=multi30k", f"dataset.data_dir={args.data_dir.resolve()}"]
    *_, lines = of_run(OURS["streamllm full"], data, args.sentences)  # also warms the files
    work = work_of(lines)
    found: dict[tuple[str, int], Times] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        if SIMULEVAL in args.sides:
            stack.enter_context(simuleval_in(args.simuleval or Path(scratch, "simuleval")))
        bench = Bench(work, data, args.few, args.threads, Path(scratch))
        for number in range(args.rounds):
            for (side, size), n in turns(args.sides, args.batch_sizes, len(lines), args.one_by_one).items():
                times = found.setdefault((side, size), Times(n))
                bench.take(side, size, n, times)
                cost = 1e3 * times.cpu[-1] / n
                print(f"round {number + 1}, {side}, batch size {size}: {cost:.2f} CPU ms/sentence", file=sys.stderr)
    tokens = sum(work.lengths) / len(work.lengths)
    print(f"{len(lines)} sentences, {tokens:.1f} predicted tokens each\n\n{markdown(rows(found), COLUMNS)}\n")
    print("\n".join(agreements(found)))
    about = {"sentences": len(lines), "few": args.few, "threads": args.threads, "rounds": args.rounds}
    save(args.json, about | {"versions": versions()}, rows=rows(found), agreements=agreements(found))


def versions() -> dict[str, str]:
    """Of the others."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"simuleval": re.sub(".*==", "", PINNED)}
    for name in ("ctranslate2", "torch", "transformers", "mlx-lm"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


if __name__ == "__main__":
    main()
