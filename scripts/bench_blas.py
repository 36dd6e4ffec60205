"""GFLOP/s of a float32 product and tokens/s of one-token decoding, with and without the fast BLAS.

    python scripts/bench_blas.py [--threads 1 2] [--size 1024]

Each row is a process of its own, because a BLAS is chosen once, when mlx is loaded. Medians of one run.
"""

import argparse
import json
import os
import subprocess
import sys

CHILD = """
import json, statistics, sys, time
{prepare}
import mlx.core as mx
size, repeats = {size}, {repeats}
a, b = mx.random.normal((size, size)), mx.random.normal((size, size))
x, w = mx.random.normal((1, 2048)), mx.random.normal((2048, 8192))
mx.eval(a, b, x, w)
def seconds(work):
    mx.eval(work())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        mx.eval(work())
        times.append(time.perf_counter() - start)
    return statistics.median(times)
print(json.dumps({{
    "blas": {name},
    "gflops": 2 * size**3 / seconds(lambda: a @ b) / 1e9,
    "weights_gb_per_second": w.nbytes / seconds(lambda: x @ w) / 1e9,
}}))
"""


def measure(threads: int | None, size: int, repeats: int) -> dict[str, float | str]:
    """One row: ``threads`` None is MLX as the wheel ships it."""
    prepare = "import streamllm" if threads else ""
    name = "streamllm.BLAS" if threads else "'as shipped'"
    code = CHILD.format(prepare=prepare, name=name, size=size, repeats=repeats)
    env = dict(os.environ) | ({"STREAMLLM_THREADS": str(threads)} if threads else {})
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    row: dict[str, float | str] = json.loads(out.stdout)
    return row | {"threads": threads or 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    settings = [None, *dict.fromkeys(args.threads)]
    rows = [measure(threads, args.size, args.repeats) for threads in settings]
    base = float(rows[0]["gflops"])
    print(f"{'BLAS':<20} {'threads':>7} {'GFLOP/s':>9} {'ratio':>7} {'weights GB/s':>13}")
    for row in rows:
        gflops = float(row["gflops"])
        print(
            f"{row['blas']!s:<20} {row['threads']:>7} {gflops:>9.1f} {gflops / base:>6.1f}x "
            f"{float(row['weights_gb_per_second']):>13.1f}"
        )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
