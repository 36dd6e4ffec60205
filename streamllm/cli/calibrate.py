"""Find the attention heads that policy=alignatt should look at, from a few sentences without any labels.

    streamllm calibrate dataset=multi30k-val dataset.data_dir=FOLDER dataset.limit=50
    streamllm calibrate model=folder model.path=FOLDER heads=4 write=true

Prints the best heads; with write=true they are kept in the model folder's streamllm.json, where the policy finds them.
Model, prompt and dataset are those of `streamllm run`, with the same keys. Use sentences that are not in the
test set.
"""

import json
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig

from streamllm.check import whole_number
from streamllm.cli.conf import CONF
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import RunKeys, checked, made
from streamllm.cli.main import as_module
from streamllm.files import write_atomically
from streamllm.models.alignment_heads import head_scores
from streamllm.models.loading import find_model
from streamllm.models.settings import SETTINGS, settings_of


@dataclass(eq=False, repr=False, kw_only=True)
class CalibrateKeys(RunKeys):
    """Of ``conf/calibrate.yaml``.

    Args:
        heads: how many are taken.
        write: true keeps them in the model folder's streamllm.json.
    """

    heads: int
    write: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("heads", self.heads, of="heads")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="calibrate")
@explained
def main(cfg: DictConfig) -> None:
    keys = checked(cfg, CalibrateKeys)[1]
    config, prompt, dataset = (made(cfg.get(key), key) for key in ("model", "prompt", "dataset"))
    model = config.load(prompt, dataset.source_unit, dataset.target_unit)
    examples = dataset.load()
    scores = head_scores(model, [example.source for example in examples])
    chosen = scores[: keys.heads]
    print(f"{len(examples)} sentences; share of target units whose deciding source unit a head looks at:")
    for score in scores[:10]:
        mark = "  *" if score in chosen else ""
        print(f"  layer {score.layer:2d}  head {score.head:2d}  {score.agreement:.3f}{mark}")
    heads = [[score.layer, score.head] for score in chosen]
    print(f"policy=alignatt 'policy.heads={json.dumps(heads)}'")
    if keys.write:
        path = find_model(config.path) / SETTINGS
        settings = settings_of(path) if path.exists() else {}
        content = json.dumps(settings | {"alignment_heads": heads}, indent=2, ensure_ascii=False)
        write_atomically(path, content + "\n")
        print(f"written to {path}")


def command() -> None:
    launch(main, "calibrate")


if __name__ == "__main__":
    as_module("calibrate")
