"""What a run is called before the digest of its folder: the data set and the policy. A data set of plain files is
called as its files are.

Importing this makes ``${data_name:…}`` known to configurations."""

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from streamllm.data.lines import stem

LONGEST = 60  # characters of a file's name


def data_name(choice: str, name: Any, source: Any) -> str:
    """How a data set is called in the name of a run: as ``dataset=`` chose it, and files as `dataset.name` or their
    own names say, without what no folder is called."""
    if choice != "files" or not (name or source):
        return choice
    text = str(name) if name else stem(Path(str(source)))
    return re.sub(r"[^\w.+=-]+", "-", text).strip("-.")[:LONGEST] or choice


OmegaConf.register_new_resolver("data_name", data_name, replace=True)
