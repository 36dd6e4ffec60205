#!/usr/bin/env bash
# transformers 5.24.0 and mlx-lm 0.32.2 (mlx 0.32.4): a Llama saved by the one is computed with another rotary base by
# the other, without a word.
#
# transformers 5 writes the base only into rope_parameters of config.json. mlx-lm reads rope_theta, does not find it, and
# takes its default. Seen:
#
#     config.json: rope_theta is absent, rope_parameters is {'rope_theta': 500000.0, 'rope_type': 'default'}
#     mlx-lm computes with base 10000
#
# Exits with 0 while this is so, and with 1 once it has changed. Needs PyPI; leaves nothing behind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "transformers==5.24.0" "mlx-lm==0.32.2" "mlx[cpu]==0.32.4"
"$folder/venv/bin/python" - "$folder/model" <<'PYTHON'
import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import load_model
from transformers import LlamaConfig

folder = Path(sys.argv[1])
sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=64)
rotary = {"rope_type": "default", "rope_theta": 500_000.0}
LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, rope_parameters=rotary).save_pretrained(folder)
config = json.loads((folder / "config.json").read_text())
print("config.json: rope_theta is", config.get("rope_theta", "absent") + ",", "rope_parameters is", config["rope_parameters"])
weights = tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters())
mx.save_safetensors(str(folder / "model.safetensors"), dict(weights), {"format": "mlx"})
model, _ = load_model(folder)
base = model.layers[0].self_attn.rope.base
print(f"mlx-lm computes with base {base:g}")
sys.exit(base != 10_000)
PYTHON
