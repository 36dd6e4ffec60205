"""Run folders: written sentence by sentence, read back, compared. May import metrics. Its face is lazy:
`from streamllm.runs import load_runs, load_traces`."""

from typing import TYPE_CHECKING

from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.files import RunError as RunError
    from streamllm.runs.compare import (
        bootstrap as bootstrap,
    )
    from streamllm.runs.compare import (
        intervals as intervals,
    )
    from streamllm.runs.compare import (
        paired_bootstrap as paired_bootstrap,
    )
    from streamllm.runs.compare import (
        paired_test as paired_test,
    )
    from streamllm.runs.compare import (
        sentence_table as sentence_table,
    )
    from streamllm.runs.documents import drift_table as drift_table
    from streamllm.runs.folder import RunFolder as RunFolder
    from streamllm.runs.folder import RunInUse as RunInUse
    from streamllm.runs.load import (
        load_delays as load_delays,
    )
    from streamllm.runs.load import (
        load_runs as load_runs,
    )
    from streamllm.runs.load import (
        load_traces as load_traces,
    )
    from streamllm.runs.load import (
        policy_name as policy_name,
    )
    from streamllm.runs.load import (
        read_config as read_config,
    )
    from streamllm.runs.naming import digest as digest

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "RunError": "streamllm.files",
        "RunFolder": "streamllm.runs.folder",
        "RunInUse": "streamllm.runs.folder",
        "bootstrap": "streamllm.runs.compare",
        "digest": "streamllm.runs.naming",
        "drift_table": "streamllm.runs.documents",
        "intervals": "streamllm.runs.compare",
        "load_delays": "streamllm.runs.load",
        "load_runs": "streamllm.runs.load",
        "load_traces": "streamllm.runs.load",
        "paired_bootstrap": "streamllm.runs.compare",
        "paired_test": "streamllm.runs.compare",
        "policy_name": "streamllm.runs.load",
        "read_config": "streamllm.runs.load",
        "sentence_table": "streamllm.runs.compare",
    },
)
