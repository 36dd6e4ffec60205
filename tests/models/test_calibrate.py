"""`streamllm calibrate` as people call it: the heads it prints are heads of the model, and those it keeps."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from streamllm.data.sample import Sample
from streamllm.models.alignment_heads import head_scores
from streamllm.models.loading import ModelConfig, find_model
from streamllm.models.settings import SETTINGS


def test_the_script_prints_the_best_heads_and_keeps_them(tmp_path: Path) -> None:
    """Those of another process on the same sentences, so they do not depend on chance either."""
    folder = shutil.copytree(find_model("bundled:tiny-en-de"), tmp_path / "model")
    before = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "streamllm", "calibrate", "model=folder", f"model.path={folder}"]
    command += ["dataset.limit=3", "heads=4", "write=true"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (printed,) = re.findall(r"^policy=alignatt 'policy\.heads=(.*)'$", done.stdout, flags=re.MULTILINE)

    model = ModelConfig(str(folder)).load()
    scores = head_scores(model, [example.source for example in Sample(limit=3).load()])
    args = model.model.args
    everything = [(layer, head) for layer in range(args.num_hidden_layers) for head in range(args.num_attention_heads)]
    assert sorted((score.layer, score.head) for score in scores) == everything
    assert json.loads(printed) == [[score.layer, score.head] for score in scores[:4]]
    after = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    assert after == before | {"alignment_heads": json.loads(printed)}
