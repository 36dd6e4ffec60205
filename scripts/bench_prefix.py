"""What a prompt costs: sentences a second with a prompt and without, here and in another checkout.

    git worktree add ../before 23cac79
    python scripts/bench_prefix.py --other ../before --model FOLDER [--tokens 200] [--policies waitk full]
        [--data-dir FOLDER] [--limit 100] [--batch-size 64] [--rounds 3] [--json FILE]

The prompt is examples of translations, taken from the end of the data, until its source header has so many tokens; with
``--tokens 0`` those of conf/prompt/few-shot-en-de.yaml. Without it, only the names of the languages stand before the
streams. All take turns, each checkout in a process of its own that stays, and CPU time is that of the loop alone. So
that all do the same work, with the prompt or without, each token that is predicted is taken to be the reference's,
whatever the model says.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench_eval import load_dataset
from benchmark import markdown, save

import streamllm  # noqa: F401  (loads the BLAS before mlx)
from streamllm import policies
from streamllm.batching.scheduler import translate_many
from streamllm.engine.limits import Limits
from streamllm.engine.paradigms.memory import Memory
from streamllm.engine.sampling import Sampling
from streamllm.engine.session import Session
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.prompt import Prompt, PromptTokens
from streamllm.records import Example, Policy

ROOT = Path(__file__).resolve().parent.parent
POLICIES: dict[str, Policy] = {"waitk": policies.WaitK(3), "full": policies.Full()}
COLUMNS = {
    "policy": ("policy", ""),
    "side": ("", ""),
    "header": ("header, tokens", "d"),
    "cpu_ms_per_sentence": ("CPU ms/sentence", ".1f"),
    "written": ("target tokens", "d"),
    "ratio": ("ratio", ".2f"),
}
ASKED = {"source_header": "English:", "target_header": "\nGerman:", "leading_space": True, "stop": "\n"}


class Given(Sampling):
    """Picks the tokens of a reference, and then the end token."""

    def __init__(self, tokens: list[int], end: int):
        super().__init__(0, 1.0, 1.0)
        self._given = [*tokens, end]

    def draw(self, logits: Any, reads: int, written: int) -> int:
        return self._given[min(written, len(self._given) - 1)]


class Dictated(StreamingModel):
    """Writes the references of these examples."""

    references: Mapping[str, str]

    def session(self, seed: int = 0, name: str = "", memory: Memory | None = None) -> Session:
        prompt = self.prompt
        tokens = prompt.encode(prompt.spaced(self.references[name], True, "word"))
        return Session(super().session(seed, name, memory).memory, prompt, Given(tokens, min(prompt.end_tokens)))


def prompts(tokenizer: Any, examples: list[Example], tokens: int) -> dict[str, Prompt]:
    """With examples and without."""
    bare = Prompt(**ASKED)  # type: ignore[arg-type]
    if not tokens:
        import yaml

        few_shot = yaml.safe_load((ROOT / "conf/prompt/few-shot-en-de.yaml").read_text())
        return {"with": Prompt(**{key: value for key, value in few_shot.items() if key != "_target_"}), "without": bare}
    header, shown = "English:", iter(reversed(examples))
    while len(PromptTokens(Prompt(**{**ASKED, "source_header": header}), tokenizer).source_header) < tokens:  # type: ignore[arg-type]
        example = next(shown)
        header = f"English: {example.source}\nGerman: {example.reference}\n\n{header}"
    return {"with": Prompt(**{**ASKED, "source_header": header}), "without": bare}  # type: ignore[arg-type]


def serve(args: argparse.Namespace) -> None:
    """Translate as often as a line of the input says how; answer with a line each."""
    base = ModelConfig(args.model).load(Prompt(**ASKED))  # type: ignore[arg-type]
    examples = load_dataset(args.data_dir, 100_000).load()
    models = {}
    for name, prompt in prompts(base.tokenizer, examples, args.tokens).items():
        tokens = PromptTokens(prompt, base.tokenizer)
        models[name] = Dictated(base.model, tokens, base.tokenizer, base.target_start)
        models[name].references = {example.id: example.reference for example in examples}
        list(translate_many(models[name], examples[:2], POLICIES["full"], Limits(), 2))  # warm, with the header fed
    for line in sys.stdin:
        policy, name = line.split()
        model, some = models[name], examples[: args.limit]
        started = time.process_time()
        traces = list(translate_many(model, some, POLICIES[policy], Limits(), args.batch_size))
        seconds = time.process_time() - started
        written = sum(trace.stats["target_tokens"] for trace in traces)
        outputs = sorted((trace.id, trace.prediction, trace.delays) for trace in traces)
        header = len(model.prompt.source_header)
        print(json.dumps([seconds, written, header, outputs]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--model", default="bundled:tiny-en-de", help="as model.path")
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=["waitk"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="keep the rows there")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args)
        return
    sides = {"here": ROOT, **({"there": args.other.resolve()} if args.other else {})}
    children = {
        side: subprocess.Popen(
            [sys.executable, __file__, "--serve", *sys.argv[1:]],
            env={**os.environ, "PYTHONPATH": str(root), "STREAMLLM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side, root in sides.items()
    }
    ways = [("here", "with"), ("here", "without"), *([("there", "with")] if args.other else [])]
    rows: list[dict[str, Any]] = []
    for policy in args.policies:
        answers: dict[tuple[str, str], list[Any]] = {way: [] for way in ways}
        for _ in range(args.rounds):
            for side, name in ways:
                child = children[side]
                assert child.stdin and child.stdout
                child.stdin.write(f"{policy} {name}\n")
                child.stdin.flush()
                while not (line := child.stdout.readline()).startswith("["):
                    if not line:
                        raise RuntimeError(f"the process of the checkout {side} ended")
                answers[side, name].append(json.loads(line))
        own = answers["here", "with"]
        for (side, name), given in answers.items():
            ratios = [one[0] / ours[0] for one, ours in zip(given, own, strict=True)]
            rows.append(
                {
                    "policy": policy,
                    "side": f"{side}, {name} prompt",
                    "header": given[0][2],
                    "cpu_ms_per_sentence": statistics.median(1e3 * one[0] / args.limit for one in given),
                    "written": given[0][1],
                    "ratio": statistics.median(ratios),
                }
            )
            if side == "there":
                mine = answers["here", name][0][3]
                different = sum(one != other for one, other in zip(mine, given[0][3], strict=True))
                print(f"{policy}, {name} prompt: {different} of {args.limit} sentences differ from those there")
    for child in children.values():
        assert child.stdin
        child.stdin.close()
        child.wait()
    print(markdown(rows, COLUMNS))
    save(args.json, {"model": args.model, "limit": args.limit, "rounds": args.rounds}, rows=rows)


if __name__ == "__main__":
    main()
