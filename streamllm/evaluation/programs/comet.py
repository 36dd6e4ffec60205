"""Scores translations by COMET. It runs in an environment of its own, without streamllm:

python comet.py --model MODEL --batch-size N INPUT OUTPUT

INPUT has a JSON line for each sentence, with id, src, mt and ref; OUTPUT gets one with id and score. MODEL is a hub
id, a checkpoint, or a folder that holds checkpoints/model.ckpt."""

import argparse
import json
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("input", type=Path)
parser.add_argument("output", type=Path)
given = parser.parse_args()

# Python puts this folder first on the path, and this file has the name of the package.
sys.path = [place for place in sys.path if place and Path(place).resolve() != Path(__file__).resolve().parent]

import torch  # noqa: E402
from comet import download_model, load_from_checkpoint  # noqa: E402

checkpoint = Path(given.model)
if checkpoint.is_dir():
    checkpoint = checkpoint / "checkpoints" / "model.ckpt"
if not checkpoint.is_file():
    try:
        checkpoint = Path(download_model(given.model))
    except KeyError:
        sys.exit(
            f"COMET's model {given.model!r} is neither on this machine nor to be had from the hub. Is this machine "
            "offline, or does the model ask for a licence (huggingface-cli login)? A copy is given by its folder"
        )
model = load_from_checkpoint(str(checkpoint))
lines = [json.loads(line) for line in given.input.read_text("utf-8").splitlines()]
samples = [{key: line[key] for key in ("src", "mt", "ref")} for line in lines]
gpus = int(torch.cuda.is_available())
found = model.predict(samples, batch_size=given.batch_size, gpus=gpus, progress_bar=sys.stderr.isatty(), num_workers=0)
with given.output.open("w", encoding="utf-8") as file:
    for line, score in zip(lines, found.scores, strict=True):
        file.write(json.dumps({"id": line["id"], "score": float(score)}) + "\n")
