#!/usr/bin/env bash
# mlx-lm 0.32.2 (mlx 0.32.4): `truncate: false` of gpt-oss's rotary embeddings has no effect.
#
# The config.json of gpt-oss says rope_type yarn with truncate: false: the ramp between the two kinds of frequencies
# begins and ends at fractions of a dimension (transformers 5.24.0, _compute_yarn_parameters). mlx-lm does not know the
# key and rounds. With gpt-oss's values and 64 dimensions, one frequency is wrong by a factor of 1.76. Seen:
#
#     mlx-lm gives the same frequencies for truncate true and false: True
#     largest ratio between what it gives and what truncate: false means: 1.76
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlx-lm==0.32.2" "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" - <<'PYTHON'
import math
import sys

import numpy as np
from mlx_lm.models.rope_utils import initialize_rope

DIMS, BASE, FACTOR, ORIGINAL = 64, 150_000.0, 32.0, 4096
yarn = {"rope_type": "yarn", "factor": FACTOR, "beta_fast": 32.0, "beta_slow": 1.0}
yarn["original_max_position_embeddings"] = ORIGINAL


def frequencies(truncate: bool) -> np.ndarray:
    return 1 / np.array(initialize_rope(DIMS, BASE, False, yarn | {"truncate": truncate})._freqs)


def dimension(rotations: float) -> float:
    return DIMS * math.log(ORIGINAL / (rotations * 2 * math.pi)) / (2 * math.log(BASE))


low, high = dimension(32.0), dimension(1.0)
ramp = np.clip((np.arange(DIMS // 2) - low) / (high - low), 0, 1)
plain = BASE ** (-np.arange(0, DIMS, 2) / DIMS)
meant = plain / FACTOR * ramp + plain * (1 - ramp)
given = frequencies(False)
same = bool((given == frequencies(True)).all())
ratio = float(np.maximum(given / meant, meant / given).max())
print(f"mlx-lm gives the same frequencies for truncate true and false: {same}")
print(f"largest ratio between what it gives and what truncate: false means: {ratio:.2f}")
sys.exit(not (same and ratio > 1.1))
PYTHON
