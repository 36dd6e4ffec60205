"""Measures how exactly each model family streams, and prints the table of docs/families.md (--write: writes it).

The configurations and the reference are those of the conformance test: tests/families.py, tests/reference.py.
"""

import argparse
import importlib.util
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from streamllm.models.families import REFUSED, resolve

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "families.md"

INTRODUCTION = """\
# Model families

Written by `python scripts/check_families.py --write` (mlx {mlx}, mlx-lm {mlx_lm}, {device}, float32). Do not edit.

Models are mlx-lm's, unmodified. For each type, a tiny model with random weights reads and writes in chunks through
`DualStreamingCache` (trims and re-fed tokens included, φ = 0 and 7), and its logits are compared with a from-scratch
reference that is given each token's position and mask. *Deviation* is the largest difference as a share of the
largest logit; at most {tolerance:g} is accepted. *Mistake* is the smallest deviation that deliberate mistakes cause
(positions that go on after the source, unread source seen, newest source missed, no sliding window, and so on):
what the comparison would notice. *Window*: the configuration has sliding-window layers, shorter than the streams.
Every type trains, in batches in which each row has a mask of its own: all weights, LoRA, DoRA and QLoRA, each tested.

To add a type: put a tiny configuration in `tests/families.py`, its name in `streamllm/models/families.py`, run the
command above and `pytest tests/models/test_conformance.py`.
"""


def load(name: str) -> ModuleType:
    """A module of tests/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # reference.py imports families.py by name
    spec.loader.exec_module(module)
    return module


def document(names: list[str]) -> str:
    """The text of docs/families.md, for the named configurations or all."""
    families, reference = load("families"), load("reference")

    import mlx.core as mx
    from mlx_lm.utils import MODEL_REMAPPING

    rows, proven = [], set()
    for family in sorted(families.FAMILIES, key=lambda family: family.name.lower()):
        if names and family.name not in names and family.model_type not in names:
            continue
        start = time.perf_counter()
        largest = max(
            reference.deviation(reference.stream(family, phi), reference.expected(family, phi)) for phi in (0, 7)
        )
        smallest = min(
            reference.deviation(reference.mistaken(family, mistake), reference.expected(family, 0))
            for mistake in reference.mistakes_of(family)
        )
        exact = largest < reference.TOLERANCE
        if exact:
            proven.add(family.model_type)
        window = "yes" if reference.has_window(family) else ""
        rows.append(f"| `{family.model_type}` | {family.variant} | {largest:.1e} | {smallest:.2f} | {window} |")
        seconds = time.perf_counter() - start
        print(f"{family.name}: {largest:.1e}{'' if exact else ' FAILED'} ({seconds:.1f} s)", file=sys.stderr)

    aliases = [f"`{alias}` (as `{resolve(alias)}`)" for alias in sorted(MODEL_REMAPPING) if resolve(alias) in proven]
    introduction = INTRODUCTION.format(
        mlx=version("mlx"),
        mlx_lm=version("mlx-lm"),
        device=mx.default_device().type.name,
        tolerance=reference.TOLERANCE,
    )
    lines = [
        introduction,
        "## Supported",
        "",
        f"{len(proven)} model types.",
        "",
        "| model_type | variant | deviation | mistake | window |",
        "| --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Under other names: {', '.join(aliases) or 'none'}.",
        "",
        "## Not supported",
        "",
        "Any other type is refused. Of well-known ones, the reason:",
        "",
        "| model_type | reason |",
        "| --- | --- |",
        *(f"| `{model_type}` | {reason} |" for model_type, reason in sorted(REFUSED.items())),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="only these configurations (default: all)")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(ROOT)}")
    args = parser.parse_args()
    if args.write and args.names:
        parser.error("--write needs all configurations: name none")
    text = document(args.names)
    if args.write:
        DOCUMENT.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
