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
    from streamllm.runs.curve_tests import (
        curve_table as curve_table,
    )
    from streamllm.runs.curve_tests import (
        equal_latency_table as equal_latency_table,
    )
    from streamllm.runs.curve_tests import (
        loss_table as loss_table,
    )
    from streamllm.runs.curve_tests import (
        point_table as point_table,
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
    from streamllm.runs.no_later import no_later_table as no_later_table
    from streamllm.runs.points import (
        by_test_set as by_test_set,
    )
    from streamllm.runs.points import (
        curves_of as curves_of,
    )
    from streamllm.runs.points import (
        points_of as points_of,
    )
    from streamllm.runs.points import (
        side_by_side as side_by_side,
    )

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "RunError": "streamllm.files",
        "RunFolder": "streamllm.runs.folder",
        "RunInUse": "streamllm.runs.folder",
        "bootstrap": "streamllm.runs.compare",
        "by_test_set": "streamllm.runs.points",
        "curve_table": "streamllm.runs.curve_tests",
        "curves_of": "streamllm.runs.points",
        "digest": "streamllm.runs.naming",
        "drift_table": "streamllm.runs.documents",
        "equal_latency_table": "streamllm.runs.curve_tests",
        "intervals": "streamllm.runs.compare",
        "load_delays": "streamllm.runs.load",
        "load_runs": "streamllm.runs.load",
        "load_traces": "streamllm.runs.load",
        "loss_table": "streamllm.runs.curve_tests",
        "no_later_table": "streamllm.runs.no_later",
        "paired_bootstrap": "streamllm.runs.compare",
        "paired_test": "streamllm.runs.compare",
        "point_table": "streamllm.runs.curve_tests",
        "points_of": "streamllm.runs.points",
        "policy_name": "streamllm.runs.load",
        "read_config": "streamllm.runs.load",
        "sentence_table": "streamllm.runs.compare",
        "side_by_side": "streamllm.runs.points",
    },
)
