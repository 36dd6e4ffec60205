"""Seconds of CPU and peak memory of cutting one document at its reference sentences.

    python scripts/bench_resegment.py [--words 1000 10000] [--omnisteval PYTHON [--up-to 1000]] [--json FILE]

Ours beside mweralign, where it is installed, and OmniSTEval, where PYTHON is that of an environment with it; it takes
minutes beyond some 2,000 words. Each measurement is a process of its own; memory is what it added to its imports.
"""

import argparse
import json
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

OURS = """
from streamllm.metrics.resegment import soft_segmentation
import sacrebleu, regex
def cut(references, units):
    return soft_segmentation(references, units, "word", "de")
"""
OMNISTEVAL = """
from omnisteval.alignment import Word, align_sequences, process_alignment
from omnisteval.tokenization import tokenize_words
def cut(references, units):
    words = [Word(word, seq_id=i) for i, line in enumerate(references) for word in line.lower().split()]
    tokens = [tokenize_words([these], "de")[0] for these in (words, [Word(unit) for unit in units])]
    return [word.seq_id for word in process_alignment(*align_sequences(*tokens, False), False) if word.main]
"""
MWERALIGN = """
from mweralign.mweralign import align_texts
def cut(references, units):
    lines = align_texts("".join(f"{line}\\n" for line in references), " ".join(units)).split("\\n")
    return [i for i, line in enumerate(lines) for _ in line.split()]
"""
MEASURE = """
import json, resource, sys, time
references, units = json.load(sys.stdin)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
found = cut(references, units)
seconds = time.process_time() - start
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, else in KiB
print(json.dumps({"seconds": seconds, "mib": more / unit, "found": found}))
"""


def document(words: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """References of about so many German-looking words, and a hypothesis that has three of five right."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("enisratdhulcgmobwfkzpvüäößjyxq", range(30, 0, -1), k=draw.randint(2, 11)))
                  for _ in range(5000)]  # fmt: skip
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    references, count = [], 0
    while count < words:
        sentence = draw.choices(vocabulary, weights, k=min(draw.randint(5, 30), words - count))
        count += len(sentence)
        references.append(" ".join(sentence) + ".")
    right = [word for line in references for word in line.split()]
    return references, [word if draw.random() < 0.6 else draw.choices(vocabulary, weights)[0] for word in right]


def measure(python: str, program: str, references: list[str], units: list[str]) -> dict[str, object]:
    """Seconds of CPU, MiB and what was found, in a process of ``python``."""
    given = json.dumps([references, units])
    command = [python, "-c", program + MEASURE]
    done = subprocess.run(command, input=given, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"error: {python} failed:\n{done.stderr}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--omnisteval", metavar="PYTHON", help="the Python of an environment with omnisteval==0.1.10")
    parser.add_argument("--up-to", type=int, default=1000, help="words of the longest document for OmniSTEval")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = []
    print(f"{'words':>7} {'by':<12} {'seconds':>8} {'MiB':>7}")
    for words in chosen.words:
        references, units = document(words)
        ways = {"soft, ours": (sys.executable, OURS)}
        if find_spec("mweralign"):
            ways["mweralign"] = (sys.executable, MWERALIGN)
        if chosen.omnisteval and words <= chosen.up_to:
            ways["OmniSTEval"] = (chosen.omnisteval, OMNISTEVAL)
        found = {}
        for name, (python, program) in ways.items():
            row = measure(python, program, references, units)
            found[name] = row.pop("found")
            rows.append({"words": words, "by": name, **row})
            print(f"{words:>7} {name:<12} {row['seconds']:>8.2f} {row['mib']:>7.1f}", flush=True)
        if "OmniSTEval" in found and found["OmniSTEval"] != found["soft, ours"]:
            sys.exit(f"error: at {words} words, ours and OmniSTEval cut differently")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
