"""Tries each type with a configuration as transformers 5 writes it, and prints docs/configs.md (--write: writes it).

    python scripts/check_configs.py --write

Where PyTorch is there (pip install -e '.[torch]'), transformers' own models save themselves, too, and are compared.
"""

import argparse
import copy
import importlib
import importlib.util
import json
import logging
import os
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")

import mlx.core as mx
import numpy as np
from check_families import load

from streamllm.models.model_configs import as_mlx_lm_reads
from streamllm.models.rotary_scaling import mend

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "configs.md"
TOKENS = [[1, 5, 9, 2, 7, 30, 11, 4, 17, 3]]

INTRODUCTION = """\
# Configurations as transformers 5 writes them

Written by `python scripts/check_configs.py --write` (transformers {transformers}, mlx-lm {mlx_lm}). Do not edit.

transformers 5 writes the base of rotary embeddings only into `rope_parameters` of config.json. mlx-lm does not read
that for most types: it computes a model of base 500,000 with 10,000. Other keys have moved as well. `streamllm` reads
the configuration, gives mlx-lm what its model file reads, and leaves the folder as it is
(`streamllm/models/model_configs.py`). What a file cannot compute is refused by an error that names key and value; a key
of `rope_parameters` that nobody knows is refused, too.

For each type, transformers' class saves a tiny configuration with base {base:,.0f}. *Translated*: with the same weights
it gives the logits of the configuration in the old form; *deviation* is the largest difference as a share of the
largest logit. *Changed* are the keys that mlx-lm's file is given in other words. *Torch* is the deviation from
transformers' own model, where it can save tiny weights that mlx-lm's file reads. Types without a class in transformers
are marked *generic*: what is there is what any model of transformers 5 writes.
"""

NOTES = """\
## What mlx-lm computes otherwise, in either form

- `longrope` (phi3, phimoe, minicpm3, and others that name it): mlx-lm takes the factors of long texts at every length.
  Models were trained with the short ones up to `original_max_position_embeddings`, so those are given to it. Beyond
  that length the model was trained with the long ones.
- `yarn`: `attention_factor`, and `mscale` without `mscale_all_dim`, are said by an `mscale` that has the same effect.
  `truncate: false` (gpt_oss) is set in the loaded model: without it one of gpt-oss's frequencies is wrong by a
  factor of 1.8.
- glm rotates a part of each head (`partial_rotary_factor`), mlx-lm's file all of it: set in the loaded model.
- mimo_v2_flash: `sliding_window_size` does not count the token itself; mlx-lm's mask does.
- A window that mlx-lm's file does not have (`sliding_window` of mistral, phi3, qwen2, starcoder2 …) is warned about:
  up to so many tokens a stream nothing differs.
- ernie4_5_moe chooses its experts without the bias that the model was trained with: a warning.
- qwen2_moe with `norm_topk_prob: true` and scalings that a file leaves out are refused.
"""


def changed(saved: dict[str, Any], read: dict[str, Any]) -> list[str]:
    """Keys that mlx-lm is given and that the configuration does not have so."""
    names = [key for key in read if key != "text_config" and (key not in saved or saved[key] != read[key])]
    if "text_config" in read:
        names += changed(saved["text_config"], read["text_config"])
    return sorted(key for key in set(names) if key != "rope_parameters" and read.get(key, 0) is not None)


def compared(family: Any, read: dict[str, Any], saved_configs: ModuleType, reference: ModuleType) -> float:
    """The deviation from the old form, with the same weights."""
    weights = reference.build(replace(family, config=saved_configs.configuration(family))).parameters()
    module = importlib.import_module(f"mlx_lm.models.{family.model_type}")
    logits = []
    for config in (read, as_mlx_lm_reads(saved_configs.old_form(family))):
        model = module.Model(module.ModelArgs.from_dict(copy.deepcopy(config)))
        model.update(weights)
        mend(model, config)
        logits.append(np.array(model(mx.array(TOKENS))))
    return float(reference.deviation(*logits))


def against_transformers(saved: dict[str, Any]) -> float | None:
    """The deviation from transformers' own model, which saves itself; None where it cannot, or mlx-lm reads no such
    weights."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch
    from mlx_lm.utils import load_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    tied = {"tie_word_embeddings": True} if saved["model_type"] in ("cohere", "cohere2", "gemma", "gemma2") else {}
    biased = {"attention_bias": True, "use_bias": True, "lm_head_bias": True}
    biases = biased if saved["model_type"] in ("starcoder2", "phimoe") else {}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    try:
        config = CONFIG_MAPPING[saved["model_type"]].from_dict({**saved, **ids, **tied, **biases})
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "moe_statics" in name:  # mlx-lm leaves it out, and a warning says so
                    weight.zero_()
                elif weight.ndim < 2:
                    weight.copy_(1 + 0.2 * torch.randn_like(weight))
                else:
                    weight.copy_(torch.randn_like(weight) * 1.5 / weight.shape[-1] ** 0.5)
            wanted = model(input_ids=torch.tensor(TOKENS), use_cache=False).logits.numpy()
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            read = as_mlx_lm_reads(json.loads((Path(folder) / "config.json").read_text()))
            loaded, _ = load_model(Path(folder), model_config=read)
            mend(loaded, read)
            got = np.array(loaded(mx.array(TOKENS)))
    except (
        Exception
    ) as error:  # of two libraries and many classes; printed, and the table says that nothing was compared
        print(f"{saved['model_type']}: not compared ({type(error).__name__}: {error})"[:160], file=sys.stderr)
        return None
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def document() -> str:
    """The text of docs/configs.md."""
    families, saved_configs, reference = load("families"), load("saved_configs"), load("reference")
    from transformers import CONFIG_MAPPING

    logging.getLogger("streamllm").setLevel(logging.ERROR)
    rows: dict[str, str] = {}
    for family in sorted(families.FAMILIES, key=lambda family: family.name.lower()):
        if family.model_type in rows:
            continue
        saved = saved_configs.as_saved(family)
        made_by = "" if family.model_type in CONFIG_MAPPING and family.model_type != "pixtral" else "generic"
        try:
            read = as_mlx_lm_reads(saved)
        except ValueError as error:
            rows[family.model_type] = f"| `{family.model_type}` | refused | | | {made_by} | {error} |"
            continue
        deviation = f"{compared(family, read, saved_configs, reference):.0e}"
        torch = against_transformers(saved) if not made_by else None
        keys = ", ".join(f"`{key}`" for key in changed(saved, read))
        rows[family.model_type] = (
            f"| `{family.model_type}` | translated | {deviation} | {'' if torch is None else f'{torch:.0e}'} "
            f"| {made_by} | {keys} |"
        )
    introduction = INTRODUCTION.format(
        transformers=version("transformers"), mlx_lm=version("mlx-lm"), base=saved_configs.BASE
    )
    table = [
        "| model_type | what | deviation | torch | | changed, or why not |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([introduction, *table, *rows.values(), "", NOTES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(ROOT)}")
    args = parser.parse_args()
    text = document()
    if args.write:
        DOCUMENT.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
