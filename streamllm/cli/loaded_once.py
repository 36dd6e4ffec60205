"""A model that stays loaded for the next run of this process that wants the same."""

from dataclasses import dataclass
from typing import Any

from streamllm.contents import Contents
from streamllm.runs.made_from import of_part


class OneModel:
    """The model that was loaded last, for the next run of this process that wants the same."""

    def __init__(self) -> None:
        self._wanted: Any = None
        self._loaded: Any = None

    def load(self, model: Any, *how: Any) -> Any:
        """``model.load(*how)``, or what it gave when it was last called with equal arguments and the files were the
        same."""
        if self._loaded is None or self._wanted != (model, how, of_part(model)):
            self._wanted = self._loaded = None  # let go first: there is never a second model in memory
            self._loaded = model.load(*how)
            self._wanted = (model, how, of_part(model))  # now: a download may have come in between
        return self._loaded


_ONE = OneModel()


@dataclass(frozen=True)
class LoadedOnce:
    """A model configuration for a process that runs many points: where the next one wants the same model, prompt,
    units and paradigm, and its files hold what they held, the model in memory is taken."""

    model: Any

    def contents(self) -> Contents:
        return of_part(self.model)

    def load(self, *how: Any) -> Any:
        return _ONE.load(self.model, *how)
