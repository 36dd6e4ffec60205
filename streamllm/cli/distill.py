"""Make training data of a teacher's translations (sequence-level distillation), a file for dataset=table.

    streamllm distill dataset=multi30k-train dataset.data_dir=FOLDER model=folder model.path=TEACHER \\
        prompt=chat batch_size=32 to=distilled.jsonl
    streamllm train dataset=table dataset.path=distilled.jsonl experiment=tiny_en_de …

Model, prompt and dataset are those of `streamllm run`, with the same keys; the teacher reads each source whole.
Stopped in any way, the same command goes on. With stream=true the corpus is read bit by bit.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from streamllm.cli.conf import CONF
from streamllm.cli.ending import status
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import RunKeys, checked, made
from streamllm.cli.main import as_module
from streamllm.training.distill import distill

DECIDES = ("model", "prompt", "dataset", "limits", "seed")  # what comes out
CHANGES_NOTHING = ("policy", "k", "min_lag", "max_lag", "paradigm", "arrival")


@dataclass(eq=False, repr=False, kw_only=True)
class DistillKeys(RunKeys):
    """Of ``conf/distill.yaml``.

    Args:
        to: the file of pairs to write, JSON Lines.
        stream: true reads the corpus bit by bit.
    """

    to: str | None
    stream: bool


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="distill")
@explained
def main(cfg: DictConfig) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        for override in HydraConfig.get().overrides.task:
            if override.split("=")[0].lstrip("+~").split(".")[0] in CHANGES_NOTHING:
                raise ValueError(f"{override}: the teacher reads each source whole, so leave this out")
        config, keys = checked(cfg, DistillKeys)
        if not keys.to:
            raise ValueError("where to? add to=FILE.jsonl")
        if keys.rerun:
            raise ValueError("rerun=true is for run and train: delete the file, or give another with to=FILE.jsonl")
        model, prompt, dataset, limits = (made(cfg.get(key), key) for key in ("model", "prompt", "dataset", "limits"))
        teacher = model.load(prompt, dataset.source_unit, dataset.target_unit)
        kept = {key: config[key] for key in DECIDES}
        made_of, to = model.contents(), Path(keys.to)
        pairs = distill(teacher, dataset, to, kept, keys.batch_size, limits, keys.seed, keys.stream, made_of)
        for _ in tqdm(pairs, unit=" pairs", mininterval=0.1 if sys.stderr.isatty() else 30.0):
            pass
        print(f"{to}: streamllm train experiment=tiny_en_de dataset=table dataset.path={to}")
    except KeyboardInterrupt:
        print(f"interrupted; what is done is in {cfg.to}, and the same command goes on", file=sys.stderr)
        sys.exit(status())


def command() -> None:
    launch(main, "distill")


if __name__ == "__main__":
    as_module("distill")
