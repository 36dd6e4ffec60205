"""What training a write head needs of its labels."""

from typing import Any, Protocol

import numpy as np

from streamllm.training.heads.cells import Cells

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Labels(Protocol):
    """How right WRITE is at a cell; a frozen dataclass whose fields are the keys of its YAML.

    What costs forwards is measured once and kept; what is made of it may change without a forward.
    """

    every_lag: bool
    """Whether all cells of a pair have to be there, not those of a few drawn rows."""

    @property
    def measures(self) -> str:
        """What `measured` gives: labels that say the same share what is kept."""
        ...

    def measured(self, cells: Cells) -> Floats:
        """A number for each cell of a pair, (C,)."""
        ...

    def targets(self, measured: Floats) -> Floats:
        """How right WRITE is, 0 to 1, of each number."""
        ...
