"""Where a run reports itself besides its folder: the protocol of trackers, and Weights & Biases. May import runs."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.tracking.tracker import (
        NullTracker as NullTracker,
    )
    from streamllm.tracking.tracker import (
        Picture as Picture,
    )
    from streamllm.tracking.tracker import (
        RunInfo as RunInfo,
    )
    from streamllm.tracking.tracker import (
        Tracker as Tracker,
    )
    from streamllm.tracking.wandb_runs import load_wandb_runs as load_wandb_runs
    from streamllm.tracking.wandb_tracker import WandbTracker as WandbTracker

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "NullTracker": "streamllm.tracking.tracker",
        "Picture": "streamllm.tracking.tracker",
        "RunInfo": "streamllm.tracking.tracker",
        "Tracker": "streamllm.tracking.tracker",
        "WandbTracker": "streamllm.tracking.wandb_tracker",
        "load_wandb_runs": "streamllm.tracking.wandb_runs",
    },
)
