"""Where the configurations are: in the wheel beside the package's modules, in a checkout the one folder at its top. And
what ``${language:…}`` is in them."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

PACKAGE = Path(__file__).parents[1]
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if (folder / "run.yaml").exists())


def _language(side: str, *, _root_: Any) -> str:
    """The name of the data set's language on a side ("source" or "target"), as ``languages`` lists it; a language that
    is null is that of the file's name, as in the data set itself.

    Raises: ValueError: no language is known, or ``languages`` has no name for it.
    """
    code = _root_.dataset.get(f"{side}_language")
    if code is None and (file := _root_.dataset.get(side)):
        from streamllm.data.text import language_of

        code = language_of(file, side)
    if code not in _root_.languages:
        raise ValueError(f"the {side} language is {code!r}, and languages has no name for it")
    return str(_root_.languages[code])


OmegaConf.register_new_resolver("language", _language, replace=True)
