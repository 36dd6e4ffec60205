"""streamllm: LLMs that write while they read.

What a notebook needs is here, found when it is asked for, so that this import stays cheap:

    import streamllm as st

    model = st.load_model()
    for event in st.stream(model, "a man is riding a bicycle", st.WaitK(3)):
        print(event.kind, event.text)
    run = st.evaluate("bundled:tiny-en-de", st.WaitK(3), st.Sample())
    print(run.metrics["bleu"], run.metrics["laal"])

The rest lies in rooms (docs/architecture.md). This import loads a fast BLAS before anything imports mlx.
"""

from typing import TYPE_CHECKING

from streamllm.cpu import blas
from streamllm.faces import face

if TYPE_CHECKING:
    from streamllm.batching.scheduler import translate_many as translate_many
    from streamllm.data.sample import Sample as Sample
    from streamllm.engine.limits import Limits as Limits
    from streamllm.engine.session import Session as Session
    from streamllm.evaluation.api import evaluate as evaluate
    from streamllm.evaluation.api import load_model as load_model
    from streamllm.evaluation.api import stream as stream
    from streamllm.metrics.latency import latency as latency
    from streamllm.models.loading import ModelConfig as ModelConfig
    from streamllm.plots.curves import quality_latency as quality_latency
    from streamllm.plots.sentences import read_write_path as read_write_path
    from streamllm.policies.waitk import WaitK as WaitK
    from streamllm.prompt import Prompt as Prompt
    from streamllm.records import READ as READ
    from streamllm.records import WRITE as WRITE
    from streamllm.records import Example as Example
    from streamllm.records import Policy as Policy
    from streamllm.records import State as State
    from streamllm.runs.load import load_runs as load_runs
    from streamllm.runs.load import load_traces as load_traces

BLAS = blas.load_first()

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "Example": "streamllm.records",
        "Limits": "streamllm.engine.limits",
        "ModelConfig": "streamllm.models.loading",
        "Policy": "streamllm.records",
        "Prompt": "streamllm.prompt",
        "READ": "streamllm.records",
        "Sample": "streamllm.data.sample",
        "Session": "streamllm.engine.session",
        "State": "streamllm.records",
        "WRITE": "streamllm.records",
        "WaitK": "streamllm.policies.waitk",
        "evaluate": "streamllm.evaluation.api",
        "latency": "streamllm.metrics.latency",
        "load_model": "streamllm.evaluation.api",
        "load_runs": "streamllm.runs.load",
        "load_traces": "streamllm.runs.load",
        "quality_latency": "streamllm.plots.curves",
        "read_write_path": "streamllm.plots.sentences",
        "stream": "streamllm.evaluation.api",
        "translate_many": "streamllm.batching.scheduler",
    },
)
