#!/usr/bin/env bash
# The extras cpu and cuda12 of mlx can be installed together, and then only one of them is there: their packages mlx-cpu
# and mlx-cuda-12 both hold mlx/lib/libmlx.so, and pip overwrites the first by the second without a word. So a project
# that needs mlx[cpu] on Linux cannot offer CUDA by an extra alone: the order of unpacking decides. Seen with mlx 0.32.4.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip download --quiet --no-deps --dest "$folder" mlx-cpu==0.32.4 mlx-cuda-12==0.32.4
python3 - "$folder" <<'PY'
import sys
import zipfile
from pathlib import Path

holds = {path.name.split("-")[0]: set(zipfile.ZipFile(path).namelist()) for path in Path(sys.argv[1]).glob("*.whl")}
both = set.intersection(*holds.values())
libraries = sorted(name for name in both if name.endswith(".so"))
print(f"{' and '.join(sorted(holds))} both hold {len(both)} files, of libraries: {', '.join(libraries)}")
sys.exit("mlx/lib/libmlx.so" not in libraries)
PY
